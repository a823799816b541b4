"""The thread that runs the application's log filters and handlers for the library's threads.

A filter that raises must not end a thread that owns a connection, and a handler that blocks must
not stop its heartbeats.  So the library's threads only queue their records.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic

from qam._common.fork import disown_in_child

#: Records that may wait; further ones are counted, and dropped.
_MAX_WAITING = 1000
#: Seconds that the thread waits for another record before it ends.
_IDLE_TIME = 5.0
#: Seconds until another try, where the thread could not be started.
_RESTART_DELAY = 1.0

Job = Callable[[], object]


class LogThread:
    """Handles log records in a thread of its own, in the order in which they were queued.

    The thread is a daemon.  It starts with a record, and ends when there are no more for some
    time.  Any thread may call the methods, also a finalizer or a signal handler in the middle of
    one of them.
    """

    def __init__(self) -> None:
        self._begin_anew()
        disown_in_child(self)

    def _begin_anew(self) -> None:
        # Reentrant by itself: a finalizer may log while a record is being queued.
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Guards the start of the thread.  It is never waited for.
        self._starting = threading.Lock()
        self._failed_at = -inf
        # How many records were dropped, and how many of those were reported.
        self._drops = count(1)
        self._dropped = self._reported = 0

    _after_fork = _begin_anew

    @property
    def is_here(self) -> bool:
        """True if the calling thread is the one that handles the records."""
        return threading.current_thread() is self._thread

    def put(self, handle_record: Job) -> None:
        """Queue the handling of a record; never waits, and runs no code of the application."""
        if self._jobs.qsize() >= _MAX_WAITING:
            self._dropped = next(self._drops)
            return
        self._jobs.put(handle_record)
        self._start()

    def flush(self, timeout: float) -> None:
        """Wait until the records queued so far are handled, *timeout* seconds at most.

        The thread has ended then.
        """
        self._start()
        thread = self._thread
        if thread is not None and not self.is_here:
            self._jobs.put(None)
            with suppress(RuntimeError):  # it is being started at this moment
                thread.join(timeout)

    def _start(self) -> None:
        """Start the thread, if there is something to do and nobody does it.

        Whoever can't take the lock leaves that to its holder, which looks again after that: the
        thread that it has started may have ended by then.
        """
        while self._is_wanted() and self._starting.acquire(blocking=False):
            try:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="qam log thread", daemon=True
                    )
                    self._thread.start()
            except RuntimeError:
                # There are no more threads now; a later record tries again.
                self._thread, self._failed_at = None, monotonic()
            finally:
                self._starting.release()

    def _is_wanted(self) -> bool:
        may_try = monotonic() - self._failed_at >= _RESTART_DELAY
        return self._thread is None and not self._jobs.empty() and may_try

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            try:
                job()
                self._report_drops()
            except BaseException:
                _show_error()
            del job
        self._thread = None
        # Whoever queued something before that has seen a thread, and started none.
        self._start()

    def _next_job(self) -> Job | None:
        try:
            return self._jobs.get(timeout=_IDLE_TIME)
        except Empty:
            return None

    def _report_drops(self) -> None:
        dropped = self._dropped
        if dropped > self._reported and self._jobs.qsize() < _MAX_WAITING // 2:
            number, self._reported = dropped - self._reported, dropped
            logging.getLogger("qam").warning(
                "%d log records of qam were dropped: a log handler was slow or blocked", number
            )


def _show_error() -> None:
    """Print the error of a log filter or handler, as ``logging`` does."""
    if logging.raiseExceptions:
        with suppress(Exception):  # standard error may be closed, or of the application's own
            print("--- a log filter or handler raised, in a record of qam ---", file=sys.stderr)
            traceback.print_exc()


log_thread = LogThread()
