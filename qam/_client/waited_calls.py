"""Calls whose callers wait for the result."""

from typing import Any

from qam._client.call_fates import no_time_left
from qam._client.call_options import CallOptions
from qam._client.client_threads import ClientThreads
from qam._client.pending_call import PendingCall
from qam._common.deadline import Deadline
from qam._common.own_locks import holds_own_lock
from qam._common.own_threads import may_wait_here, waiting
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
    if not may_wait_here() or threads.is_here or holds_own_lock():
        # The call might wait for its own thread.  A finalizer may run in any thread, in the
        # middle of any code.
        raise QAMException(
            f"{method_name}() can't wait for its result here: it was called in a thread of the "
            "library, or by a finalizer or signal handler inside another call; use a callback",
            executed="no",
        )
    deadline = options.own_deadline() if one_way else options.deadline()
    if deadline.timeout == 0.0:
        raise no_time_left(method_name, deadline)
    call = threads.publisher.make_call(
        method_name, args, kwargs, routing_key, deadline, options, one_way
    )
    try:
        try:
            message = _outcome_of(threads, call)
        except BaseException as error:
            _abandon(threads, call)
            threads.publisher.note_end(call, error)
            raise
    except BaseException:
        _abandon(threads, call)  # again: a signal may have interrupted it
        raise
    return threads.consumer.read_outcome(message, call)


def _outcome_of(threads: ClientThreads, call: PendingCall) -> Any:
    """Send a call, wait for its outcome, and return that."""
    results = threads.results
    results.reserve(call=call)
    results.begin(call)  # from here on a reply, a thread of the proxy or a close ends it
    threads.publisher.send(call, waits=not call.one_way)
    if not _wait(threads, call):
        raise threads.publisher.give_up(call)
    return results.end(call)


def _wait(threads: ClientThreads, call: PendingCall) -> bool:
    """Wait for the outcome of a call; return False if it did not come until its deadline."""
    soon, results = Deadline(_SOON), threads.results
    with waiting():
        if soon.at < call.deadline.at and results.wait(call.slot_id, soon):
            return True
        threads.publisher.look_again()  # the broker may have returned or refused it
        return results.wait(call.slot_id, call.deadline)


def _abandon(threads: ClientThreads, call: PendingCall) -> None:
    """Leave nothing of a call that failed; to do that again does nothing."""
    threads.publisher.abandon(call)
    threads.results.end(call)
