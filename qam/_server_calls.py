"""The requests of a server, and what is sent because of them."""

import time
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

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
# So many digits take long to read; no number of ours has them.
_MAX_DIGITS = 20
# What a request keeps when it is published anew.
_PROPERTIES = ("correlation_id", "reply_to", "headers")


@dataclass(slots=True)
class Answer:
    """A reply: where to, and what."""

    routing_key: str
    body: bytes


def key_of(correlation_id: str, runs: int) -> str:
    """Return by what a request is recognized.

    An idempotent method that runs again is another request in this respect.
    """
    return f"{correlation_id}#{runs}" if runs > 1 else correlation_id


def run_of(key: str) -> tuple[str, int]:
    """Take a key apart: the correlation id, and how often its method has begun with this run."""
    correlation_id, mark, runs = key.rpartition("#")
    # The name of a client may have the mark in it, too; the number of a call follows then.
    is_run = mark and runs.isdecimal() and len(runs) < _MAX_DIGITS
    return (correlation_id, int(runs)) if is_run else (key, 1)


def next_run(key: str) -> str:
    """Return by what the same request is recognized when its method begins once more."""
    correlation_id, runs = run_of(key)
    return key_of(correlation_id, runs + 1)


class Call:
    """A request that was delivered to this server.

    :param delivery: how it came.
    :param connection_number: which connection delivered it: its delivery tag means nothing
        to others.
    :param arrived: when, on the monotonic clock; by default now.
    """

    # What is the same for nearly all requests stands here once; an instance gets its own
    # where it differs.

    #: Nothing else came with it.
    alone = False
    #: Seconds that its method ran; None if none did.
    seconds: float | None = None
    #: Its message is of no use, and the broker is to drop it.
    rejected = False
    #: The id that its caller gave it, once it is read.
    request_id: Any = None
    #: The broker has refused its reply.
    refused = False
    #: Another server may have run its method, and can't answer any more.
    lost = False
    #: It runs so long that the broker has taken its delivery away.
    outlives_its_delivery = False
    #: What its caller is answered; None if nothing is.
    answer: Answer | None = None
    #: The same request, where it came again while this one runs.
    copies: "tuple[Call, ...]" = ()
    #: How often its method will have begun with this time.
    runs = 1
    #: Another server had it, and did not start it.
    given_back = False

    def __init__(
        self, delivery: Delivery, connection_number: int, arrived: float | None = None
    ) -> None:
        self.delivery = delivery
        self.connection_number = connection_number
        self.arrived = time.monotonic() if arrived is None else arrived
        #: By what it is recognized when it comes again; None for a 0.2.x client.
        self.key = delivery.correlation_id
        #: Somebody may have received it before.
        self.marked = delivery.redelivered
        if "headers" in delivery.properties:
            self._read_headers()

    def _read_headers(self) -> None:
        self.marked = self.marked or self.delivery.resent
        self.given_back = self.delivery.given_back
        self.runs = self.delivery.runs
        if self.key is not None:
            self.key = key_of(self.key, self.runs)

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
        # Clients are few, and have many calls.
        self._reply_route = lru_cache(maxsize=1024)(partial(Route, self._reply_exchange))
        # By whether they are persistent: what all replies have in common.
        self._reply_properties = {each: properties(serializer, each) for each in (False, True)}
        self._request_route = request_binding(server_id).route

    def reply(self, call: Call, answer: Answer) -> Publish:
        """Return the reply to *call*, which is answered so."""
        call.answer = answer
        correlation_id = call.delivery.correlation_id
        # In kind: a client that keeps no request has no use for a reply that is kept.
        persistent = call.delivery.persistent
        # Returns are told apart by correlation id; 0.2.x clients know none.
        mandatory = persistent and correlation_id is not None
        return self._reply(correlation_id, answer, persistent, mandatory, call)

    def repeated_reply(self, key: str, answer: Answer) -> Publish:
        """Return the reply to a request that is known by its key only."""
        return self._reply(run_of(key)[0], answer, persistent=True, mandatory=False)

    def _reply(
        self,
        correlation_id: str | None,
        answer: Answer,
        persistent: bool,
        mandatory: bool,
        context: Call | None = None,
    ) -> Publish:
        message_properties = self._reply_properties[persistent].copy()
        if correlation_id is not None:
            message_properties["correlation_id"] = correlation_id
        route = self._reply_route(answer.routing_key)
        return Publish(route, answer.body, message_properties, mandatory, persistent, context)

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
