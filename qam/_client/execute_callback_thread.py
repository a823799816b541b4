"""The threads that execute callbacks."""

import weakref
from collections.abc import Callable
from typing import Any, Protocol

from qam._client.callback_items import PROCESSING
from qam._client.consumer_thread import ConsumerThread
from qam._client.publisher_thread import PublisherThread, log
from qam._common.own_threads import OwnThread

#: A callback that is ready: the function, its argument, and the uid of the callback.
CallbackJob = tuple[Callable[[Any], Any], Any, str]


class ExecuteCallbackThread(OwnThread):
    """Executes a callback, and then other ready ones, until there are none.

    :param parent: the :class:`QAMProxy` whose callback it is.
    :param method: the function to execute.
    :param params: the one argument of the function.
    :param uid: the callback's uid; its state is 1 during the call and 2 afterwards.
    :param observer: the thread that started it; by default that of *parent*.
    """

    def __init__(
        self,
        parent: "Parent",
        method: Callable[[Any], Any],
        params: Any,
        uid: str,
        *,
        observer: "Observer | None" = None,
    ) -> None:
        # A daemon: a callback that never returns must not hold up the interpreter's end.
        super().__init__(name=f"qam ExecuteCallbackThread {parent.client_id}", daemon=True)
        self._parent = weakref.ref(parent)
        self._observer = observer or parent.callback_observer_thread
        self.method = method
        self.params = params
        self.uid = uid

    @property
    def parent(self) -> "Parent | None":
        """The proxy whose callbacks this thread executes; None once the proxy is gone."""
        return self._parent()

    def run(self) -> None:
        """Execute the method, then other ready callbacks; called by ``start``."""
        job: CallbackJob | None = (self.method, self.params, self.uid)
        while job is not None:
            self.method, self.params, self.uid = job
            self.execute(job)
            job = self.params = None  # an idle thread keeps no result alive
            job = self._observer.next_job(self)

    def execute(self, job: CallbackJob) -> None:
        """Execute *job*, and mark its callback as finished even if it raises."""
        method, params, uid = job
        self._observer.change_callback_item_state(uid, PROCESSING)
        try:
            self.runs_user_code = True
            method(params)
        except BaseException:
            log.exception("a callback raised an exception")
        finally:
            self.runs_user_code = False
            self._observer.finish(uid)


class Observer(Protocol):
    """Gives callbacks to an ExecuteCallbackThread, and keeps their states."""

    def next_job(self, thread: ExecuteCallbackThread) -> CallbackJob | None:
        """Wait for another callback to execute; None if *thread* is to end."""

    def change_callback_item_state(self, uid: str, state: int) -> None:
        """Set the state of *uid*."""

    def finish(self, uid: str) -> None:
        """Set *uid* to the state 2 (finished), and forget it."""


class Parent(Protocol):
    """The part of a QAMProxy that the threads of its callbacks use."""

    client_id: str

    @property
    def consumer_thread(self) -> ConsumerThread:
        """Receives the results."""

    @property
    def publisher_thread(self) -> PublisherThread:
        """Sends the calls."""

    @property
    def callback_observer_thread(self) -> Observer:
        """Watches over the callbacks."""
