"""Tells the threads of this library from those of the application."""

import threading
from contextlib import AbstractContextManager, nullcontext


class OwnThread(threading.Thread):
    """A thread of this library: it does work for the application, which did not start it."""

    #: True while it runs code of the application, which may wait for calls.
    runs_user_code = False

    def waiting(self) -> AbstractContextManager[None]:
        """Return what surrounds a wait of this thread for a call of this library."""
        return nullcontext()


def in_own_thread() -> bool:
    """Return True if the calling thread is one of the library's."""
    return isinstance(threading.current_thread(), OwnThread)


def may_wait_here() -> bool:
    """Return True if the calling thread may wait for a call of this library."""
    thread = threading.current_thread()
    return not isinstance(thread, OwnThread) or thread.runs_user_code


class _UserCode:
    """Surrounds code of the application, which a thread of this library runs."""

    def __enter__(self) -> None:
        self._set(True)

    def __exit__(self, *exc_info: object) -> None:
        self._set(False)

    def _set(self, runs: bool) -> None:
        thread = threading.current_thread()
        if isinstance(thread, OwnThread):
            thread.runs_user_code = runs


user_code = _UserCode()


def waiting() -> AbstractContextManager[None]:
    """Return what surrounds a wait for a call, so that a pool can let another thread work."""
    thread = threading.current_thread()
    return thread.waiting() if isinstance(thread, OwnThread) else _NOTHING


_NOTHING = nullcontext()
