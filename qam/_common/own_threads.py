"""Tells the threads of this library from those of the application."""

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import wraps
from typing import Any

from qam._common.deadline import Deadline, sooner

#: Seconds after which a wait looks again whether the thread has ended.
_LONGEST_WAIT = 1.0

Run = Callable[[Any], None]


def _telling_its_end(run: Run) -> Run:
    @wraps(run)
    def run_and_tell(thread: "OwnThread") -> None:
        try:
            run(thread)
        finally:
            thread._is_over = True
            with suppress(RuntimeError):  # it was called without a start
                thread._works.release()

    return run_and_tell


class OwnThread(threading.Thread):
    """A thread of this library: it does work for the application, which did not start it."""

    #: True while it runs code of the application, which may wait for calls.
    runs_user_code = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_over = False
        # Held until all work is done.  A lock, since what a signal handler raises inside an Event
        # would leave that locked.
        self._works = threading.Lock()
        self._works.acquire()
        self._process = os.getpid()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "run" in vars(cls):
            cls.run = _telling_its_end(cls.run)  # type: ignore[method-assign]

    @_telling_its_end
    def run(self) -> None:
        """Do all the work; called by ``start``.  That of a subclass tells its end, too."""
        super().run()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread, *timeout* seconds at most.

        If a signal handler raises meanwhile, the next join waits again.  That of CPython 3.11 and
        3.12 does not: it takes the thread for ended then.
        """
        deadline = Deadline(timeout)
        is_here = self._process == os.getpid()  # a forked child has it not
        if is_here and self.ident is not None and self is not threading.current_thread():
            self._wait_until_over(deadline)
        super().join(deadline.wait_time())

    def _wait_until_over(self, deadline: Deadline) -> None:
        # A signal may end this between the two steps on the lock, which then stays locked: so the
        # flag tells the end, and no wait of another thread is long.
        while not (self._is_over or deadline.expired):
            if self._works.acquire(timeout=sooner(deadline.wait_time(), _LONGEST_WAIT) or 0.0):
                self._works.release()

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


def waiting() -> AbstractContextManager[None]:
    """Return what surrounds a wait for a call, so that a pool can let another thread work."""
    thread = threading.current_thread()
    return thread.waiting() if isinstance(thread, OwnThread) else _NOTHING


_NOTHING = nullcontext()
