"""The threads of a server that run its methods, and when another one is started."""

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

# Seconds for workers whose replies are sent to end; those that still run were given up.
_GRACE = 1.0
# How often a minute it is told what is wrong with a request: others send as many as they like.
_MAX_WARNINGS = 20


class WorkerPool:
    """Hands requests to idle workers, and starts another one where there is none.

    :param settings: of the server.
    :param calls: where the requests wait for a worker.
    :param methods: what can be called.
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
        """How many threads are at work on a call; a moment's view."""
        alive = sum(worker.is_alive() for worker in tuple(self._workers))
        return max(0, alive - self._calls.idle_threads)

    def put(self, call: Call) -> None:
        """Give a call to a worker; by the thread that receives the requests."""
        idle = self._calls.put(call)
        if not idle and len(self._workers) < self._settings.max_workers:
            try:
                self.start_worker()
            except RuntimeError:  # there are no more threads; those that there are go on
                if threading.main_thread().is_alive():  # at the interpreter's end it is usual
                    log.exception("a request has to wait")

    def take_back(self) -> list[Call]:
        """Take out the calls that no worker has begun with."""
        return self._calls.take_all()

    def start_worker(self) -> None:
        """Start one more.

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
        """Let the workers end when the calls are done."""
        self._calls.close()

    def join(self) -> None:
        """Wait for those whose replies are sent to end, a second at most."""
        deadline = Deadline(_GRACE)
        for worker in self._workers:
            worker.join(deadline.wait_time())
