"""The life of a server: it serves once, and may be closed at any time."""

import threading
from enum import Enum

from qam._common.deadline import Deadline, sooner
from qam._common.own_locks import own_lock
from qam.exceptions import QAMClosedException

#: Seconds after which a signal is noticed that arrived as a wait began.
_LONGEST_WAIT = 1.0


class State(Enum):
    """The states of a server.  Each can be reached only from states above it."""

    NEW = "new"  # it has not served
    SERVING = "serving"  # it has threads, or is about to start them
    ENDED = "ended"  # without a close(): it could not start, was interrupted, or died
    CLOSING = "closing"  # close() was called, and it still has threads
    CLOSED = "closed"  # close() was called, and it has no threads
    FORKED = "forked"  # it belongs to the parent process


class Life:
    """Decides which came first, serve() or close(), and knows when the server has ended."""

    def __init__(self) -> None:
        self._state = State.NEW
        # Guards _state.  Reentrant, because a signal handler that closes may run while this
        # thread holds it.
        self._lock = own_lock()
        self._over = threading.Event()
        #: Who began to serve, see :meth:`begin`.
        self.begun_by: object = None
        #: The error that the server died of; None if it did not die.
        self.failure: BaseException | None = None

    def __str__(self) -> str:
        lives = self._state in (State.NEW, State.SERVING, State.CLOSING)
        return self._state.value if lives else "closed"

    @property
    def has_threads(self) -> bool:
        """True while the server serves or closes."""
        return self._state in (State.SERVING, State.CLOSING)

    @property
    def serves(self) -> bool:
        """True from the start until close() is called or the server ends."""
        return self._state is State.SERVING

    @property
    def is_closed(self) -> bool:
        """True once close() was called, or the server has ended."""
        return self._state not in (State.NEW, State.SERVING)

    @property
    def is_over(self) -> bool:
        """True if it has no threads any more, and never will."""
        return self._state in (State.ENDED, State.CLOSED, State.FORKED)

    def begin(self, by: object = None) -> bool:
        """Begin to serve, which a server does once; return False if it is closed.

        :param by: is :attr:`begun_by` if this has begun, even if Ctrl-C interrupts it.
        :raises QAMClosedException: the process was forked.
        :raises RuntimeError: it serves already, or has served.
        """
        with self._lock:
            if self._state is State.FORKED:
                raise QAMClosedException(
                    "the server was made before this process was forked; "
                    "make a new server in this process"
                )
            if self._state in (State.CLOSING, State.CLOSED):
                return False
            if self._state is not State.NEW:
                raise RuntimeError("the server serves already, or has served; make a new one")
            self.begun_by, self._state = by, State.SERVING
            return True

    def close(self) -> bool:
        """Begin to close; return True if there may be threads to end."""
        with self._lock:
            if self._state is State.SERVING:
                self._state = State.CLOSING
            elif self._state in (State.NEW, State.ENDED):
                self._state = State.CLOSED
            return self._state is State.CLOSING

    def end(self) -> None:
        """The threads have ended."""
        with self._lock:
            if self._state is State.SERVING:
                self._state = State.ENDED
            elif self._state is State.CLOSING:
                self._state = State.CLOSED
        self._over.set()

    def fail(self, error: BaseException | None) -> None:
        """Remember *error* as the one that the server died of; only the first counts."""
        self.failure = self.failure or error

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end of the server, *timeout* seconds at most.

        The main thread waits here for signals too.  CPython does not notice one that arrives just
        as a wait begins until that wait ends; so none of them is long.
        """
        deadline = Deadline(timeout)
        # close() before the start ends the server too, and may be called by a signal handler
        # inside the wait: it can't set the event.
        while not (self.is_over or self._over.wait(sooner(deadline.wait_time(), _LONGEST_WAIT))):
            if deadline.expired:
                return

    def after_fork(self) -> None:
        """In a forked child: be ended, and make a new lock, which nobody holds."""
        self._lock = own_lock()
        self._over = threading.Event()
        self._over.set()
        self._state = State.FORKED
