"""Waiting for a socket and for a waker at once."""

import select
import selectors
from typing import Any

from qam._waker import Waker

#: What to wait for on the socket; its end is noticed in any case.
NOTHING, TO_READ, TO_WRITE = 0, selectors.EVENT_READ, selectors.EVENT_WRITE


class Readiness:
    """Tells when a socket, or a waker, is ready.

    :param sock: the socket of a connection; it does not block.
    """

    #: Whether it can wait for the waker alone, and still notice the end of the socket.
    notices_end = True

    def __init__(self, sock: Any) -> None:
        self._descriptor = sock.fileno()
        self._poll = select.poll()
        self._interest = TO_READ
        self._poll.register(self._descriptor, _events(TO_READ))
        self._waker: Waker | None = None

    def wait(self, interest: int, waker: Waker, timeout: float | None) -> tuple[bool, bool]:
        """Wait up to *timeout* seconds (None: without end) for the socket or the waker.

        :param interest: :data:`NOTHING`, or :data:`TO_READ` and :data:`TO_WRITE` together.
        :returns: whether the waker is ready, and whether the socket can be read or has ended.
        """
        self._mind(interest, waker)
        milliseconds = None if timeout is None else 1000 * timeout
        ready = dict(self._poll.poll(milliseconds))
        return waker.fileno() in ready, bool(ready.get(self._descriptor, 0) & ~select.POLLOUT)

    def _mind(self, interest: int, waker: Waker) -> None:
        if interest != self._interest:
            self._interest = interest
            self._poll.modify(self._descriptor, _events(interest))
        if waker is not self._waker:
            self._waker = waker
            self._poll.register(waker, select.POLLIN)

    def close(self) -> None:
        """Nothing to give back: it takes no descriptor."""


def _events(interest: int) -> int:
    # By itself poll tells only of a reset.
    events: int = getattr(select, "POLLRDHUP", 0)
    events |= select.POLLIN if interest & TO_READ else 0
    return events | (select.POLLOUT if interest & TO_WRITE else 0)


class _SelectorReadiness:
    """The same by whatever the system has; Windows has no poll."""

    notices_end = False

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, TO_READ)

    def wait(self, interest: int, waker: Waker, timeout: float | None) -> tuple[bool, bool]:
        self._selector.modify(self._sock, interest)
        if waker.fileno() not in self._selector.get_map():
            self._selector.register(waker, TO_READ)
        ready = {key.fileobj: mask for key, mask in self._selector.select(timeout)}
        return waker in ready, bool(ready.get(self._sock, 0) & TO_READ)

    def close(self) -> None:
        self._selector.close()


def readiness_of(sock: Any) -> Readiness | _SelectorReadiness:
    """Return what tells when *sock* is ready, the best that the system has."""
    return Readiness(sock) if hasattr(select, "poll") else _SelectorReadiness(sock)
