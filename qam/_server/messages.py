"""The messages that a server sends."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from qam._broker.connection import Connection
from qam._broker.messages import Delivery, Publish, Route
from qam._common.checks import is_count
from qam._protocol.correlation import CallKey
from qam._protocol.entities import reply_exchange, request_binding
from qam._protocol.metadata import metadata_of
from qam._protocol.properties import GIVEN_BACK, ONE_WAY, RESENT, RUNS, expiration, properties
from qam._protocol.replies import REQUEST_UNREADABLE, SERVER_LOST, internal_reply
from qam._protocol.users import carry_user, user_of
from qam._serialization.serializers import Serializer
from qam._server.call import Answer, Call, code_if_not_run, is_resent, runs_of


@dataclass(slots=True)
class Undelivered:
    """The part of a settled request that is kept to send its reply again."""

    request_id: Any
    #: The broker has refused the reply.
    refused: bool
    #: Since when no queue takes the reply, and how often it was sent again.
    since: float
    tries: int = 0


@dataclass(slots=True, eq=False)
class Message(Publish):
    """A message of a server: a reply, a request published anew, or a word to its siblings."""

    is_reply: bool = False
    #: The call that is settled when this is confirmed; None if it is settled, or there is none.
    call: Call | None = None
    #: Set if this is a reply whose request is settled.
    undelivered: Undelivered | None = None
    #: If this is a hello to the siblings, the number of the connection that it announces.
    hello: int = 0


# The properties that a request keeps when it is published anew.
_PROPERTIES = ("correlation_id", "reply_to", "headers")


class Messages:
    """Makes the messages of one server.

    :param server_id: the id of the server.
    :param serializer: how replies are encoded.
    :param user: as whom the server is connected; None if that depends on the host.
    """

    def __init__(self, server_id: str, serializer: Serializer, user: str | None = None) -> None:
        self._serializer = serializer
        self._user = user
        self._reply_exchange = reply_exchange(server_id)
        # Few clients make many calls, so their routes are cached.
        self._reply_route = lru_cache(maxsize=1024)(partial(Route, self._reply_exchange))
        # The properties that all replies share, by whether they are persistent.
        self._reply_properties = {each: properties(serializer, each) for each in (False, True)}
        self._request_route = request_binding(server_id).route

    def reply(self, call: Call, answer: Answer) -> Message:
        """Return the reply to *call* with *answer*."""
        correlation_id = call.correlation_id
        # As the request: a client with transient requests has no use for persistent replies.
        persistent = call.delivery.persistent
        # A return is assigned by its correlation id, which 0.2.x clients do not send.
        mandatory = persistent and correlation_id is not None and not call.one_way
        return self._reply(correlation_id, answer, persistent, mandatory, call)

    def refusal(self, call: Call, why: str) -> Message | None:
        """Return the reply that says why a request was rejected; None if there can be none."""
        return self._failure(call, code_if_not_run(call, REQUEST_UNREADABLE), why)

    def loss(self, call: Call, why: str) -> Message | None:
        """Return the reply that says why *call* is lost; None if there can be none."""
        return self._failure(call, SERVER_LOST, why)

    def _failure(self, call: Call, code: int, why: str) -> Message | None:
        routing_key = call.delivery.reply_to
        if routing_key is None or call.is_anonymous:
            return None  # a 0.2.x client, or no client of ours
        reply = internal_reply(call.request_id, code, why)
        body = self._serializer.encode(reply, call.delivery.body)
        call.answer = Answer(routing_key, body)
        return self.reply(call, call.answer)

    def repeated_reply(self, key: CallKey, answer: Answer) -> Message:
        """Return the reply to a request of which only the key is known."""
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
        # By position, which is faster: there is one for each call.
        return Message(
            *(route, answer.body, message_properties, mandatory, persistent, None, True, call)
        )

    def request_anew(self, call: Call, now: float, runs: int | None = None) -> Message:
        """Return the request of *call* as a new message, for another server or another run.

        It is not requeued, because the broker would mark it as redelivered.

        :param now: the time on the clock of the server.
        :param runs: how often its method will have begun, the next run included; None if the
            request is given back.
        """
        came_with = call.delivery.properties
        anew = {name: came_with[name] for name in _PROPERTIES if name in came_with}
        time_left = expiration(call.time_left(now))
        anew |= properties(self._serializer, call.delivery.persistent, expiration=time_left)
        if runs is None:
            # Who may have a copy of it may run that: whoever gets this one has to ask.
            mark = {RESENT: 0} if call.is_elsewhere else {}
            anew["headers"] = {**mark, **_own_headers(call.delivery), GIVEN_BACK: True}
        else:
            anew["headers"] = {**_lasting_headers(call.delivery), RUNS: runs}
        carry_user(user_of(call.delivery, self._user), self._user, anew)
        return Message(self._request_route, call.delivery.body, anew, mandatory=False, call=call)


def _own_headers(delivery: Delivery) -> dict[str, Any]:
    """Return the headers that this library knows; other ones might be impossible to send."""
    headers = _lasting_headers(delivery)
    if is_resent(delivery):
        age = delivery.headers[RESENT]
        headers[RESENT] = age if is_count(age) else 0
    if RUNS in delivery.headers:
        headers[RUNS] = runs_of(delivery)
    return headers


def _lasting_headers(delivery: Delivery) -> dict[str, Any]:
    """Return the headers that belong to a call, however often its method is begun."""
    headers: dict[str, Any] = dict(metadata_of(delivery.headers))
    if ONE_WAY in delivery.headers:
        headers[ONE_WAY] = True
    return headers


def declare_server(connection: Connection, server_id: str, arguments: dict[str, Any]) -> None:
    """Declare the exchanges and the request queue of a server; queued requests stay there."""
    binding = request_binding(server_id)
    connection.declare_exchange(binding.exchange)
    connection.declare_exchange(reply_exchange(server_id))
    connection.declare_queue(binding, arguments)
