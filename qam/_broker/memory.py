"""A broker inside this process, ``memory://name``, for tests and first steps.

It has the features of RabbitMQ that this library uses: direct exchanges, durable queues,
round robin between consumers with a prefetch, late acks, redelivery, expiration, confirms and
returns.  A queue lives as long as the process; nothing is written to disk.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from qam._broker.events import Cancelled, Confirmed, Consumer, Event, Returned, Unroutable
from qam._broker.messages import Delivery, Publish, QueueBinding, QueueState, Route, TooLarge
from qam._broker.waker import Waker
from qam._common.fork import disown_in_child
from qam._common.own_locks import own_lock


@dataclass(slots=True, eq=False)
class _Message:
    body: bytes
    properties: dict[str, Any]
    expires_at: float
    redelivered: bool = False


@dataclass(slots=True, eq=False)
class _Reader:
    """A consumer: its connection, and how many unacknowledged messages it has and may have."""

    connection: "MemoryConnection"
    tag: str
    prefetch: int
    no_ack: bool = False
    max_bytes: int | None = None
    unacknowledged: int = 0

    def has_room(self) -> bool:
        return not self.prefetch or self.unacknowledged < self.prefetch


@dataclass(slots=True, eq=False)
class _Queue:
    waiting: deque[_Message] = field(default_factory=deque)
    readers: deque[_Reader] = field(default_factory=deque)

    def next_reader(self) -> _Reader | None:
        for _ in range(len(self.readers)):
            reader = self.readers[0]
            self.readers.rotate(-1)
            if reader.has_room():
                return reader
        return None


def _delivery(tag: int, reader: _Reader, message: _Message) -> Delivery:
    size, limit = len(message.body), reader.max_bytes
    too_large = TooLarge(size, limit) if limit is not None and size > limit else None
    return Delivery(
        b"" if too_large else message.body,
        tag,
        message.redelivered,
        message.properties,
        reader.tag,
        too_large,
    )


class _Broker:
    """The queues and bindings of one broker."""

    def __init__(self) -> None:
        # Guards everything below, and the deliveries and events of the connections.
        # Reentrant only so that a thread can tell that it holds it: see `congested`.
        self.lock = own_lock()
        self.queues: dict[str, _Queue] = {}
        self.bindings: dict[Route, list[str]] = {}

    def put(self, message: Publish, now: float) -> bool:
        """Put *message* into each queue bound for its route; return False if there is none."""
        names = self.bindings.get(message.route, ())
        time_to_live = message.properties.get("expiration")
        expires_at = inf if time_to_live is None else now + int(time_to_live) / 1000
        for name in names:
            queue = self.queues[name]
            queue.waiting.append(_Message(message.body, message.properties, expires_at))
            self.dispatch(queue, now)
        return bool(names)

    def unbind(self, name: str, routes: list[Route]) -> None:
        """Let the messages of these routes not come to the queue of that name any more."""
        for route in routes:
            bound = self.bindings.get(route, [])
            if name in bound:
                bound.remove(name)
            if not bound:
                self.bindings.pop(route, None)

    def dispatch(self, queue: _Queue, now: float) -> None:
        """Deliver the messages in *queue*, as far as its consumers have room."""
        while queue.waiting:
            if queue.waiting[0].expires_at <= now:
                queue.waiting.popleft()
                continue
            reader = queue.next_reader()
            if reader is None:
                return
            reader.connection.deliver(queue, reader, queue.waiting.popleft())


class _Brokers:
    """The brokers of this process, by name."""

    def __init__(self) -> None:
        # Guards _brokers.
        self._lock = own_lock()
        self._brokers: dict[str, _Broker] = {}
        disown_in_child(self)

    def get(self, name: str) -> _Broker:
        with self._lock:
            return self._brokers.setdefault(name, _Broker())

    def _in_forked_child(self) -> None:
        """Start without brokers, and replace the lock; in a forked child."""
        self._lock = own_lock()
        self._brokers = {}


_brokers = _Brokers()


class MemoryConnection:
    """A connection to the broker *name* of this process."""

    def __init__(self, name: str) -> None:
        self._broker = _brokers.get(name)
        self._waker: Waker | None = None
        self._events: deque[Event] = deque()
        self._last_tag = 0
        self._unacknowledged: dict[int, tuple[_Queue, _Reader, _Message]] = {}
        self._readers: dict[str, tuple[_Queue, _Reader]] = {}

    def declare_exchange(self, name: str) -> None:
        """Do nothing: an exchange consists of the bindings that name it."""

    def declare_queue(self, binding: QueueBinding, arguments: dict[str, Any] | None = None) -> None:
        """Declare a queue and bind it to its exchange."""
        with self._broker.lock:
            self._broker.queues.setdefault(binding.queue, _Queue())
            bound = self._broker.bindings.setdefault(binding.route, [])
            if binding.queue not in bound:
                bound.append(binding.queue)

    def inspect_queue(self, queue: str) -> QueueState | None:
        """Return how many messages and consumers *queue* has; None if it does not exist."""
        with self._broker.lock:
            found = self._broker.queues.get(queue)
            return QueueState(len(found.waiting), len(found.readers)) if found else None

    def has_queue(self, name: str) -> bool:
        """Return True if there is that queue."""
        return self.inspect_queue(name) is not None

    def unbind_queue(self, binding: QueueBinding) -> None:
        """Delete a binding: what is published from now on does not come to its queue."""
        with self._broker.lock:
            self._broker.unbind(binding.queue, [binding.route])

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all its messages; cancel its consumers."""
        with self._broker.lock:
            queue = self._broker.queues.pop(name, None)
            self._broker.unbind(name, list(self._broker.bindings))
            for reader in queue.readers if queue else ():
                reader.connection.report(Cancelled(reader.tag))

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange, which consists of its bindings."""
        with self._broker.lock:
            for route in [each for each in self._broker.bindings if each.exchange == name]:
                del self._broker.bindings[route]

    def consume(
        self,
        queue: str,
        prefetch: int = 0,
        priority: int = 0,
        no_ack: bool = False,
        max_bytes: int | None = None,
    ) -> Consumer:
        """Start a consumer that holds up to *prefetch* unacknowledged messages (0: any)."""
        with self._broker.lock:
            source = self._broker.queues[queue]
            tag = f"reader-{len(self._readers) + 1}"
            reader = _Reader(self, tag, prefetch, no_ack, max_bytes)
            self._readers[reader.tag] = source, reader
            source.readers.append(reader)
            self._broker.dispatch(source, time.monotonic())
        return Consumer(queue, reader.tag)

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer; its deliveries can still be acknowledged."""
        with self._broker.lock:
            source, reader = self._readers[consumer.tag]
            if reader in source.readers:
                source.readers.remove(reader)

    def confirm(self, also_plain: bool = False) -> None:
        """Do nothing: every message is confirmed as soon as it is written."""

    def write(self, messages: Iterable[Publish]) -> None:
        """Publish *messages*; the fate of a message with a confirm is reported by events."""
        now = time.monotonic()
        for message in messages:
            with self._broker.lock:
                taken = self._broker.put(message, now)
                refused = message.mandatory and not taken
                if message.confirm:
                    self.report(Returned(message) if refused else Confirmed([message]))
                elif refused:
                    self.report(Unroutable(message.properties.get("correlation_id")))

    def acknowledge(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge a delivery, or with *multiple* all up to it."""
        with self._broker.lock:
            tags = [tag]
            if multiple:
                tags = [each for each in self._unacknowledged if each <= tag]
            queues = [self._release(each) for each in tags]
            for queue in dict.fromkeys(queues):
                self._broker.dispatch(queue, time.monotonic())

    def reject(self, tag: int) -> None:
        """Make the broker drop a delivery."""
        self.acknowledge(tag)

    def _release(self, tag: int) -> _Queue:
        queue, reader, _ = self._unacknowledged.pop(tag)
        reader.unacknowledged -= 1
        return queue

    def deliver(self, queue: _Queue, reader: _Reader, message: _Message) -> None:
        """Receive a message for *reader*; under the broker's lock, from any thread.

        If Ctrl-C strikes that thread, the message is lost with its call, and takes no room.
        """
        tag = self._last_tag = self._last_tag + 1
        try:
            if not reader.no_ack:
                self._unacknowledged[tag] = queue, reader, message
                reader.unacknowledged += 1
            self.report(_delivery(tag, reader, message))
        except BaseException:
            self._lose(tag, reader)
            raise

    def _lose(self, tag: int, reader: _Reader) -> None:
        self._unacknowledged.pop(tag, None)
        held = [each for _, each, _ in self._unacknowledged.values() if each is reader]
        reader.unacknowledged = len(held)
        events = [each for each in self._events if getattr(each, "delivery_tag", None) != tag]
        self._events = deque(events)

    def report(self, event: Event) -> None:
        """Hand an event to the owner, and wake it; under the broker's lock, from any thread."""
        self._events.append(event)
        if self._waker is not None:
            self._waker.wake()

    def flush(self) -> bool:
        """Return True: no bytes are ever buffered."""
        return True

    def read(self) -> list[Event]:
        """Return the received events; does not wait for more."""
        with self._broker.lock:
            events = list(self._events)
            self._events.clear()
        return events

    def rest(self) -> None:
        """Do nothing: every event wakes the waiting thread."""

    @property
    def rests(self) -> bool:
        """Always False."""
        return False

    def wait(self, timeout: float | None, waker: Waker, read_delay: float = 0.0) -> None:
        """Wait up to *timeout* seconds for something to :meth:`read`, or until woken."""
        self._waker = waker  # set before the look at _events, so that no event is missed
        if not self._events:
            waker.wait(timeout)
        waker.clear()

    def take_events(self) -> list[Event]:
        """Return no events: no connection is ever lost."""
        return []

    def tick(self) -> float | None:
        """Return None: there are no heartbeats."""
        return None

    @property
    def congested(self) -> bool:
        """True in a finalizer whose thread is inside a method that holds the broker's lock."""
        return bool(self._broker.lock._is_owned())

    def take_unconfirmed(self) -> list[Publish]:
        """Return no messages: each gets its fate when it is written."""
        return []

    def detach(self) -> None:
        """Do nothing: there is no descriptor."""

    def close(self) -> None:
        """Put unacknowledged messages back at the head of their queues, marked as redelivered."""
        with self._broker.lock:
            for source, reader in self._readers.values():
                if reader in source.readers:
                    source.readers.remove(reader)
            queues = [queue for queue, _, _ in self._unacknowledged.values()]
            for queue, _, message in reversed(self._unacknowledged.values()):
                message.redelivered = True
                queue.waiting.appendleft(message)
            self._unacknowledged.clear()
            for queue in dict.fromkeys(queues):
                self._broker.dispatch(queue, time.monotonic())
