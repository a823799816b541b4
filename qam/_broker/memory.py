"""A broker inside this process: ``memory://name``, for trying out and for tests.

It does what this library asks of RabbitMQ: direct exchanges, durable queues, round
robin between consumers with a prefetch, late acks, redelivery, expiration,
confirms and returns.  A queue lives as long as the process; nothing is written to
disk.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from threading import Lock, RLock
from typing import Any

from qam._broker.events import Cancelled, Confirmed, Consumer, Event, Returned, Unroutable
from qam._broker.messages import Delivery, Publish, QueueBinding, QueueState, Route, TooLarge
from qam._broker.waker import Waker
from qam._common.fork import disown_in_child


@dataclass(slots=True, eq=False)
class _Message:
    body: bytes
    properties: dict[str, Any]
    expires_at: float
    redelivered: bool = False


@dataclass(slots=True, eq=False)
class _Reader:
    """A consumer: whose it is, how much it may hold, how much it holds."""

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


class _Broker:
    """The queues of one name."""

    def __init__(self) -> None:
        # Guards everything below, and what the connections keep of deliveries.
        # Reentrant only so that a thread can tell that it holds it: see `congested`.
        self.lock: Any = RLock()
        self.queues: dict[str, _Queue] = {}
        self.bindings: dict[Route, list[str]] = {}

    def put(self, message: Publish, now: float) -> bool:
        """Put *message* into each queue that its route leads to; False if there is none."""
        names = self.bindings.get(message.route, ())
        time_to_live = message.properties.get("expiration")
        expires_at = inf if time_to_live is None else now + int(time_to_live) / 1000
        for name in names:
            queue = self.queues[name]
            queue.waiting.append(_Message(message.body, message.properties, expires_at))
            self.dispatch(queue, now)
        return bool(names)

    def dispatch(self, queue: _Queue, now: float) -> None:
        """Hand out what waits in *queue*, as far as its readers have room."""
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
        self._lock = Lock()
        self._brokers: dict[str, _Broker] = {}
        disown_in_child(self)

    def get(self, name: str) -> _Broker:
        with self._lock:
            return self._brokers.setdefault(name, _Broker())

    def _after_fork(self) -> None:
        """Begin anew without brokers, and with a lock that nobody holds; in a forked child."""
        self._lock = Lock()
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
        """Nothing to do: an exchange is the bindings that name it."""

    def declare_queue(self, binding: QueueBinding, arguments: dict[str, Any] | None = None) -> None:
        """Declare a queue and bind it to its exchange."""
        with self._broker.lock:
            self._broker.queues.setdefault(binding.queue, _Queue())
            bound = self._broker.bindings.setdefault(binding.route, [])
            if binding.queue not in bound:
                bound.append(binding.queue)

    def inspect_queue(self, queue: str) -> QueueState | None:
        """Return what waits in *queue*, and how many consumers it has; None if it is not there."""
        with self._broker.lock:
            found = self._broker.queues.get(queue)
            return QueueState(len(found.waiting), len(found.readers)) if found else None

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all that is in it; its consumers are told."""
        with self._broker.lock:
            queue = self._broker.queues.pop(name, None)
            for route, bound in list(self._broker.bindings.items()):
                if name in bound:
                    bound.remove(name)
                if not bound:
                    del self._broker.bindings[route]
            for reader in queue.readers if queue else ():
                reader.connection.report(Cancelled(reader.tag))

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
        """End a consumer; what it delivered can still be acknowledged."""
        with self._broker.lock:
            source, reader = self._readers[consumer.tag]
            if reader in source.readers:
                source.readers.remove(reader)

    def confirm(self, also_plain: bool = False) -> None:
        """Nothing to do: here a message is confirmed as soon as it is written."""

    def write(self, messages: Iterable[Publish]) -> None:
        """Publish *messages*; the fate of those that want a confirm comes as events."""
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
        """Have the broker drop a delivery."""
        self.acknowledge(tag)

    def _release(self, tag: int) -> _Queue:
        queue, reader, _ = self._unacknowledged.pop(tag)
        reader.unacknowledged -= 1
        return queue

    def deliver(self, queue: _Queue, reader: _Reader, message: _Message) -> None:
        """Take over a message; under the broker's lock, from any thread."""
        self._last_tag += 1
        if not reader.no_ack:
            self._unacknowledged[self._last_tag] = queue, reader, message
            reader.unacknowledged += 1
        size, limit = len(message.body), reader.max_bytes
        too_large = TooLarge(size, limit) if limit is not None and size > limit else None
        self.report(
            Delivery(
                b"" if too_large else message.body,
                self._last_tag,
                message.redelivered,
                message.properties,
                reader.tag,
                too_large,
            )
        )

    def report(self, event: Event) -> None:
        """Hand the owner an event; under the broker's lock, from any thread."""
        self._events.append(event)
        if self._waker is not None:
            self._waker.wake()

    def flush(self) -> bool:
        """Nothing waits here, ever."""
        return True

    def read(self) -> list[Event]:
        """Return what has come; does not wait for more."""
        with self._broker.lock:
            events = list(self._events)
            self._events.clear()
        return events

    def rest(self) -> None:
        """Do nothing: what comes to a thread that waits wakes it."""

    @property
    def rests(self) -> bool:
        """Never."""
        return False

    def wait(self, timeout: float | None, waker: Waker, read_delay: float = 0.0) -> None:
        """Wait up to *timeout* seconds for something to :meth:`read`, or until woken."""
        self._waker = waker  # from here on an event wakes us; one that came before is found below
        if not self._events:
            waker.wait(timeout)
        waker.clear()

    def take_events(self) -> list[Event]:
        """Return nothing: no connection is lost here."""
        return []

    def tick(self) -> float | None:
        """Nothing is due, ever."""
        return None

    @property
    def congested(self) -> bool:
        """True in a finalizer that runs in the middle of another message to the same broker."""
        return bool(self._broker.lock._is_owned())

    def take_unconfirmed(self) -> list[Publish]:
        """Nothing is open here, ever."""
        return []

    def detach(self) -> None:
        """Nothing to do: there is no descriptor."""

    def close(self) -> None:
        """Give back what is not acknowledged: first in its queue, marked redelivered."""
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
