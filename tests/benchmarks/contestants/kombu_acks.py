"""kombu as its documentation has it: durable queues, persistent messages, acknowledgements.

The variant "confirm" waits for the confirm of each message before it goes on (`confirm_publish`).
One thread on each side. The prefetch of 1,000 is no limit for what is measured.
"""

import uuid
from collections import deque
from collections.abc import Callable

from kombu import Connection, Consumer, Message, Producer, Queue

from tests.benchmarks.contract import GIVES_UP_AFTER, answer
from tests.benchmarks.draining import DrainingClient, serve_by_draining
from tests.benchmarks.place import Place

_PREFETCH = 1_000


def _connect(place: Place, variant: str) -> Connection:
    return Connection(place.url, transport_options={"confirm_publish": variant == "confirm"})


def _consume(connection: Connection, queue: str, on_message: Callable[[Message], object]) -> None:
    channel = connection.channel()
    consumer = Consumer(channel, [Queue(queue)], on_message=on_message, prefetch_count=_PREFETCH)
    consumer.consume()


class Client(DrainingClient):
    """A connection with its reply queue."""

    def __init__(self, place: Place, variant: str) -> None:
        super().__init__()
        self._connection = _connect(place, variant)
        self._server = place.name
        self._replies = f"replies-{uuid.uuid4().hex}"
        _consume(self._connection, self._replies, self._on_reply)
        self._producer = Producer(self._connection.channel())

    def publish(self, id: str, body: bytes) -> None:
        self._producer.publish(
            body, routing_key=self._server, reply_to=self._replies, correlation_id=id
        )

    def _on_reply(self, message: Message) -> None:
        message.ack()
        self.arrived.append((message.properties["correlation_id"], message.body))

    def drain(self) -> None:
        self._connection.drain_events(timeout=GIVES_UP_AFTER)

    def close(self) -> None:
        self._connection.release()


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    connection = _connect(place, variant)
    producer = Producer(connection.channel())

    def reply_to(request: Message) -> None:
        id, routing_key = request.properties["correlation_id"], request.properties["reply_to"]
        producer.publish(answer(request.body), routing_key=routing_key, correlation_id=id)
        request.ack()

    requests: deque[Message] = deque()
    _consume(connection, place.name, requests.append)
    ready()
    serve_by_draining(connection.drain_events, requests, reply_to)
