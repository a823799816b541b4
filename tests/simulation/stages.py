"""Where a small story of connections is played: on the model of the broker, or on a real node."""

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from qam._broker.connect import connect
from qam._broker.connection import Connection
from qam._broker.events import Cancelled, Confirmed, Event, Refused, Returned, Unroutable
from qam._broker.messages import PERSISTENT, Delivery, Publish, QueueBinding
from qam._broker.waker import Waker
from qam.exceptions import QAMConnectionException
from tests.simulation.broker import ModelBroker
from tests.simulation.connection import ModelConnection
from tests.simulation.virtual import Schedule, drawn
from tests.support.endpoints import endpoint_of
from tests.support.forwarder import Forwarder
from tests.support.rabbitmq import RabbitMQNode
from tests.support.reading import read

_LONG = 60.0  # seconds; nothing takes that long unless it is broken


@dataclass
class Heard:
    """What the owner of one connection has heard, each kind in its order."""

    delivered: list[tuple[str, bool]] = field(default_factory=list)
    #: Of several messages the broker confirms whichever is safe first.
    confirmed: set[str] = field(default_factory=set)
    returned: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    cancelled: int = 0
    lost: bool = False

    def take(self, event: Event) -> None:
        match event:
            case Delivery():
                self.delivered.append((event.body.decode(), event.redelivered))
            case Confirmed():
                self.confirmed |= {each.body.decode() for each in event.messages}
            case Returned():
                self.returned.append(event.message.body.decode())
            case Refused():
                self.refused.append(event.message.body.decode())
            case Unroutable():
                self.returned.append(str(event.correlation_id))
            case Cancelled():
                self.cancelled += 1


class Stage(ABC):
    """A broker, the connections to it by their names, and what each of them has heard.

    :param queue: the queue of the story.
    """

    def __init__(self, queue: str) -> None:
        self.binding = QueueBinding(queue, f"{queue}_exchange", f"{queue}_key")
        self.heard: dict[str, Heard] = defaultdict(Heard)
        self._tags: dict[str, list[int]] = defaultdict(list)

    # --- what differs ---------------------------------------------------------------------

    @abstractmethod
    def connection(self, name: str) -> Connection:
        """The connection of that name, opened when it is asked for first."""

    @abstractmethod
    def cut(self, name: str) -> None:
        """Cut it."""

    @abstractmethod
    def kill_and_restart(self) -> None:
        """Kill the broker, and start it again."""

    @abstractmethod
    def _read(self, name: str) -> list[Event]:
        """Let some time pass; return what came."""

    @abstractmethod
    def _tries(self) -> Iterator[None]:
        """Yield as often as something may be tried; some time passes between."""

    # --- what is the same ----------------------------------------------------------------

    def declare(self, name: str, **arguments: Any) -> None:
        """Declare a queue: a classic one, whatever the broker's default is, if not told so."""
        arguments = {"x-queue-type": "classic"} | arguments
        connection = self.connection(name)
        connection.declare_exchange(self.binding.exchange)
        connection.declare_queue(self.binding, arguments)

    def publish(self, name: str, *bodies: str, mandatory: bool = True, **more: Any) -> None:
        """Publish to the queue, with confirms."""
        properties = {"delivery_mode": PERSISTENT, **more}
        messages = [
            Publish(
                self.binding.route,
                body.encode(),
                {"correlation_id": body, **properties},
                mandatory,
            )
            for body in bodies
        ]
        connection = self.connection(name)
        connection.write(messages)
        connection.flush()

    def consume(self, name: str, **options: Any) -> Any:
        return self.connection(name).consume(self.binding.queue, **options)

    def acknowledge(self, name: str, number: int, multiple: bool = False) -> None:
        """Acknowledge the delivery of that number, counted from 0."""
        connection = self.connection(name)
        connection.acknowledge(self._tags[name][number], multiple)
        connection.flush()

    def hears(self, name: str, condition: Callable[[Heard], object]) -> None:
        """Wait until *condition* holds for what that connection has heard."""
        for _ in self._tries():
            if condition(self.heard[name]):
                return
            self._take(name)
        raise AssertionError(f"{name} hears no more than {self.heard[name]}")

    def _take(self, name: str) -> None:
        heard = self.heard[name]
        try:
            events = self._read(name)
        except QAMConnectionException:
            events, heard.lost = self.connection(name).take_events(), True
        for event in events:
            heard.take(event)
            if isinstance(event, Delivery):
                self._tags[name].append(event.delivery_tag)

    def state(self, messages: int, consumers: int) -> None:
        """Wait until the broker says that of the queue."""
        for _ in self._tries():
            state = self.connection("inspector").inspect_queue(self.binding.queue)
            if state == (messages, consumers):
                return
        raise AssertionError(f"the queue has {state}, not {messages} and {consumers}")

    def nothing_more(self, *names: str) -> None:
        """Whatever the broker has sent to these by now is heard."""
        for name in names:
            self.connection(name).inspect_queue(self.binding.queue)
            self._take(name)


class ModelStage(Stage):
    """On the model."""

    def __init__(self, queue: str, seed: object) -> None:
        super().__init__(queue)
        self._schedule = Schedule()
        self._broker = ModelBroker(self._schedule, drawn(seed))
        self._connections: dict[str, ModelConnection] = {}

    def connection(self, name: str) -> ModelConnection:
        if name not in self._connections:
            self._connections[name] = ModelConnection(
                self._broker, name, lambda: None, lambda *_: None
            )
            if name.startswith("publisher"):
                self._connections[name].confirm()
        return self._connections[name]

    def cut(self, name: str) -> None:
        self.connection(name).cut(notice=0.01)

    def kill_and_restart(self) -> None:
        self._broker.go_down(killed=True)
        self._broker.come_up()
        self._connections.pop("inspector", None)

    def _read(self, name: str) -> list[Event]:
        self._schedule.run(self._schedule.now + 0.01)
        return self.connection(name).read()

    def _tries(self) -> Iterator[None]:
        for _ in range(1000):
            yield
            self._schedule.run(self._schedule.now + 0.01)


class NodeStage(Stage):
    """On a RabbitMQ node; each connection goes a way of its own, which can be cut."""

    def __init__(self, queue: str, node: RabbitMQNode) -> None:
        super().__init__(queue)
        self._node = node
        self._ways: dict[str, tuple[Connection, Forwarder, Waker]] = {}

    def connection(self, name: str) -> Connection:
        if name not in self._ways:
            way = Forwarder(self._node.host, self._node.port)
            connection = connect(endpoint_of(way.host, way.port), _LONG)
            self._ways[name] = connection, way, Waker()
            if name.startswith("publisher"):
                connection.confirm()
        return self._ways[name][0]

    def cut(self, name: str) -> None:
        self.connection(name).flush()
        self._ways[name][1].cut()

    def kill_and_restart(self) -> None:
        self._node.restart()
        self._close("inspector")

    def _read(self, name: str) -> list[Event]:
        return read(self.connection(name), 0.05, self._ways[name][2])

    def _tries(self) -> Iterator[None]:
        deadline = time.monotonic() + _LONG
        while time.monotonic() < deadline:
            yield
            time.sleep(0.002)

    def _close(self, name: str) -> None:
        if name in self._ways:
            connection, way, waker = self._ways.pop(name)
            connection.close()
            waker.close()
            way.close()

    def close(self) -> None:
        for name in list(self._ways):
            self._close(name)


@contextmanager
def on_node(queue: str, node: RabbitMQNode) -> Iterator[NodeStage]:
    """A stage on a node."""
    stage = NodeStage(queue, node)
    try:
        yield stage
    finally:
        stage.close()
