"""Tells the threads of this library from those of the application."""

import threading
from contextlib import AbstractContextManager, nullcontext


class OwnThread(threading.Thread):
    """A thread of this library: it does work for the application, which did not start it."""

    def waiting(self) -> AbstractContextManager[None]:
        """Return what surrounds a wait of this thread for a call of this library."""
        return nullcontext()


def in_own_thread() -> bool:
    """Return True if the calling thread is one of the library's."""
    return isinstance(threading.current_thread(), OwnThread)


def waiting() -> AbstractContextManager[None]:
    """Return what surrounds a wait for a call, so that a pool can let another thread work."""
    thread = threading.current_thread()
    return thread.waiting() if isinstance(thread, OwnThread) else _NOTHING


_NOTHING = nullcontext()
