"""Makes the requests of a proxy."""

from collections.abc import Sequence
from typing import Any

from qam._broker.messages import Publish
from qam._client.call_fates import note_written
from qam._client.pending_call import PendingCall
from qam._common.deadline import NO_END
from qam._common.error_texts import describe
from qam._protocol.correlation import correlation_id_of, number_of
from qam._protocol.entities import reply_routing_key, request_binding
from qam._protocol.properties import ONE_WAY, RESENT, expiration, properties
from qam._protocol.requests import apply_message
from qam._serialization.serializers import Serializer
from qam.exceptions import QAMSerializationException


class RequestMaker:
    """Makes the requests of one proxy.

    :param server_id: the server that is called.
    :param client_id: names the routing key by which replies come back.
    :param serializer: how requests are encoded.
    :param max_message_bytes: the size of the largest request, in bytes.
    :param persistent: whether the broker keeps the requests.
    :param user: as whom the proxy says it is connected; None if it does not say.
    """

    def __init__(
        self,
        server_id: str,
        client_id: str,
        serializer: Serializer,
        max_message_bytes: int,
        persistent: bool,
        user: str | None = None,
    ) -> None:
        self.route = request_binding(server_id).route
        self.queue = request_binding(server_id).queue
        self._client_id = client_id
        self._serializer = serializer
        self._max_message_bytes = max_message_bytes
        self._persistent = persistent
        self._reply_key = reply_routing_key(client_id)
        self._properties = properties(
            serializer, persistent, reply_to=self._reply_key, user_id=user
        )
        # A documented message names the client by its label, and not by its id on the wire.
        self._label_key = reply_routing_key(client_id.rpartition(".")[0])

    def encode(
        self,
        call_id: int,
        method_name: str,
        params: Sequence[Any],
        kwargs: dict[str, Any],
        routing_key: str,
    ) -> bytes:
        """Return the body of a request.

        :raises QAMSerializationException: the arguments can't be encoded, or are too large.
        """
        name, params = apply_message(method_name, params, kwargs)
        body = {
            "id": call_id,
            "method_name": name,
            "routing_key": self._reply_key if routing_key == self._label_key else routing_key,
            "params": params,
        }
        try:
            encoded = self._serializer.encode(body)
        except Exception as error:
            raise QAMSerializationException(
                f"the arguments of {method_name}() can't be encoded as "
                f"{self._serializer.name}: {describe(error)}"
            ) from error
        if len(encoded) > self._max_message_bytes:
            raise QAMSerializationException(
                f"the request of {method_name}() has {len(encoded)} bytes, more than "
                f"max_message_bytes={self._max_message_bytes}"
            )
        return encoded

    def request(self, call: PendingCall, now: float) -> Publish:
        """Return the request of *call*, to be written at the time *now*."""
        with_own = self._properties.copy()
        with_own["correlation_id"] = correlation_id_of(self._client_id, call.call_id)
        if call.deadline is not NO_END and not call.one_way:
            # Only the time that is left: a part of it may have passed in the method queue.
            left = expiration(call.deadline.left_at(now))
            if left is not None:
                with_own["expiration"] = left
        age = note_written(call, now)
        if age is not None or call.metadata or call.one_way:
            with_own["headers"] = _headers(call, age)
        # By position, which is faster: there is one for each call.
        return Publish(self.route, call.body, with_own, True, self._persistent, call)

    def call_id_of(self, correlation_id: str | None) -> int | None:
        """Return the id of the call with *correlation_id*; None for a call of another client."""
        return number_of(correlation_id, self._client_id)


def _headers(call: PendingCall, age: int | None) -> dict[str, Any]:
    """Return the headers of a request; *age* is set if it is a copy."""
    headers: dict[str, Any] = dict(call.metadata or {})
    if age is not None:
        headers[RESENT] = age
    if call.one_way:
        headers[ONE_WAY] = True
    return headers
