"""Calls whose callers wait for the result."""

from logging import DEBUG
from typing import Any

from qam._client.call_fates import no_time_left
from qam._client.call_options import CallOptions
from qam._client.client_threads import ClientThreads
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import log
from qam._client.result_list import ResultList
from qam._common.deadline import Deadline
from qam._common.own_threads import waiting
from qam.exceptions import QAMException

#: Seconds without a result after which the publisher is told to look for the call's confirm.
_SOON = 0.02


def call_and_wait(
    threads: ClientThreads,
    options: CallOptions,
    method_name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    routing_key: str,
    one_way: bool = False,
) -> Any:
    """Call a remote method, and wait for its result.

    :param routing_key: of the reply.
    :param one_way: True to wait only until the broker has the request.
    """
    publisher, consumer, results = threads.publisher, threads.consumer, threads.results
    if threads.is_here:
        # The call would wait for its own thread.  A finalizer may run in any thread, in the
        # middle of any code.
        raise QAMException(
            f"{method_name}() can't wait for its result here: it was called in a thread of the "
            "proxy, or by a finalizer or signal handler inside another call; use a callback",
            executed="no",
        )
    deadline = options.own_deadline() if one_way else options.deadline()
    if deadline.timeout == 0.0:
        raise no_time_left(method_name, deadline)
    id = results.reserve()
    call: PendingCall | None = None
    sent: PendingCall | None = None
    try:
        call = publisher.begin_call(
            id, method_name, args, kwargs, routing_key, deadline, options, one_way
        )
        sent = publisher.send(call, waits=not one_way)
        if not _wait(results, publisher, id, deadline):
            raise publisher.give_up(call)
    except BaseException as error:
        publisher.look_again()
        if sent is not None:  # as after Ctrl-C: nobody waits for the call any more
            publisher.withdraw(sent)
        consumer.free_result_item(id)
        if call is not None and log.isEnabledFor(DEBUG):
            publisher.stations.ended(call, f"by a {type(error).__name__}")
        raise
    # This also frees the slot.  To free it twice might take it from another call.
    return consumer.get_result(id)


def _wait(results: ResultList, publisher: Any, id: int, deadline: Deadline) -> bool:
    """Wait for the outcome of a call; return False if it did not come until *deadline*."""
    soon = Deadline(_SOON)
    with waiting():
        if soon.at < deadline.at and results.wait(id, soon):
            return True
        publisher.look_again()  # the broker may have returned or refused it
        return results.wait(id, deadline)
