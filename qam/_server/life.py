"""The life of a server: it serves once, and may be closed at any time."""

import threading
from enum import Enum

from qam.exceptions import QAMClosedException


class State(Enum):
    """Where a server stands.  Each but the first is only ever reached from those above it."""

    NEW = "new"  # it has not served
    SERVING = "serving"  # it has threads, or is about to start them
    ENDED = "ended"  # without being closed: it could not start, was interrupted, or died
    CLOSING = "closing"  # it is to end, and has threads
    CLOSED = "closed"  # it was closed before it served, or has ended since
    FORKED = "forked"  # it is the parent's


class Life:
    """What came first, serve() or close(); and when all is over."""

    def __init__(self) -> None:
        self._state = State.NEW
        # Guards _state.  Reentrant, because a signal handler that closes may run inside.
        self._lock = threading.RLock()
        self._over = threading.Event()
        #: What the server died of.
        self.failure: BaseException | None = None

    def __str__(self) -> str:
        lives = self._state in (State.NEW, State.SERVING, State.CLOSING)
        return self._state.value if lives else "closed"

    @property
    def has_threads(self) -> bool:
        """True while it serves, and while it closes."""
        return self._state in (State.SERVING, State.CLOSING)

    def begin(self) -> bool:
        """Make this the one time that the server serves; return False if it is closed.

        :raises QAMClosedException: the process was forked.
        :raises RuntimeError: it serves already, or has served.
        """
        with self._lock:
            if self._state is State.FORKED:
                raise QAMClosedException(
                    "the server belongs to the process that this one was forked from; "
                    "make a new one here"
                )
            if self._state in (State.CLOSING, State.CLOSED):
                return False
            if self._state is not State.NEW:
                raise RuntimeError("the server serves already, or has served; make a new one")
            self._state = State.SERVING
            return True

    def close(self) -> bool:
        """Serve no more, or never; return whether there may be threads to end."""
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
        """The server dies of *error*, if of any; the first one counts."""
        self.failure = self.failure or error

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end, *timeout* seconds at most."""
        self._over.wait(timeout)

    def after_fork(self) -> None:
        """Be over, with a lock that nobody holds; in a forked child."""
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._over.set()
        self._state = State.FORKED
