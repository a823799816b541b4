"""Waits for a socket and a waker at once."""

import select
import selectors
from typing import Any

from qam._broker.waker import Waker
from qam._common.own_locks import own_lock

#: The interest in a socket: what to wait for.  Its end is noticed in any case.
NOTHING, TO_READ, TO_WRITE = 0, selectors.EVENT_READ, selectors.EVENT_WRITE


class Readiness:
    """Tells when a socket, or a waker, is ready.

    :param sock: the socket of a connection; it does not block.
    """

    #: Whether a wait with the interest NOTHING notices the end of the socket.
    notices_end = True

    def __init__(self, sock: Any) -> None:
        self._descriptor = sock.fileno()
        self._epoll = select.epoll()
        self._epoll.register(self._descriptor, _events(TO_READ))
        self._interest = TO_READ
        # Guards _interest, and the call that sets it in the kernel: see rest().
        self._interest_lock = own_lock()
        self._waker: Waker | None = None

    def wait(self, interest: int, waker: Waker, timeout: float | None) -> tuple[bool, bool]:
        """Wait up to *timeout* seconds (None: without end) for the socket or the waker.

        :param interest: :data:`NOTHING`, or :data:`TO_READ` and :data:`TO_WRITE` together.
        :returns: whether the waker is ready, and whether the socket can be read or has ended.
        """
        self._watch(interest, waker)
        ready = dict(self._epoll.poll(timeout))
        return waker.fileno() in ready, bool(ready.get(self._descriptor, 0) & ~select.EPOLLOUT)

    def rest(self) -> None:
        """Let only the waker, or the socket's end, end the current wait; any thread may call it."""
        self._set_interest(NOTHING)

    def _watch(self, interest: int, waker: Waker) -> None:
        self._set_interest(interest)
        if waker is not self._waker:
            self._waker = waker
            self._epoll.register(waker, select.EPOLLIN)

    def _set_interest(self, interest: int) -> None:
        with self._interest_lock:
            if interest != self._interest:
                self._interest = interest
                self._epoll.modify(self._descriptor, _events(interest))

    def close(self) -> None:
        """Close the descriptor of epoll."""
        self._epoll.close()


def _events(interest: int) -> int:
    # Without this flag epoll reports a reset, but not an orderly end.
    events: int = select.EPOLLRDHUP
    events |= select.EPOLLIN if interest & TO_READ else 0
    return events | (select.EPOLLOUT if interest & TO_WRITE else 0)


class _SelectorReadiness:
    """The same with the system's best selector, where there is no epoll."""

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

    def rest(self) -> None:
        """Do nothing: incoming data may end the current wait, which is harmless."""

    def close(self) -> None:
        self._selector.close()


def readiness_of(sock: Any) -> Readiness | _SelectorReadiness:
    """Return a Readiness of *sock*, or its substitute on a system without epoll."""
    return Readiness(sock) if hasattr(select, "epoll") else _SelectorReadiness(sock)
