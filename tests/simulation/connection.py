"""A connection to the model of the broker, as its owner sees it, and its channel in the broker."""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

from qam._broker.events import Cancelled, Consumer, Event, Unroutable
from qam._broker.messages import Delivery, Publish, QueueBinding, QueueState
from qam._broker.unconfirmed import Unconfirmed
from qam._broker.waker import Waker
from qam.exceptions import QAMConnectionException
from tests.simulation.broker import ModelBroker, ModelConsumer, ModelQueue, Stored, UnderWay
from tests.simulation.virtual import Act

#: What is told of traffic: what happened, and to which message.
Tell = Callable[[str, Publish, bool], None]


class ModelConnection:
    """Both ends of it, and what is under way between them.

    What one end sends arrives at the other in order, later. A question that its owner waits
    for is answered at once: what was under way before has arrived then, as nothing overtakes.

    :param on_news: something came, or the connection is lost.
    :param tell: takes down what the broker delivers, confirms and returns.
    """

    def __init__(self, broker: ModelBroker, name: str, on_news: Act, tell: Tell) -> None:
        self._broker, self.name = broker, name
        self._on_news, self._tell = on_news, tell
        # At the client's end.
        self._events: list[Event] = []
        self._unconfirmed = Unconfirmed()
        self._confirms = False
        self._unsent: list[Act] = []
        self._error: QAMConnectionException | None = None
        # Under way: to the broker and to the client, each with its time of arrival.
        self._to_broker: deque[tuple[float, Act]] = deque()
        self._to_client: deque[tuple[float, Act]] = deque()
        # From the channel to each queue.
        self._casts: dict[str, deque[tuple[float, Act]]] = {}
        # At the broker's end.
        self._is_open = True
        self._why_closed = ("the broker closed it", False)
        self._tags, self._publishes, self._consumer_tags = count(1), count(1), count(1)
        self._held: dict[int, tuple[ModelQueue, ModelConsumer, Stored]] = {}
        self._consumers: dict[str, tuple[ModelQueue, ModelConsumer]] = {}
        self._silent_until = 0.0
        broker.connections.append(self)

    @property
    def is_lost(self) -> bool:
        return self._error is not None

    # --- faults ---------------------------------------------------------------------------

    def cut(self, why: str = "it was cut", notice: float = 0.0) -> None:
        """The network ends it; of what is under way a part arrives.

        :param notice: seconds until the broker notices.
        """
        chance = self._broker.chance
        for under_way in (self._to_broker, self._to_client):
            arrives = chance.randint(0, len(under_way))
            for _, act in list(under_way)[:arrives]:
                act()
            under_way.clear()
        self._lose(why)
        self._broker.later(self._broker.schedule.now + notice, self.end)

    def cut_before_it_arrives(self) -> None:
        """Cut it; nothing of what is under way arrives."""
        self._to_broker.clear()
        self._to_client.clear()
        self._lose("it was cut")
        self.end()

    def be_silent(self, until: float) -> None:
        """Nothing arrives before that time; then all does."""
        self._silent_until = max(self._silent_until, until)

    def _lose(self, why: str, by_message: bool = False) -> None:
        if self._error is None:
            self._error = QAMConnectionException(f"the connection was lost: {why}")
            self._error.by_message = by_message
            self._unsent.clear()
            self._on_news()

    def end(self, by_broker: bool = False) -> None:
        """The broker's end of it ends."""
        if not self._is_open:
            return
        self._is_open = False
        self._broker.connections.remove(self)
        if by_broker:
            self._to_broker.clear()
            self._to_client.clear()
            self._lose("the broker went away")
            return
        self._broker.later(self._broker.schedule.now + self._broker.latency(), self._requeue)

    def close_by_broker(self, why: str, by_message: bool) -> None:
        """The broker closes it, or its channel: what it has sent before arrives."""
        self._to_broker.clear()
        self._why_closed = why, by_message
        now = self._broker.schedule.now
        last = max((at for at, _ in self._to_client), default=now + self._broker.latency())
        # Also if the broker goes down meanwhile.
        self._broker.schedule.at(last + 1e-6, partial(self._lose, why, by_message))
        self.end()

    def _requeue(self) -> None:
        for waiting in self._casts.values():
            while waiting:
                waiting.popleft()[1]()
        self._broker.remove_consumers(self)
        for queue, _, stored in self._held.values():
            self._broker.give_back(queue, stored)
        self._held.clear()
        self._broker.dispatch_all()

    # --- what is under way -------------------------------------------------------------

    def _send(self, under_way: deque[tuple[float, Act]], act: Act) -> None:
        now, broker = self._broker.schedule.now, self._broker
        last = under_way[-1][0] if under_way else 0.0
        arrives = max(now + broker.latency(), last)
        under_way.append((arrives, act))
        broker.later(arrives, partial(self._arrive, under_way))

    def _arrive(self, under_way: deque[tuple[float, Act]]) -> None:
        now = self._broker.schedule.now
        crosses_the_network = under_way is self._to_client or under_way is self._to_broker
        if crosses_the_network and now < self._silent_until:
            self._broker.later(self._silent_until, partial(self._arrive, under_way))
            return
        while under_way and under_way[0][0] <= now:
            under_way.popleft()[1]()

    def _send_to_client(self, act: Act) -> None:
        self._send(self._to_client, act)

    def _report(self, event: Event) -> None:
        """An event arrives at the client."""
        if self._error is None:
            self._events.append(event)
            self._on_news()

    def _cast(self, queue: ModelQueue, act: Act) -> None:
        """The channel sends something to a queue."""
        self._send(self._casts.setdefault(queue.name, deque()), act)

    def _catch_up(self) -> None:
        """Whatever is under way to the broker has arrived."""
        self._check()
        if self._broker.schedule.now < self._silent_until:
            # Nobody answers for as long as one waits; the broker misses the client later.
            self._lose("no answer came")
            missed = self._broker.schedule.now + self._broker.chance.uniform(20.0, 27.0)
            self._broker.later(min(self._silent_until, missed), self.end)
            self._check()
        self.flush()
        for under_way in (self._to_broker, *self._casts.values(), self._to_client):
            while under_way:  # what the broker sent before its answer comes before it
                under_way.popleft()[1]()
        if not self._is_open:  # and its last word, instead of an answer
            self._lose(*self._why_closed)
        self._check()

    # --- the owner's end: entities -------------------------------------------------------

    def declare_exchange(self, name: str) -> None:
        self._catch_up()
        self._broker.declare_exchange(name)

    def declare_queue(self, binding: QueueBinding, arguments: dict[str, Any] | None = None) -> None:
        self._catch_up()
        self._broker.declare_queue(binding, dict(arguments or {}))

    def inspect_queue(self, queue: str) -> QueueState | None:
        self._catch_up()
        return self._broker.inspect_queue(queue)

    def has_queue(self, name: str) -> bool:
        return self.inspect_queue(name) is not None

    def unbind_queue(self, binding: QueueBinding) -> None:
        self._catch_up()
        self._broker.unbind_queue(binding)

    def delete_queue(self, name: str) -> None:
        self._catch_up()
        self._broker.delete_queue(name)

    def consume(
        self,
        queue: str,
        prefetch: int = 0,
        priority: int = 0,
        no_ack: bool = False,
        max_bytes: int | None = None,
    ) -> Consumer:
        self._catch_up()
        source = self._broker.queues.get(queue)
        if source is None:
            self._lose(f"there is no queue {queue}", by_message=True)
            self.end()
            self._check()
        assert source is not None
        tag = f"{self.name}-{next(self._consumer_tags)}"
        consumer = ModelConsumer(self, tag, prefetch, priority, no_ack)
        source.consumers.append(consumer)
        self._consumers[tag] = source, consumer
        self._broker.dispatch(source)
        return Consumer(queue, tag)

    def cancel(self, consumer: Consumer) -> None:
        self._catch_up()
        source, model = self._consumers.pop(consumer.tag)
        if model in source.consumers:
            source.consumers.remove(model)

    def confirm(self, also_plain: bool = False) -> None:
        self._catch_up()
        self._confirms = True

    # --- the owner's end: traffic ------------------------------------------------------------

    def write(self, messages: Iterable[Publish]) -> None:
        batch = list(messages)
        for message in batch:
            if message.confirm:
                self._unconfirmed.add([message])
        self._check()
        # As it is now: who sent it may change it to send it again.
        self._unsent += [partial(self._take, _as_sent(message)) for message in batch]
        self.flush()

    def acknowledge(self, tag: int, multiple: bool = False) -> None:
        self._unsent.append(partial(self._acknowledged, tag, multiple))

    def reject(self, tag: int) -> None:
        self._check()
        self._unsent.append(partial(self._acknowledged, tag, False))

    def flush(self) -> bool:
        self._check()
        unsent, self._unsent = self._unsent, []
        for act in unsent:
            self._send(self._to_broker, act)
        return True

    def read(self) -> list[Event]:
        self._check()
        return self.take_events()

    def take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def take_unconfirmed(self) -> list[Publish]:
        return self._unconfirmed.take_all()

    def tick(self) -> float | None:
        return None

    @property
    def congested(self) -> bool:
        return False

    @property
    def rests(self) -> bool:
        return False

    def rest(self) -> None: ...

    def wait(self, timeout: float | None, waker: Waker, read_delay: float = 0.0) -> None: ...

    def detach(self) -> None: ...

    def close(self) -> None:
        if self._error is None:
            self._catch_up()
            self._error = QAMConnectionException("the connection is closed")
            self.end()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # --- the channel in the broker -----------------------------------------------------------

    def _take(self, message: Publish) -> None:
        """A message arrives at the broker."""
        if not self._is_open:
            return
        number = next(self._publishes) if message.confirm else 0
        queues = self._broker.route(message.route)
        if not self._broker.has_exchange(message.route.exchange):
            self.close_by_broker(f"no exchange {message.route.exchange}", by_message=True)
        elif queues:
            under_way = UnderWay(message, number, len(queues))
            for queue in queues:
                self._cast(queue, partial(self._enqueue, queue, under_way))
        elif message.mandatory:
            self._tell("returned", message, False)
            self._send_to_client(partial(self._returned, message, number))
        elif number:
            self._send_to_client(partial(self._confirmed, message, number))

    def _returned(self, message: Publish, number: int) -> None:
        correlation_id = message.properties.get("correlation_id")
        if not number:
            self._report(Unroutable(correlation_id))
            return
        self._unconfirmed.returned(correlation_id)
        for event in self._unconfirmed.acked(number, False):
            self._report(event)

    def _enqueue(self, queue: ModelQueue, under_way: UnderWay) -> None:
        broker, stored = self._broker, None
        if broker.queues.get(queue.name) is not queue:  # deleted meanwhile
            under_way.is_refused = True
        else:
            refuses = broker.schedule.now < queue.refuses_until
            under_way.is_refused = under_way.is_refused or refuses
            # A queue that dies before it confirms may have the message all the same.
            taken = not refuses or broker.chance.random() < 0.5
            stored = broker.enqueue(queue, under_way.message) if taken else None
        kept = partial(self._kept, stored, under_way)
        broker.later(broker.schedule.now + 2 * broker.latency(), kept)

    def _kept(self, stored: Stored | None, under_way: UnderWay) -> None:
        """A message is on the disk of one queue: from now on it survives there.

        Its publisher learns it when it is on those of all queues.
        """
        if stored is not None:
            stored.safe = True
        under_way.queues -= 1
        if self._is_open and under_way.number and not under_way.queues:
            tell = self._nacked if under_way.is_refused else self._confirmed
            self._send_to_client(partial(tell, under_way.message, under_way.number))

    def _confirmed(self, message: Publish, number: int) -> None:
        if self._error is None:
            self._tell("confirmed", message, False)
            for event in self._unconfirmed.acked(number, False):
                self._report(event)

    def _nacked(self, message: Publish, number: int) -> None:
        if self._error is None:
            for event in self._unconfirmed.nacked(number, False):
                self._report(event)

    def deliver(self, queue: ModelQueue, consumer: ModelConsumer, stored: Stored) -> None:
        """A queue has something for a consumer of this channel."""
        tag = next(self._tags)
        if not consumer.no_ack:
            self._held[tag] = queue, consumer, stored
        message = stored.message
        self._tell("delivered", message, stored.redelivered)
        properties = {**message.properties}
        delivery = Delivery(message.body, tag, stored.redelivered, properties, consumer.tag)
        self._send_to_client(partial(self._report, delivery))

    def consumer_cancelled(self, consumer: ModelConsumer) -> None:
        """The queue of a consumer was deleted."""
        self._consumers.pop(consumer.tag, None)
        self._send_to_client(partial(self._report, Cancelled(consumer.tag)))

    def _acknowledged(self, tag: int, multiple: bool) -> None:
        if not self._is_open:
            return
        tags = [each for each in self._held if each <= tag] if multiple else [tag]
        for each in tags:
            if each not in self._held:
                self.close_by_broker(f"unknown delivery tag {each}", by_message=True)
                return
            queue, consumer, stored = self._held.pop(each)
            self._tell("acknowledged", stored.message, False)
            self._cast(queue, partial(self._broker.acknowledge, queue, consumer, stored))


def _as_sent(message: Publish) -> Publish:
    properties = {**message.properties}
    if "headers" in properties:
        properties["headers"] = {**properties["headers"]}
    return Publish(message.route, message.body, properties, message.mandatory, message.confirm)
