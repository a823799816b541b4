"""A model of RabbitMQ: its queues, what they do with messages, and what a crash leaves of them.

Nothing here is a copy of RabbitMQ's code. What it does was measured, and is compared with a real
node by `test_model_and_rabbitmq`.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

from qam._broker.messages import PERSISTENT, Publish, QueueBinding, QueueState, Route
from tests.simulation.virtual import Act, Schedule

if TYPE_CHECKING:
    from tests.simulation.connection import ModelConnection

#: Seconds of acks that a classic queue may forget when the broker is killed, and a quorum queue.
_ACKS_FORGOTTEN = {"classic": 5.0, "quorum": 0.05}


@dataclass(slots=True, eq=False)
class Stored:
    """A message in a queue."""

    position: int
    message: Publish
    expires_at: float
    redelivered: bool = False
    #: How often it was given back to the queue.
    returns: int = 0
    delivered: bool = False
    #: It survives a crash for sure.
    safe: bool = False

    def __lt__(self, other: "Stored") -> bool:
        return self.position < other.position

    @property
    def persistent(self) -> bool:
        return self.message.properties.get("delivery_mode") == PERSISTENT


@dataclass(slots=True)
class UnderWay:
    """A message on its way into queues.

    :param number: of its confirm; 0 if there is none.
    :param queues: how many do not have it for sure yet.
    """

    message: Publish
    number: int
    queues: int
    is_refused: bool = False


@dataclass(slots=True, eq=False)
class ModelConsumer:
    """A consumer of a queue."""

    connection: "ModelConnection"
    tag: str
    prefetch: int
    priority: int
    no_ack: bool
    held: int = 0

    @property
    def has_room(self) -> bool:
        return self.no_ack or not self.prefetch or self.held < self.prefetch


@dataclass(slots=True, eq=False)
class ModelQueue:
    """A durable queue."""

    name: str
    arguments: dict[str, Any]
    ready: list[Stored] = field(default_factory=list)
    consumers: list[ModelConsumer] = field(default_factory=list)
    #: What was delivered and is not acknowledged.
    held: set[Stored] = field(default_factory=set)
    #: What was acknowledged, and when.
    acknowledged: deque[tuple[float, Stored]] = field(default_factory=deque)
    #: When it was used last, while nobody consumes from it.
    used_at: float = 0.0
    positions: Iterator[int] = field(default_factory=count)
    #: It refuses what is published to it until then.
    refuses_until: float = -inf

    @property
    def kind(self) -> str:
        return str(self.arguments.get("x-queue-type", "classic"))

    @property
    def expires(self) -> float | None:
        """Seconds after which it is deleted if nobody uses it."""
        milliseconds = self.arguments.get("x-expires")
        return None if milliseconds is None else milliseconds / 1000

    @property
    def delivery_limit(self) -> float:
        return float(self.arguments.get("x-delivery-limit", inf))


class ModelBroker:
    """One node.

    :param chance: what it draws from where a real one is not predictable.
    :param calm: nothing takes long that need not.
    """

    def __init__(self, schedule: Schedule, chance: Random, calm: bool = False) -> None:
        self.schedule, self.chance = schedule, chance
        self._calm = calm
        self.is_up = True
        self.queues: dict[str, ModelQueue] = {}
        self._bindings: dict[Route, list[str]] = {}
        self.connections: list[ModelConnection] = []
        self._exchanges: set[str] = set()
        #: Counts its lives: what was under way in an earlier one does not happen.
        self.life = 0

    def latency(self) -> float:
        """How long one step takes: a fraction of a millisecond as a rule, now and then far more."""
        luck = self.chance.random()
        if self._calm or luck < 0.6:
            return 0.0002 + 0.0008 * luck
        return 0.0005 * 10 ** (3.0 * (luck - 0.6) / 0.4) if luck > 0.97 else 0.001 + 0.01 * luck

    def later(self, when: float, act: Act) -> None:
        """Have *act* happen at that time, if the broker is not killed before."""
        life = self.life

        def happen() -> None:
            if self.life == life:
                act()

        self.schedule.at(when, happen)

    # --- entities -------------------------------------------------------------------

    def declare_exchange(self, name: str) -> None:
        self._exchanges.add(name)

    def has_exchange(self, name: str) -> bool:
        return name in self._exchanges

    def declare_queue(self, binding: QueueBinding, arguments: dict[str, Any]) -> None:
        queue = self.queues.get(binding.queue)
        if queue is None:
            queue = self.queues[binding.queue] = ModelQueue(binding.queue, arguments)
        names = self._bindings.setdefault(binding.route, [])
        if binding.queue not in names:
            names.append(binding.queue)
        self._used(queue)

    def unbind_queue(self, binding: QueueBinding) -> None:
        names = self._bindings.get(binding.route, [])
        if binding.queue in names:
            names.remove(binding.queue)

    def delete_queue(self, name: str) -> bool:
        """Delete a queue with all that is in it; its consumers are told."""
        queue = self.queues.pop(name, None)
        if queue is None:
            return False
        for names in self._bindings.values():
            if name in names:
                names.remove(name)
        for consumer in queue.consumers:
            consumer.connection.consumer_cancelled(consumer)
        return True

    def inspect_queue(self, name: str) -> QueueState | None:
        queue = self.queues.get(name)
        if queue is None:
            return None
        self._used(queue)
        self._drop_expired(queue)
        return QueueState(len(queue.ready), len(queue.consumers))

    def _used(self, queue: ModelQueue) -> None:
        queue.used_at = self.schedule.now
        if queue.expires is not None:
            self.later(self.schedule.now + queue.expires, lambda: self._expire(queue))

    def _expire(self, queue: ModelQueue) -> None:
        lease = queue.expires or inf
        unused = not queue.consumers and self.schedule.now >= queue.used_at + lease
        if unused and self.queues.get(queue.name) is queue:
            self.delete_queue(queue.name)

    # --- messages come ---------------------------------------------------------------

    def route(self, route: Route) -> list[ModelQueue]:
        return [self.queues[name] for name in self._bindings.get(route, ())]

    def enqueue(self, queue: ModelQueue, message: Publish) -> Stored:
        ttl = message.properties.get("expiration")
        expires_at = inf if ttl is None else self.schedule.now + int(ttl) / 1000
        stored = Stored(next(queue.positions), message, expires_at)
        queue.ready.append(stored)
        self.dispatch(queue)
        return stored

    def dispatch(self, queue: ModelQueue) -> None:
        """Deliver what waits to consumers that have room for it."""
        while queue.ready and (consumer := self._next_consumer(queue)):
            self._drop_expired(queue)
            if not queue.ready:
                return
            stored = queue.ready.pop(0)
            stored.delivered = True
            if consumer.no_ack:
                queue.acknowledged.append((self.schedule.now, stored))
            else:
                consumer.held += 1
                queue.held.add(stored)
            consumer.connection.deliver(queue, consumer, stored)

    def _next_consumer(self, queue: ModelQueue) -> ModelConsumer | None:
        ready = [each for each in queue.consumers if each.has_room]
        if not ready:
            return None
        highest = max(each.priority for each in ready)
        chosen = next(each for each in ready if each.priority == highest)
        queue.consumers.remove(chosen)  # the next one is another's
        queue.consumers.append(chosen)
        return chosen

    def _drop_expired(self, queue: ModelQueue) -> None:
        """Drop what has expired at the head; what is behind it is not looked at."""
        while queue.ready and queue.ready[0].expires_at <= self.schedule.now:
            queue.ready.pop(0)

    # --- messages go -------------------------------------------------------------------

    def acknowledge(self, queue: ModelQueue, consumer: ModelConsumer, stored: Stored) -> None:
        consumer.held -= 1
        queue.held.discard(stored)
        queue.acknowledged.append((self.schedule.now, stored))
        while queue.acknowledged[0][0] < self.schedule.now - _ACKS_FORGOTTEN[queue.kind]:
            queue.acknowledged.popleft()
        self.dispatch(queue)

    def give_back(self, queue: ModelQueue, stored: Stored) -> None:
        """A message was not acknowledged when its connection ended."""
        queue.held.discard(stored)
        stored.redelivered = True
        stored.returns += 1
        if stored.returns <= queue.delivery_limit:
            insort(queue.ready, stored)

    def remove_consumers(self, connection: "ModelConnection") -> None:
        for queue in self.queues.values():
            before = len(queue.consumers)
            queue.consumers = [
                each for each in queue.consumers if each.connection is not connection
            ]
            if before and not queue.consumers:
                self._used(queue)

    def dispatch_all(self) -> None:
        for queue in list(self.queues.values()):
            self.dispatch(queue)

    # --- the end of the node -------------------------------------------------------------

    def go_down(self, killed: bool) -> None:
        """The node ends, at once or in an orderly way; what is safe outlives that."""
        self.life += 1
        self.is_up = False
        for connection in list(self.connections):
            connection.end(by_broker=True)
        for queue in self.queues.values():
            self._recover(queue, killed)

    def _recover(self, queue: ModelQueue, killed: bool) -> None:
        queue.consumers.clear()
        forgotten: list[Stored] = []
        if killed:
            horizon = self.schedule.now - self.chance.uniform(0, _ACKS_FORGOTTEN[queue.kind])
            forgotten = [stored for at, stored in queue.acknowledged if at > horizon]
        queue.acknowledged.clear()
        stored_before = sorted({*queue.ready, *queue.held, *forgotten})
        queue.held.clear()
        queue.ready = [each for each in stored_before if self._survives(each, killed)]
        for stored in queue.ready:
            stored.safe = True
            # A classic queue knows nothing better than to suspect everything.
            suspects_all = killed and queue.kind == "classic"
            stored.redelivered = suspects_all or stored.redelivered or stored.delivered

    def _survives(self, stored: Stored, killed: bool) -> bool:
        if not stored.persistent:
            return False
        return stored.safe or not killed or self.chance.random() < 0.5

    def come_up(self) -> None:
        self.is_up = True
        for queue in self.queues.values():
            self._used(queue)
