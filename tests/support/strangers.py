"""Somebody else at the same broker, who writes what no peer of this library would write."""

import json
import pickle
from typing import Any

import msgpack

from qam import QAMProxy
from qam._broker.connect import connect
from qam._broker.connection import Connection
from qam._broker.events import Confirmed
from qam._broker.messages import Publish, Route
from qam._broker.waker import Waker
from qam._common.deadline import Deadline
from qam._protocol.entities import reply_exchange
from tests.support.endpoints import endpoint_of
from tests.support.reading import read

CONTENT_TYPES = {
    "pickle": "application/x-python-serialize",
    "json": "application/json",
    "msgpack": "application/x-msgpack",
}


def encode(body: Any, serializer: str, protocol: int = pickle.DEFAULT_PROTOCOL) -> bytes:
    if serializer == "pickle":
        return pickle.dumps(body, protocol)
    return json.dumps(body).encode() if serializer == "json" else msgpack.packb(body)


class Stranger:
    """Somebody with a connection to the same broker, who may write anything to any exchange."""

    def __init__(self, **place: Any) -> None:
        self._connection: Connection = connect(endpoint_of(**place), timeout=20)
        self._connection.confirm()
        self._waker = Waker()

    def send(self, route: Route, body: bytes, properties: dict[str, Any]) -> None:
        """Publish one message; return when the broker has it."""
        self._connection.write([Publish(route, body, properties, mandatory=False)])
        deadline = Deadline(20)
        events: list[Any] = []
        while not any(isinstance(event, Confirmed) and event.messages for event in events):
            assert not deadline.expired
            events += read(self._connection, deadline.wait_time(), self._waker)

    def close(self) -> None:
        self._connection.close()
        self._waker.close()


class AnsweredByTheTest:
    """A proxy, and somebody who answers its calls in place of a server."""

    def __init__(
        self, proxy: QAMProxy, server_id: str, stranger: Stranger, serializer: str
    ) -> None:
        self._proxy, self._stranger, self._serializer = proxy, stranger, serializer
        own_id = proxy.consumer_thread.client_id
        self._own_id = own_id
        self._to_proxy = Route(reply_exchange(server_id), f"{own_id}_client_routing_key")

    def call(self) -> tuple[int, int]:
        """Make a call; return its slot, and its id on the wire."""
        proxy = self._proxy
        slot = proxy.consumer_thread.get_free_result_list_id()
        message = {"id": slot, "method_name": "add", "routing_key": "unused", "params": [1, 2]}
        return slot, proxy.publisher_thread.add_message_to_send(message).call_id

    def answer(self, call_id: int, body: bytes, properties: dict[str, Any]) -> None:
        """Send a reply to a call; whether it says so is up to *properties*."""
        if "correlation_id" in properties:
            properties = properties | {"correlation_id": f"{self._own_id}:{call_id}"}
        self._stranger.send(self._to_proxy, body, properties)

    def works(self) -> bool:
        """Whether a call that is answered well gets its result."""
        slot, call_id = self.call()
        reply = {"id": call_id, "result": 3, "exception": False, "internal_exception": -1}
        content = {"content_type": CONTENT_TYPES[self._serializer]}
        self.answer(call_id, encode(reply, self._serializer), content | {"correlation_id": ""})
        return bool(self._proxy.consumer_thread.get_result(slot) == 3)
