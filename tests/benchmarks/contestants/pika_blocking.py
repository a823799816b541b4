"""pika's BlockingConnection, as in the RPC tutorial of RabbitMQ.

Transient messages, an exclusive reply queue without acknowledgements, requests that are
acknowledged after the reply; one thread on each side. But a prefetch of 100, where the tutorial,
which shows how to balance load, has 1.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import pika

from tests.benchmarks.contract import GIVES_UP_AFTER, answer
from tests.benchmarks.draining import DrainingClient, serve_by_draining
from tests.benchmarks.place import Place

_PREFETCH = 100


def _connect(place: Place) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(place.url_of_pika))


class Client(DrainingClient):
    """A connection with its reply queue."""

    def __init__(self, place: Place, variant: str) -> None:
        super().__init__()
        self._connection = _connect(place)
        self._channel = self._connection.channel()
        self._server = place.name
        self._replies = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.basic_consume(self._replies, self._on_reply, auto_ack=True)

    def publish(self, id: str, body: bytes) -> None:
        properties = pika.BasicProperties(correlation_id=id, reply_to=self._replies)
        self._channel.basic_publish("", self._server, body, properties)

    def _on_reply(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.arrived.append((properties.correlation_id, body))

    def drain(self) -> None:
        self._connection.process_data_events(time_limit=GIVES_UP_AFTER)

    def close(self) -> None:
        self._connection.close()


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    connection = _connect(place)
    channel = connection.channel()

    def reply_to(request: tuple[Any, Any, Any, bytes]) -> None:
        _, method, asked, body = request
        properties = pika.BasicProperties(correlation_id=asked.correlation_id)
        channel.basic_publish("", asked.reply_to, answer(body), properties)
        channel.basic_ack(method.delivery_tag)

    requests: deque[tuple[Any, Any, Any, bytes]] = deque()
    channel.queue_declare(place.name)
    channel.basic_qos(prefetch_count=_PREFETCH)
    channel.basic_consume(place.name, lambda *request: requests.append(request))
    ready()
    serve_by_draining(lambda: connection.process_data_events(None), requests, reply_to)
