"""Several calls in one request: ``system.multicall``.  No I/O here.

Its params are the names of the methods, and for each its params and keyword arguments.  Its
result has the reply of each, encoded for itself: so each is checked, and fails, for itself.
"""

from collections.abc import Sequence
from typing import Any

from qam._broker.messages import Delivery
from qam._protocol.replies import decode_reply, outcome
from qam._protocol.requests import APPLY, MULTICALL, Request, apply_message
from qam._serialization.refusals import Receiver
from qam._serialization.serializers import Serializer
from qam.exceptions import QAMSerializationException

#: How many calls one request has, at most.
MAX_CALLS = 1000

#: A call that is not made yet: the name of its method, its params, and its keyword arguments.
Waiting = tuple[str, tuple[Any, ...], dict[str, Any]]


def multicall_params(calls: Sequence[Waiting]) -> tuple[list[str], list[Any]]:
    """Return the params of the request that makes *calls*."""
    return [name for name, _, _ in calls], [[params, kwargs] for _, params, kwargs in calls]


def calls_of(request: Request) -> list[Request]:
    """Return the calls in a ``system.multicall``.

    :raises QAMSerializationException: they have a wrong form, or there are too many.
    """
    match request.params:
        case [list() | tuple() as names, list() | tuple() as arguments] if (
            len(names) == len(arguments) <= MAX_CALLS
        ):
            each = zip(names, arguments, strict=True)
            return [_call(name, given, request.routing_key) for name, given in each]
    raise QAMSerializationException(
        f"{MULTICALL} needs a list of names and a list of arguments, {MAX_CALLS} at most"
    )


def _call(name: Any, arguments: Any, routing_key: str) -> Request:
    match name, arguments:
        case str(), [list() | tuple() as params, dict(kwargs)] if name not in (APPLY, MULTICALL):
            on_wire, sent = apply_message(name, params, kwargs)
            return Request(None, on_wire, routing_key, sent)
    raise QAMSerializationException(
        f"each call of {MULTICALL} needs the name of a method, a list and a dict"
    )


def pack_replies(bodies: list[bytes], serializer: Serializer) -> list[Any]:
    """Return the result of a ``system.multicall``: JSON has no bytes, but is text itself."""
    return [body.decode() if serializer.name == "json" else body for body in bodies]


def result_in(packed: Any, serializer: Serializer, receiver: Receiver) -> Any:
    """Return the result of one call in the result of a ``system.multicall``; raise its exception.

    :param receiver: the client.
    :raises QAMSerializationException: it can't be decoded.
    """
    body = packed.encode() if isinstance(packed, str) else packed
    if not isinstance(body, bytes):
        raise QAMSerializationException(
            f"a result of {MULTICALL} can't be decoded: it is no reply", executed="unknown"
        )
    properties = {"content_type": serializer.content_type}
    return outcome(decode_reply(serializer, Delivery(body, 0, properties=properties), receiver))
