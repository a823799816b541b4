"""Lets the owner of a connection sleep, and decides what ends its sleep."""

from qam._broker.readiness import NOTHING, readiness_of
from qam._broker.transport import BufferedTransport
from qam._broker.waker import Waker
from qam._common.deadline import sooner


class Sleep:
    """The waits on one connection.

    :param transport: the connected transport of that connection.
    """

    def __init__(self, transport: BufferedTransport) -> None:
        self._transport = transport
        self._readiness = readiness_of(transport.sock)
        # Whether there may be data that were not received yet.
        self._has_come = False
        #: True after py-amqp has waited for an answer: it may have received other frames, too.
        self.took_in = False
        #: True if incoming data end no wait until the owner reads again.
        self.rests = False

    def wait(self, timeout: float | None, waker: Waker, read_delay: float) -> None:
        """Wait up to *timeout* seconds for something to read, or until woken."""
        if self.took_in:
            return
        if read_delay and not self.rests and self._wait_unread(timeout, waker, read_delay):
            return
        rests = self.rests and self._readiness.notices_end
        interest = NOTHING if rests else self._transport.interest
        woken, readable = self._readiness.wait(interest, waker, timeout)
        if woken:
            waker.clear()
        self._has_come |= readable

    def _wait_unread(self, timeout: float | None, waker: Waker, read_delay: float) -> bool:
        """Wait without reading for *read_delay* seconds; return True if *waker* has ended it."""
        if self._transport.backlog or not self._readiness.notices_end:
            return False
        woken, ended = self._readiness.wait(NOTHING, waker, sooner(timeout, read_delay))
        if woken:
            waker.clear()
            self._has_come = True  # data may have come as well
        return woken and not ended

    def rest(self) -> None:
        """Keep incoming data from ending the current wait, or the next; any thread may call it."""
        self.rests = self._has_come = True  # data may come before the owner is woken
        self._readiness.rest()

    def end(self) -> bool:
        """End the rest, as the owner reads again; return whether there may be data to receive."""
        has_come, self._has_come = self._has_come, False
        self.took_in = self.rests = False
        return has_come

    def close(self) -> None:
        """Close the descriptor that the waits use."""
        self._readiness.close()
