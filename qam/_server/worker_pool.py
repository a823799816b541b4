"""The threads of a server that run its methods; starts another one when it is needed."""

import threading
from collections.abc import Iterator

from qam._common.deadline import Deadline
from qam._common.job_queue import JobQueue
from qam._common.logs import get_logger
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
        self._workers: list[ExecuteMethodThread] = []
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

    def put(self, call: Call) -> None:
        """Give a call to a worker; called by the thread that receives the requests."""
        idle = self._calls.put(call)
        if not idle and len(self._workers) < self._settings.max_workers:
            try:
                self.start_worker()
            except RuntimeError:  # out of threads: the workers that run go on
                if threading.main_thread().is_alive():  # else it is usual: the interpreter ends
                    log.exception("a request has to wait: no other worker can be started")

    def take_back(self) -> list[Call]:
        """Take out the calls that no worker has begun."""
        return self._calls.take_all()

    def start_worker(self) -> None:
        """Start one more worker.

        :raises RuntimeError: no thread can be started.
        """
        worker = ExecuteMethodThread(
            self._settings,
            self._calls,
            self._methods,
            self._messages,
            self._publisher,
            self._settled,
            self._warnings,
        )
        self._workers.append(worker)  # first: its method may close the server at once
        try:
            worker.start()
        except RuntimeError:
            self._workers.remove(worker)
            raise

    def close(self) -> None:
        """Let the workers end when no call waits any more."""
        self._calls.close()

    def join(self) -> None:
        """Wait for the end of the idle workers, one second at most."""
        deadline = Deadline(_GRACE)
        for worker in self._workers:
            if worker.ident is not None:  # else Ctrl-C came before it was started
                worker.join(deadline.wait_time())
