"""The threads of a server that run its methods; starts another one when it is needed."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from qam._common.deadline import Deadline
from qam._common.job_queue import JobQueue
from qam._common.logs import get_logger
from qam._common.own_locks import own_lock
from qam._common.rare_warnings import RareWarnings
from qam._server.call import Call
from qam._server.execute_method_thread import ExecuteMethodThread
from qam._server.mailboxes import SettledCalls
from qam._server.messages import Messages
from qam._server.method_registry import MethodRegistry
from qam._server.publisher_thread import ReplyPublisherThread
from qam._server.settings import ServerSettings

log = get_logger("qam.qam_server")

# Seconds for idle workers to end; the others run a method whose reply can't be sent any more.
_GRACE = 1.0
# How many warnings about wrong requests are logged in a minute; peers may send any number.
_MAX_WARNINGS = 20


class WorkerPool:
    """Hands requests to idle workers, and starts another one where there is none.

    :param settings: the settings of the server.
    :param calls: the requests that wait for a worker.
    :param methods: the registered methods.
    :param messages: makes the replies.
    :param publisher: sends the replies.
    :param settled: takes the calls that need no reply.
    """

    def __init__(
        self,
        settings: ServerSettings,
        calls: JobQueue[Call],
        methods: MethodRegistry,
        messages: Messages,
        publisher: ReplyPublisherThread,
        settled: SettledCalls,
    ) -> None:
        self._settings = settings
        self._calls = calls
        self._methods = methods
        self._messages = messages
        self._publisher = publisher
        self._settled = settled
        # Guards how many workers there are, and how many of them wait in calls of their own.
        # Reentrant, because a finalizer may make a call inside.
        self._lock = own_lock()
        self._workers: list[ExecuteMethodThread] = []
        self._waiting = 0
        # How many workers there may be now.
        self._limit = settings.max_workers
        #: How many requests the broker delivers at once.
        self.prefetch = 0
        self._warnings = RareWarnings(log, at_most=_MAX_WARNINGS)

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[ExecuteMethodThread]:
        return iter(self._workers)

    @property
    def running(self) -> int:
        """How many workers are at work on a call; a moment's view."""
        alive = sum(worker.is_alive() for worker in tuple(self._workers))
        return max(0, alive - self._calls.idle_threads)

    def put(self, calls: Sequence[Call]) -> None:
        """Give *calls* to workers; called by the thread that receives the requests."""
        has_workers = self._calls.put_all(calls)
        for _ in calls:
            if has_workers or len(self._workers) >= self._limit:
                return
            self._try_to_start_worker()
            has_workers = self._calls.waiting_since() is None

    def _try_to_start_worker(self) -> None:
        with self._lock:
            if len(self._workers) >= self._limit:
                return
            worker = self._add_worker()
        try:
            self._start(worker)
        except RuntimeError:  # out of threads: the workers that run go on
            if threading.main_thread().is_alive():  # else it is usual: the interpreter ends
                log.exception("a request has to wait: no other worker can be started")

    @property
    def nested(self) -> int:
        """How many workers wait in calls of their own, and do not count."""
        return self._limit - self._settings.max_workers

    @contextmanager
    def one_waits(self) -> Iterator[None]:
        """Let another worker run while one waits in a call of its own."""
        self._count_waiting(1)
        try:
            if self._calls.waiting_since() is not None:
                self._try_to_start_worker()
            elif self._has_all_that_come:
                # Perhaps this server has to answer such a call: let another request come.
                self._settled.waker.wake()
            yield
        finally:
            self._count_waiting(-1)

    @property
    def _has_all_that_come(self) -> bool:
        """True if so many requests are at work that the broker delivers no more."""
        at_work = len(self._workers) - self._calls.idle_threads
        return at_work >= min(self.prefetch, self._settings.max_workers)

    def _count_waiting(self, more: int) -> None:
        with self._lock:
            self._waiting += more
            nested = min(self._waiting, self._settings.max_nested)
            self._limit = self._settings.max_workers + nested

    def dismisses(self, worker: ExecuteMethodThread) -> bool:
        """Return True if *worker* is to end.

        It has let another one run, which still does; or enough others have nothing to do.
        """
        if not self._has_too_many:
            return False
        with self._lock:
            if not self._has_too_many:
                return False
            self._workers.remove(worker)
        return True

    @property
    def _has_too_many(self) -> bool:
        most_idle = self._settings.max_idle_workers
        too_many_idle = most_idle is not None and self._calls.idle_threads >= most_idle
        return too_many_idle or len(self._workers) > self._limit

    def waiting_since(self) -> float | None:
        """Return when the oldest request came for which there is no worker; None if none waits."""
        return self._calls.waiting_since()

    @property
    def has_room(self) -> bool:
        """True if another request could begin at once."""
        return not len(self._calls) and self.running < self._limit

    def take_back(self) -> list[Call]:
        """Take out the calls that no worker has begun."""
        return self._calls.take_all()

    def start_worker(self) -> None:
        """Start one more worker.

        :raises RuntimeError: no thread can be started.
        """
        self._start(self._add_worker())

    def _add_worker(self) -> ExecuteMethodThread:
        worker = ExecuteMethodThread(
            self._settings,
            self._calls,
            self._methods,
            self._messages,
            self._publisher,
            self._settled,
            self._warnings,
            self,
        )
        self._workers.append(worker)  # before its start: its method may close the server at once
        return worker

    def _start(self, worker: ExecuteMethodThread) -> None:
        try:
            worker.start()
        except RuntimeError:
            self._workers.remove(worker)
            raise

    @property
    def run_here(self) -> bool:
        """True if the calling thread runs methods of the server."""
        here = threading.current_thread() in self._workers
        return here or self._methods.coroutines.is_here

    def cancel(self) -> None:
        """Cancel the methods that are coroutines: nobody waits for them any more."""
        self._methods.coroutines.close()

    def close(self) -> None:
        """Let the workers end when no call waits any more."""
        self._calls.close()

    def join(self) -> None:
        """Wait for the end of the idle workers and of the event loop, one second at most."""
        deadline = Deadline(_GRACE)
        self.cancel()  # first, or a worker that waits for a coroutine would use up the time
        for worker in tuple(self._workers):
            if worker.ident is not None:  # else Ctrl-C came before it was started
                worker.join(deadline.wait_time())
        self._methods.coroutines.join(deadline)
