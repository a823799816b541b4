"""Calls whose outcomes come as futures."""

import threading
from concurrent.futures import Future
from typing import Any

from qam._client.call_fates import no_time_left
from qam._client.call_options import CallOptions
from qam._client.client_threads import ClientThreads
from qam._client.pending_call import PendingCall
from qam.exceptions import QAMConnectionException


class CallFuture(Future[Any]):
    """The future of a call.  It can be cancelled as long as the request is not written.

    :param proxy: the proxy, which it keeps alive.
    :param threads: the threads of the proxy.
    :param call: its call; None if that could not be made.
    """

    def __init__(
        self, proxy: object, threads: ClientThreads, call: PendingCall | None = None
    ) -> None:
        super().__init__()
        self._proxy = proxy
        self._threads = threads
        self._call = call

    # A condition takes more memory than all the rest of a call, and most futures of many need
    # none before they end.  So it is made when it is used first.  To store a default in a dict
    # is a single step: all threads get the same one.

    @property
    def _condition(self) -> threading.Condition:
        made: threading.Condition | None = self.__dict__.get("condition")
        if made is None:
            condition = threading.Condition()
            made = self.__dict__.setdefault("condition", condition)
        return made

    @_condition.setter
    def _condition(self, made_by_init: threading.Condition) -> None:
        pass

    def cancel(self) -> bool:
        """Withdraw the call; return False if its request was written, or it has ended."""
        if self._withdraw() and super().cancel():
            self.set_running_or_notify_cancel()  # which wakes those that wait for it
        return self.cancelled()

    def _withdraw(self) -> bool:
        """Return whether this has ended the call, which will never be written."""
        call, results = self._call, self._threads.results
        if call is None or not results.is_open(call.call_id):
            return False
        return self._threads.publisher.withdraw(call) and results.take_back(call)

    def running(self) -> bool:
        """Return whether the request was written, and the call has not ended."""
        return self._call is not None and self._call.times_written > 0 and not self.done()


def submit(
    proxy: object,
    threads: ClientThreads,
    options: CallOptions,
    method_name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    routing_key: str,
) -> Future[Any]:
    """Make a call, and return its future; does not wait.

    :param proxy: the proxy that makes it.
    :param routing_key: of the reply.
    """
    deadline = options.deadline()
    if deadline.timeout == 0.0:
        failed = CallFuture(proxy, threads)
        failed.set_exception(no_time_left(method_name, deadline))
        return failed
    call = threads.publisher.make_call(method_name, args, kwargs, routing_key, deadline, options)
    future = CallFuture(proxy, threads, call)
    try:
        try:
            threads.results.reserve(future.set_result, future.set_exception, call)
            threads.begin_call(call)
        except QAMConnectionException as error:  # a proxy that connects late could not just now
            threads.abandon(call)
            future.set_exception(error)
        except BaseException:
            threads.abandon(call)
            raise
    except BaseException:
        threads.abandon(call)  # again: a signal may have interrupted it
        raise
    return future
