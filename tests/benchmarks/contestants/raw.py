"""Stock py-amqp with nothing beyond: what everything else is compared with.

One thread, transient messages, no acknowledgements, no confirms, an exclusive reply queue. The
server is one thread too; without acknowledgements there is no prefetch, so RabbitMQ sends all that
it has.
"""

from collections import deque
from collections.abc import Callable

import amqp

from tests.benchmarks.contract import GIVES_UP_AFTER, answer
from tests.benchmarks.draining import DrainingClient, serve_by_draining
from tests.benchmarks.place import Place

_TRANSIENT = 1


def connect(place: Place) -> amqp.Connection:
    """A connection to the broker."""
    host = f"{place.host}:{place.port}"
    connection = amqp.Connection(host, userid=place.username, password=place.password)
    connection.connect()
    return connection


class Client(DrainingClient):
    """A connection with its reply queue."""

    def __init__(self, place: Place, variant: str) -> None:
        super().__init__()
        self._connection = connect(place)
        self._channel = self._connection.channel()
        self._server = place.name
        self._replies = self._channel.queue_declare(exclusive=True).queue
        self._channel.basic_consume(self._replies, no_ack=True, callback=self._on_reply)

    def publish(self, id: str, body: bytes) -> None:
        message = amqp.Message(
            body, correlation_id=id, reply_to=self._replies, delivery_mode=_TRANSIENT
        )
        self._channel.basic_publish(message, routing_key=self._server)

    def _on_reply(self, message: amqp.Message) -> None:
        self.arrived.append((message.properties["correlation_id"], message.body))

    def drain(self) -> None:
        self._connection.drain_events(timeout=GIVES_UP_AFTER)

    def close(self) -> None:
        self._connection.close()


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    connection = connect(place)
    channel = connection.channel()

    def reply_to(request: amqp.Message) -> None:
        id, routing_key = request.properties["correlation_id"], request.properties["reply_to"]
        reply = amqp.Message(answer(request.body), correlation_id=id, delivery_mode=_TRANSIENT)
        channel.basic_publish(reply, routing_key=routing_key)

    requests: deque[amqp.Message] = deque()
    channel.queue_declare(place.name, auto_delete=False)  # calls can wait for a server
    channel.basic_consume(place.name, no_ack=True, callback=requests.append)
    ready()
    serve_by_draining(connection.drain_events, requests, reply_to)
