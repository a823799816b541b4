"""How the owner of a connection sleeps: what ends its wait, and what does not."""

from qam._broker.readiness import NOTHING, readiness_of
from qam._broker.transport import BufferedTransport
from qam._broker.waker import Waker
from qam._common.deadline import sooner


class Sleep:
    """The waits on one connection.

    :param transport: of that connection; it is connected.
    """

    def __init__(self, transport: BufferedTransport) -> None:
        self._transport = transport
        self._readiness = readiness_of(transport.sock)
        # Something that was not received yet.
        self._has_come = False
        #: py-amqp waited for an answer, and took in, perhaps, what is not for it.
        self.took_in = False
        #: What comes does not end a wait before the next look.
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
        """Wait for *waker* alone; return whether that was all that was to wait for."""
        if self._transport.backlog or not self._readiness.notices_end:
            return False
        woken, ended = self._readiness.wait(NOTHING, waker, sooner(timeout, read_delay))
        if woken:
            waker.clear()
            self._has_come = True  # perhaps, by the way
        return woken and not ended

    def rest(self) -> None:
        """Let what comes not end the wait that goes on, or begins; any thread may call this."""
        self.rests = self._has_come = True  # something perhaps, by the time that it is woken
        self._readiness.rest()

    def end(self) -> bool:
        """The owner looks at its connection again; return whether something may have come."""
        has_come, self._has_come = self._has_come, False
        self.took_in = self.rests = False
        return has_come

    def close(self) -> None:
        """Give its descriptor back."""
        self._readiness.close()
