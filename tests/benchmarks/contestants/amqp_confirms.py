"""py-amqp with what keeps calls over failures: the least that anybody has to pay for it.

Durable queues, persistent messages, acknowledgements by hand, and confirms that are read as they
come, in one thread on each side. A request is acknowledged when its reply is confirmed. The
prefetch of 1,000 is no limit for what is measured.
"""

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import amqp

from tests.benchmarks.contestants.raw import connect
from tests.benchmarks.contract import GIVES_UP_AFTER, answer
from tests.benchmarks.draining import DrainingClient, serve_by_draining
from tests.benchmarks.place import Place

_PERSISTENT = 2
_PREFETCH = 1_000


class Publisher:
    """Publishes on a channel; `confirmed(token)` is called when a message is confirmed."""

    def __init__(self, channel: amqp.Channel, confirmed: Callable[[Any], object]) -> None:
        self._channel = channel
        self._confirmed = confirmed
        self._numbers = itertools.count(1)
        self._unconfirmed: dict[int, Any] = {}
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_confirm)

    def publish(self, body: bytes, routing_key: str, token: Any, **properties: Any) -> None:
        self._unconfirmed[next(self._numbers)] = token
        message = amqp.Message(body, delivery_mode=_PERSISTENT, **properties)
        self._channel.basic_publish(message, routing_key=routing_key)

    def _on_confirm(self, number: int, multiple: bool) -> None:
        upto = itertools.takewhile(number.__ge__, self._unconfirmed) if multiple else [number]
        for each in list(upto):
            self._confirmed(self._unconfirmed.pop(each))


class Client(DrainingClient):
    """A connection with its reply queue."""

    def __init__(self, place: Place, variant: str) -> None:
        super().__init__()
        self._connection = connect(place)
        self._channel = self._connection.channel()
        self._server = place.name
        self._replies = self._channel.queue_declare(durable=True, auto_delete=False).queue
        self._channel.basic_qos(0, _PREFETCH, False)
        self._channel.basic_consume(self._replies, callback=self._on_reply)
        self._publisher = Publisher(self._channel, lambda _: None)

    def publish(self, id: str, body: bytes) -> None:
        properties = {"correlation_id": id, "reply_to": self._replies}
        self._publisher.publish(body, self._server, None, **properties)

    def _on_reply(self, message: amqp.Message) -> None:
        self._channel.basic_ack(message.delivery_tag)
        self.arrived.append((message.properties["correlation_id"], message.body))

    def drain(self) -> None:
        self._connection.drain_events(timeout=GIVES_UP_AFTER)

    def close(self) -> None:
        self._connection.close()


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    connection = connect(place)
    channel = connection.channel()
    publisher = Publisher(channel, channel.basic_ack)

    def reply_to(request: amqp.Message) -> None:
        id, routing_key = request.properties["correlation_id"], request.properties["reply_to"]
        token = request.delivery_tag
        publisher.publish(answer(request.body), routing_key, token, correlation_id=id)

    requests: deque[amqp.Message] = deque()
    channel.queue_declare(place.name, durable=True, auto_delete=False)
    channel.basic_qos(0, _PREFETCH, False)
    channel.basic_consume(place.name, callback=requests.append)
    ready()
    serve_by_draining(connection.drain_events, requests, reply_to)
