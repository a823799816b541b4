"""The requests of a server, and what is sent because of them."""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from qam._connection import Connection
from qam._serialization import Serializer
from qam._wire import (
    GIVEN_BACK,
    RESENT,
    RUNS,
    Delivery,
    Publish,
    Route,
    expiration,
    properties,
    reply_exchange,
    request_binding,
)

# Bytes of a body that show how it is encoded; the rest may be large.
_HEAD = 16
# What a request keeps when it is published anew.
_PROPERTIES = ("correlation_id", "reply_to", "headers")


class Answer(NamedTuple):
    """A reply that was sent: where to, and what."""

    routing_key: str
    body: bytes


@dataclass(slots=True, eq=False)
class Call:
    """A request that was delivered to this server."""

    delivery: Delivery
    #: Which connection delivered it, by number: its delivery tag means nothing to others.
    connection_number: int
    arrived: float = field(default_factory=time.monotonic)
    #: Seconds that its method ran; None if none did.
    seconds: float | None = None
    #: Its message is of no use, and the broker is to drop it.
    rejected: bool = False
    #: The id that its caller gave it, once it is read.
    request_id: Any = None
    #: The broker has refused its reply.
    refused: bool = False
    #: Another server may have run its method, and can't answer any more.
    lost: bool = False
    #: It runs so long that the broker has taken its delivery away.
    outlives_its_delivery: bool = False
    #: What was answered; None if nothing was.
    answer: Answer | None = None
    #: The same request, where it came again while this one runs.
    copies: "list[Call]" = field(default_factory=list)
    #: By what it is recognized when it comes again; None for a 0.2.x client.
    key: str | None = field(init=False)

    def __post_init__(self) -> None:
        # An idempotent method that runs again is another request in this respect.
        self.key, runs = self.delivery.correlation_id, self.delivery.runs
        if runs > 1 and self.key is not None:
            self.key = f"{self.key}#{runs}"

    @property
    def marked(self) -> bool:
        """Somebody may have received it before."""
        return self.delivery.redelivered or self.delivery.resent

    @property
    def like(self) -> bytes:
        """How its body begins: what a serializer needs to answer in the same way."""
        return self.delivery.body[:_HEAD]

    def time_left(self) -> float | None:
        """Seconds that its caller still waits, at most; None for no end.

        The broker counts the time that a message lies with it; we add the time that
        it lay with us.  Nobody's clock is compared with another's.
        """
        time_to_live = self.delivery.time_to_live
        if time_to_live is None:
            return None
        return time_to_live - (time.monotonic() - self.arrived)


class Messages:
    """Makes the messages of one server.

    :param server_id: the id of the server.
    :param serializer: how replies are encoded.
    """

    def __init__(self, server_id: str, serializer: Serializer) -> None:
        self._serializer = serializer
        self._reply_exchange = reply_exchange(server_id)
        self._request_route = request_binding(server_id).route

    def reply(self, call: Call, answer: Answer) -> Publish:
        """Return the reply to *call*."""
        correlation_id = call.delivery.correlation_id
        # Returns are told apart by correlation id; 0.2.x clients know none.
        return self._reply(correlation_id, answer, mandatory=correlation_id is not None, to=call)

    def repeated_reply(self, key: str, answer: Answer) -> Publish:
        """Return the reply to a request that is known by its key only."""
        return self._reply(key.partition("#")[0], answer, mandatory=False)

    def _reply(
        self, correlation_id: str | None, answer: Answer, mandatory: bool, to: Call | None = None
    ) -> Publish:
        # In kind: a client that keeps no request has no use for a reply that is kept.
        persistent = to is None or to.delivery.persistent
        return Publish(
            Route(self._reply_exchange, answer.routing_key),
            answer.body,
            properties(self._serializer, persistent, correlation_id=correlation_id),
            mandatory=mandatory and persistent,
            confirm=persistent,
            context=to,
        )

    def request_anew(self, call: Call, runs: int | None = None) -> Publish:
        """Return the request of *call* as a new message, for another server or another run.

        Not a requeue: that would mark it as delivered before.

        :param runs: how often its method will have begun with this one.
        """
        came_with = call.delivery.properties
        anew = {name: came_with[name] for name in _PROPERTIES if name in came_with}
        time_left = expiration(call.time_left())
        anew |= properties(self._serializer, call.delivery.persistent, expiration=time_left)
        if runs is None:
            anew["headers"] = {**_own_headers(call.delivery), GIVEN_BACK: True}
        else:
            anew["headers"] = {RUNS: runs}
        return Publish(self._request_route, call.delivery.body, anew, mandatory=False, context=call)

    def is_reply(self, message: Publish) -> bool:
        """Return True for a reply, False for anything else that a server sends."""
        return message.route.exchange == self._reply_exchange


def _own_headers(delivery: Delivery) -> dict[str, Any]:
    """Return those headers that peers set; others might not even be possible to send."""
    return {
        name: value
        for name in (RESENT, RUNS)
        if isinstance(value := delivery.headers.get(name), int)
    }


def declare_server(connection: Connection, server_id: str, arguments: dict[str, Any]) -> None:
    """Declare all that a server needs; what waits in its queue stays there."""
    binding = request_binding(server_id)
    connection.declare_exchange(binding.exchange)
    connection.declare_exchange(reply_exchange(server_id))
    connection.declare_queue(binding, arguments)
