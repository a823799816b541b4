"""The messages that a server sends."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from qam._broker.connection import Connection
from qam._broker.messages import Delivery, Publish, Route
from qam._common.checks import is_count
from qam._protocol.correlation import CallKey
from qam._protocol.entities import reply_exchange, request_binding
from qam._protocol.properties import GIVEN_BACK, RESENT, RUNS, expiration, properties
from qam._protocol.replies import REQUEST_UNREADABLE, SERVER_LOST, internal_reply
from qam._serialization.serializers import Serializer
from qam._server.call import Answer, Call, is_resent, not_run, runs_of


@dataclass(slots=True)
class Undelivered:
    """What is still needed of a request that is settled, but its reply may have to be sent again.

    The request itself is freed.
    """

    request_id: Any
    #: How its body begins.
    like: bytes
    #: The broker has refused the reply.
    refused: bool
    #: Since when nobody takes the reply, and how often it was sent.
    since: float
    tries: int = 0


@dataclass(slots=True, eq=False)
class Message(Publish):
    """What a server sends: a reply, a request that is published anew, a word to its siblings."""

    is_reply: bool = False
    #: The request that is settled when the broker has this; None if it is settled, or is none.
    call: Call | None = None
    #: Set for the reply to a request that is settled.
    undelivered: Undelivered | None = None


# What a request keeps when it is published anew.
_PROPERTIES = ("correlation_id", "reply_to", "headers")


class Messages:
    """Makes the messages of one server.

    :param server_id: the id of the server.
    :param serializer: how replies are encoded.
    """

    def __init__(self, server_id: str, serializer: Serializer) -> None:
        self._serializer = serializer
        self._reply_exchange = reply_exchange(server_id)
        # Clients are few, and have many calls.
        self._reply_route = lru_cache(maxsize=1024)(partial(Route, self._reply_exchange))
        # By whether they are persistent: what all replies have in common.
        self._reply_properties = {each: properties(serializer, each) for each in (False, True)}
        self._request_route = request_binding(server_id).route

    def reply(self, call: Call, answer: Answer) -> Message:
        """Return the reply to *call*, which is answered so."""
        correlation_id = call.delivery.correlation_id
        # In kind: a client that keeps no request has no use for a reply that is kept.
        persistent = call.delivery.persistent
        # Returns are told apart by correlation id; 0.2.x clients know none.
        mandatory = persistent and correlation_id is not None
        return self._reply(correlation_id, answer, persistent, mandatory, call)

    def refusal(self, call: Call, why: str) -> Message | None:
        """Return the reply that says why a request can't be taken; None for who can't be told."""
        return self._failure(call, not_run(call, REQUEST_UNREADABLE), why)

    def loss(self, call: Call, why: str) -> Message | None:
        """Return the reply that says why nobody will answer *call*; None for who can't be told."""
        return self._failure(call, SERVER_LOST, why)

    def _failure(self, call: Call, code: int, why: str) -> Message | None:
        routing_key = call.delivery.reply_to
        if routing_key is None or call.is_anonymous:
            return None  # a 0.2.x client, or none at all
        reply = internal_reply(call.request_id, code, why)
        body = self._serializer.encode(reply, call.delivery.body)
        call.answer = Answer(routing_key, body)
        return self.reply(call, call.answer)

    def repeated_reply(self, key: CallKey, answer: Answer) -> Message:
        """Return the reply to a request that is known by its key only."""
        return self._reply(key.correlation_id, answer, persistent=True, mandatory=False)

    def _reply(
        self,
        correlation_id: str | None,
        answer: Answer,
        persistent: bool,
        mandatory: bool,
        call: Call | None = None,
    ) -> Message:
        message_properties = self._reply_properties[persistent].copy()
        if correlation_id is not None:
            message_properties["correlation_id"] = correlation_id
        route = self._reply_route(answer.routing_key)
        return Message(
            route,
            answer.body,
            message_properties,
            mandatory,
            confirm=persistent,
            is_reply=True,
            call=call,
        )

    def request_anew(self, call: Call, now: float, runs: int | None = None) -> Message:
        """Return the request of *call* as a new message, for another server or another run.

        Not a requeue: that would mark it as delivered before.

        :param now: the time on the clock of the server.
        :param runs: how often its method will have begun with this one.
        """
        came_with = call.delivery.properties
        anew = {name: came_with[name] for name in _PROPERTIES if name in came_with}
        time_left = expiration(call.time_left(now))
        anew |= properties(self._serializer, call.delivery.persistent, expiration=time_left)
        if runs is None:
            anew["headers"] = {**_own_headers(call.delivery), GIVEN_BACK: True}
        else:
            anew["headers"] = {RUNS: runs}
        return Message(self._request_route, call.delivery.body, anew, mandatory=False, call=call)


def _own_headers(delivery: Delivery) -> dict[str, Any]:
    """Return those headers that peers set; others might not even be possible to send."""
    headers: dict[str, Any] = {}
    if is_resent(delivery):
        age = delivery.headers[RESENT]
        headers[RESENT] = age if is_count(age) else 0
    if RUNS in delivery.headers:
        headers[RUNS] = runs_of(delivery)
    return headers


def declare_server(connection: Connection, server_id: str, arguments: dict[str, Any]) -> None:
    """Declare all that a server needs; what waits in its queue stays there."""
    binding = request_binding(server_id)
    connection.declare_exchange(binding.exchange)
    connection.declare_exchange(reply_exchange(server_id))
    connection.declare_queue(binding, arguments)
