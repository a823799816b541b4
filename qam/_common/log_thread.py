"""The thread that runs the application's log filters and handlers for the library's threads.

A filter that raises must not end a thread that owns a connection, and a handler that blocks must
not stop its heartbeats.  So the library's threads only queue their records.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic

from qam._common.deadline import Deadline
from qam._common.fork import disown_in_child
from qam._common.own_locks import own_lock

#: Records that may wait; further ones are counted, and dropped.
_MAX_WAITING = 1000
#: Seconds that the thread waits for another record before it ends.
_IDLE_TIME = 5.0
#: Seconds until another try, where the thread could not be started.
_RESTART_DELAY = 1.0

Job = Callable[[], object]
#: Queued by a flush: gets the thread that has handled all records before it, and ends with it.
Flushed = Future[threading.Thread]


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
        self._jobs: SimpleQueue[Job | Flushed] = SimpleQueue()
        # True while a thread handles the records, or is being started for that.
        self._runs = False
        # The last thread that began to handle records; it may have ended.
        self._thread: threading.Thread | None = None
        # Guards the start of the thread.  It is never waited for.  Reentrant, so that only the
        # thread that has taken it can release it.
        self._starting = own_lock()
        self._failed_at = -inf
        # How many records were dropped, and how many of those were reported.
        self._drops = count(1)
        self._dropped = self._reported = 0

    _in_forked_child = _begin_anew

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

        The thread that has handled them has ended then.  Where no thread can be started now,
        nothing is waited for.
        """
        if self.is_here:
            return
        deadline = Deadline(timeout)
        with suppress(TimeoutError):
            thread = self._last_thread(deadline)
            if thread is not None:
                thread.join(deadline.wait_time())

    def _last_thread(self, deadline: Deadline) -> threading.Thread | None:
        """Wait until the records queued so far are handled; return the thread that ends now.

        :raises TimeoutError: the time is up.
        """
        # In this order, for the thread takes the last record out first, and handles it then.
        if self._jobs.empty() and not self._runs:
            return self._thread
        flushed: Flushed = Future()
        self._jobs.put(flushed)
        self._start()
        if not self._runs and not self._may_try():
            return None
        return flushed.result(deadline.wait_time())

    def _start(self) -> None:
        """Start the thread, if there is something to do and nobody does it.

        Whoever can't take the lock leaves that to its holder, which looks again after that: the
        thread that it has started may have ended by then.
        """
        while self._is_wanted():
            try:
                # Acquired inside the try, because Ctrl-C may strike right after it.
                if not self._starting.acquire(blocking=False):
                    return
                if not self._runs:
                    self._start_thread()
            finally:
                try:  # no suppress(): Ctrl-C could strike in that call  # noqa: SIM105
                    self._starting.release()
                except RuntimeError:  # another thread holds it
                    pass

    def _is_wanted(self) -> bool:
        # The lock is held here if a finalizer logs in the middle of _start().
        is_starting = self._starting._is_owned()
        return not (self._runs or self._jobs.empty() or is_starting) and self._may_try()

    def _may_try(self) -> bool:
        return monotonic() - self._failed_at >= _RESTART_DELAY

    def _start_thread(self) -> None:
        # Taken once: by the new thread, which then handles records, or by this one if the start
        # failed or was interrupted: then the new one, should it begin nevertheless, does nothing.
        turn = threading.Lock()
        try:
            self._runs = True
            threading.Thread(
                target=self._run, args=(turn,), name="qam log thread", daemon=True
            ).start()
        except BaseException as error:
            if turn.acquire(blocking=False):
                self._runs = False
            if not isinstance(error, RuntimeError | MemoryError):
                raise
            # There are no more threads now; a later record tries again.
            self._failed_at = monotonic()

    def _run(self, turn: threading.Lock) -> None:
        if not turn.acquire(blocking=False):
            return
        before, self._thread = self._thread, threading.current_thread()
        try:
            if before is not None:
                before.join()  # so that whoever waits for the end of this one waits for both
            self._handle_jobs()
        finally:
            self._runs = False
            # Whoever queued something before that has seen a thread, and started none.
            self._start()

    def _handle_jobs(self) -> None:
        """Handle records until there are none for some time, or a flush waits for the end."""
        while (job := self._next_job()) is not None:
            if isinstance(job, Future):
                job.set_result(threading.current_thread())
                return
            try:
                job()
                self._report_drops()
            except BaseException:
                _show_error()
            del job

    def _next_job(self) -> Job | Flushed | None:
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
        with suppress(BaseException):  # standard error may be closed, or of the application's own
            print("--- a log filter or handler raised, in a record of qam ---", file=sys.stderr)
            traceback.print_exc()


log_thread = LogThread()
