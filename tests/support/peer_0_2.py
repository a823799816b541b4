"""Peers of the 0.2 series, played from the protocol alone over plain kombu.

Nothing here uses this library: what it and these peers say to each other is what
deployed 0.2.x clients and servers say.
"""

import json
import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import kombu
from kombu import Exchange, Queue

_CONTENT_TYPES = {"pickle": "application/x-python-serialize", "json": "application/json"}
_ENCODINGS = {"pickle": "binary", "json": "utf-8"}


def dumps(body: Any, serializer: str) -> bytes:
    """Encode as a Python 2 peer: pickle protocol 2 at most."""
    return pickle.dumps(body, protocol=2) if serializer == "pickle" else json.dumps(body).encode()


def loads(body: bytes, serializer: str) -> Any:
    """Decode as a Python 2 peer, which can read pickle protocol 2 at most."""
    if serializer == "json":
        return json.loads(body)
    assert body[0] == 0x80, "no pickle of protocol 2"
    assert body[1] <= 2, f"pickle protocol {body[1]}: a Python 2 peer can't read it"
    return pickle.loads(body)


def publish(channel: Any, exchange: str, routing_key: str, body: bytes, serializer: str) -> None:
    """Publish as carrot did: persistent, with content type and encoding, nothing more."""
    kombu.Producer(channel).publish(
        body,
        exchange=exchange,
        routing_key=routing_key,
        content_type=_CONTENT_TYPES[serializer],
        content_encoding=_ENCODINGS[serializer],
        delivery_mode=2,
    )


def entities(server_id: str, client_id: str) -> tuple[Queue, Queue]:
    """The request queue and the reply queue."""
    requests = Queue(
        f"{server_id}_server_queue",
        Exchange(f"{server_id}_server_exchange", "direct", durable=True),
        f"{server_id}_server_routing_key",
        durable=True,
    )
    replies = Queue(
        f"{client_id}_client_queue",
        Exchange(f"{server_id}_client_exchange", "direct", durable=True),
        f"{client_id}_client_routing_key",
        durable=True,
    )
    return requests, replies


class Client02:
    """A 0.2.x client: its ids are its slots, used again and again."""

    def __init__(self, url: str, server_id: str, client_id: str, serializer: str) -> None:
        self._connection = kombu.Connection(url)
        self._channel = self._connection.channel()
        self._requests, self._replies = entities(server_id, client_id)
        self._client_id, self._serializer = client_id, serializer
        self._requests.exchange(self._channel).declare()
        self._replies(self._channel).declare()

    def call(self, method_name: str, *params: Any, id: int = 0) -> dict[str, Any]:
        """Send a request and return the body of the reply."""
        self.send(method_name, *params, id=id)
        return self.receive()

    def send(self, method_name: str, *params: Any, id: int = 0) -> None:
        """Send a request."""
        request = {
            "id": id,
            "method_name": method_name,
            "routing_key": f"{self._client_id}_client_routing_key",
            "params": params,
        }
        publish(
            self._channel,
            self._requests.exchange.name,
            self._requests.routing_key,
            dumps(request, self._serializer),
            self._serializer,
        )

    def receive(self) -> dict[str, Any]:
        """Return the body of the next reply."""
        return self.receive_many(1)[0]

    def receive_many(self, number: int) -> list[dict[str, Any]]:
        """Return the bodies of so many replies."""
        replies: list[Any] = []
        consumer = kombu.Consumer(
            self._channel, [self._replies], on_message=replies.append, accept=["pickle", "json"]
        )
        with consumer:
            while len(replies) < number:
                self._connection.drain_events(timeout=20)
        for each in replies:
            each.ack()
            assert each.content_type == _CONTENT_TYPES[self._serializer]
        return [loads(bytes(_as_bytes(each.body)), self._serializer) for each in replies]

    def close(self) -> None:
        """Delete the queue and go."""
        self._replies(self._channel).delete()
        self._connection.release()


class Server02:
    """A 0.2.x server: answers with the four fields, and no properties but the content's."""

    def __init__(
        self, url: str, server_id: str, serializer: str, methods: dict[str, Callable[..., Any]]
    ) -> None:
        self._connection = kombu.Connection(url)
        self._channel = self._connection.channel()
        self._requests, replies = entities(server_id, "unused")
        self._reply_exchange = replies.exchange
        self._serializer, self.methods = serializer, methods
        self._requests(self._channel).declare()
        self._reply_exchange(self._channel).declare()
        self._stop = threading.Event()
        #: The properties and bodies that came.
        self.seen: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._thread = threading.Thread(target=self._serve, name="0.2.x server")
        self._thread.start()

    def _serve(self) -> None:
        with kombu.Consumer(self._channel, [self._requests], on_message=self._on_message):
            while not self._stop.is_set():
                with suppress(TimeoutError):
                    self._connection.drain_events(timeout=0.1)

    def _on_message(self, message: Any) -> None:
        request = loads(bytes(_as_bytes(message.body)), self._serializer)
        self.seen.append((message.properties, request))
        publish(
            self._channel,
            self._reply_exchange.name,
            request["routing_key"],
            dumps(self._answer(request), self._serializer),
            self._serializer,
        )
        message.ack()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        reply = {"id": request["id"], "result": None, "exception": False, "internal_exception": -1}
        method = self.methods.get(request["method_name"])
        if method is None:
            return reply | {
                "result": "method not found",
                "exception": True,
                "internal_exception": 1,
            }
        try:
            return reply | {"result": method(*request["params"])}
        except Exception as error:
            result = error if self._serializer == "pickle" else list(error.args)
            return reply | {"result": result, "exception": True}

    def close(self) -> None:
        """End the thread and go."""
        self._stop.set()
        self._thread.join()
        self._requests(self._channel).delete()
        self._connection.release()


def _as_bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else body
