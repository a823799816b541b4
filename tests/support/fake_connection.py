"""A connection that a test leads: it says what the broker sends, and when its owner goes on.

The owner is a real thread, but owner and test never run at the same time.  The owner takes its
turns while the test waits in `settle`, and then waits in its connection, where it stays until the
test settles again.  So nothing here depends on how fast anything is: what was not done when
`settle` returns will not be done as long as nothing else happens.
"""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from qam._broker.connection import QueueIsDown
from qam._broker.connection_thread import ConnectionThread
from qam._broker.endpoint import Endpoint
from qam._broker.events import Confirmed, Consumer, Event, Refused, Returned
from qam._broker.messages import Publish, QueueBinding, QueueState
from qam._broker.waker import Waker
from qam.exceptions import QAMConnectionException
from tests.support.clock import StandingClock

_LONG = 30.0  # seconds; nothing takes that long unless it is broken
#: Turns after which an owner is taken to go on for ever although nothing happens.
_MANY_TURNS = 30


class FakeConnection:
    """One connection of a `FakeBroker`; keeps what its owner asked for, in order."""

    def __init__(self, broker: "FakeBroker", number: int) -> None:
        self._broker = broker
        self.number = number
        #: What was declared, consumed, inspected, …: the name of the method and of its thing.
        self.asked: list[tuple[str, Any]] = []
        #: The messages that were handed over, those that were sent, and those of them that wait
        #: for their fate.
        self.handed_over: list[Publish] = []
        self.written: list[Publish] = []
        self.unconfirmed: list[Publish] = []
        #: The acknowledgements that were sent, as pairs of tag and multiple, and what was rejected.
        self.acknowledged: list[tuple[int, bool]] = []
        self.rejected: list[int] = []
        #: The tag of the last one that was handed over, at each inspection of a queue.
        self.last_acks_at_inspections: list[int] = []
        self._last_ack = 0
        #: What the broker sends before it answers the next inspection of a queue.
        self.comes_with_inspection: list[Event] = []
        #: What the broker has sent and the owner has not read.
        self.events: list[Event] = []
        #: Why it is lost, if it is.
        self.error: QAMConnectionException | None = None
        #: Seconds that the owner last wanted to wait, and might leave events unread.
        self.wait_time: float | None = None
        self.read_delay = 0.0
        #: How often the owner waited.
        self.waits = 0
        self.congested = self.rests = self.closed = False
        #: Until what is due for the connection itself, in seconds.
        self.next_tick: float | None = None
        # What was handed over and not flushed.
        self._to_send: list[Callable[[], None]] = []

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _ask(self, what: str, thing: Any) -> None:
        self._check()
        self.asked.append((what, thing))

    # --- what an owner does -----------------------------------------------------

    def declare_exchange(self, name: str) -> None:
        self._ask("declare exchange", name)

    def declare_queue(self, binding: QueueBinding, arguments: dict[str, Any] | None = None) -> None:
        self._ask("declare queue", binding.queue)
        if binding.queue in self._broker.queues_down:
            raise QueueIsDown(f"the node that has {binding.queue} is down")

    def inspect_queue(self, queue: str) -> QueueState | None:
        self._ask("inspect", queue)
        if queue in self._broker.queues_silent:
            failure = QAMConnectionException("no answer")
            failure.unanswered = True
            raise failure
        self.last_acks_at_inspections.append(self._last_ack)
        arrived, self.comes_with_inspection = self.comes_with_inspection, []
        self.events += arrived
        own = sum(asked == ("consume", queue) for asked in self.asked)
        own -= sum(tag.startswith(f"{queue} ") for tag in self.did("cancel"))
        return self._broker.queue_states.get(queue, QueueState(0, own))

    def has_queue(self, name: str) -> bool:
        self._ask("has queue", name)
        return name in self._broker.queue_states

    def unbind_queue(self, binding: QueueBinding) -> None:
        self._ask("unbind", binding.queue)

    def delete_queue(self, name: str) -> None:
        self._ask("delete", name)

    def delete_exchange(self, name: str) -> None:
        self._ask("delete exchange", name)

    def consume(
        self,
        queue: str,
        prefetch: int = 0,
        priority: int = 0,
        no_ack: bool = False,
        max_bytes: int | None = None,
    ) -> Consumer:
        self._ask("consume", queue)
        self._broker.consumed.append((queue, prefetch, priority))
        return Consumer(queue, f"{queue} {len(self._broker.consumed)}")

    def cancel(self, consumer: Consumer) -> None:
        self._ask("cancel", consumer.tag)

    def confirm(self, also_plain: bool = False) -> None:
        self._ask("confirm", also_plain)

    def write(self, messages: Iterable[Publish]) -> None:
        self._check()
        for message in messages:
            self.handed_over.append(message)
            self._to_send.append(partial(self.written.append, message))
            if message.confirm:
                self.unconfirmed.append(message)

    def acknowledge(self, tag: int, multiple: bool = False) -> None:
        self._check()
        self._last_ack = tag
        self._to_send.append(partial(self.acknowledged.append, (tag, multiple)))

    def reject(self, tag: int) -> None:
        self._check()
        self._to_send.append(partial(self.rejected.append, tag))

    def flush(self) -> bool:
        self._check()
        if self.congested:
            return not self._to_send
        to_send, self._to_send = self._to_send, []
        for send in to_send:
            send()
        return True

    def read(self) -> list[Event]:
        self.rests = False
        self._check()
        return self.take_events()

    def wait(self, timeout: float | None, waker: Waker, read_delay: float = 0.0) -> None:
        self.wait_time, self.read_delay = timeout, read_delay
        self.waits += 1
        due = None if timeout is None else self._broker.clock() + timeout
        congested = self.congested

        def has_reason() -> bool:
            return bool(
                waker._awake
                or self.error
                or (self.events and not self.rests)
                or (due is not None and due <= self._broker.clock())
                or (congested and not self.congested)
            )

        self._broker.owner_waits(has_reason)
        waker.clear()

    def rest(self) -> None:
        self.rests = True

    def take_events(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def tick(self) -> float | None:
        return self.next_tick

    def take_unconfirmed(self) -> list[Publish]:
        messages, self.unconfirmed = self.unconfirmed, []
        return messages

    def close(self) -> None:
        self.closed = True

    def detach(self) -> None:
        self.closed = True

    # --- what a broker does -------------------------------------------------------

    def send(self, *events: Event) -> None:
        """The broker sends *events*."""
        self.events += events

    def confirm_messages(self, *messages: Publish) -> None:
        """The broker takes *messages*."""
        self._settle(*messages)
        self.send(Confirmed(list(messages)))

    def refuse(self, message: Publish) -> None:
        self._settle(message)
        self.send(Refused(message))

    def send_back(self, message: Publish) -> None:
        self._settle(message)
        self.send(Returned(message))

    def _settle(self, *messages: Publish) -> None:
        for message in messages:
            self.unconfirmed.remove(message)

    def lose(self, error: QAMConnectionException | None = None) -> None:
        """The connection is lost."""
        self.error = error or QAMConnectionException("the connection was lost")

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of what was sent."""
        return [message.body for message in self.written]

    def did(self, what: str) -> list[Any]:
        """The things that *what* was done with."""
        return [thing for done, thing in self.asked if done == what]


class FakeBroker:
    """Opens the connections of one owner; its `connect` is what the owner is given."""

    def __init__(self, clock: StandingClock) -> None:
        self.clock = clock
        self.connections: list[FakeConnection] = []
        #: Why nobody can connect, if that is so; and how often it was tried.
        self.down: QAMConnectionException | None = None
        self.attempts = 0
        #: The queues whose node is down; what an inspection finds; who consumed from which queue.
        self.queues_down: set[str] = set()
        #: The queues about which it does not answer.
        self.queues_silent: set[str] = set()
        self.queue_states: dict[str, QueueState | None] = {}
        #: Queue, prefetch and priority of all consumers, in their order.
        self.consumed: list[tuple[str, int, int]] = []
        self._changed = threading.Condition()
        # Why the owner would go on, while it waits; whether it may; whether it always may.
        self._has_reason: Callable[[], bool] | None = None
        self._goes_on = self._runs_freely = False
        self._owner: ConnectionThread | None = None

    @property
    def connection(self) -> FakeConnection:
        """The last one that was opened."""
        return self.connections[-1]

    def connect(self, endpoint: Endpoint, timeout: float) -> FakeConnection:
        with self._changed:
            self.attempts += 1
            self._changed.notify_all()
            if self.down is not None:
                raise self.down
            self.connections.append(FakeConnection(self, len(self.connections)))
        return self.connection

    def owner_waits(self, has_reason: Callable[[], bool]) -> None:
        """The owner waits, until the test lets it go on."""
        with self._changed:
            self._has_reason, self._goes_on = has_reason, False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._goes_on or self._runs_freely)
            self._has_reason = None

    # --- for the test -------------------------------------------------------------

    def run(self, owner: ConnectionThread) -> None:
        """Start *owner*, and let it do all that is to do at first."""
        self._owner = owner
        owner.start()
        self.settle()

    def settle(self) -> None:
        """Let the owner go on until it waits for something that has not happened, or has ended."""
        for _ in range(_MANY_TURNS):
            has_reason = self._owner_at_rest()
            if has_reason is None or not has_reason():
                return
            with self._changed:
                self._has_reason, self._goes_on = None, True
                self._changed.notify_all()
        raise AssertionError("the owner goes on and on although nothing happens")

    def _owner_at_rest(self) -> Callable[[], bool] | None:
        """Wait until the owner waits; return why it would go on, None if it has ended."""
        assert self._owner is not None
        with self._changed:
            while self._has_reason is None and self._owner.is_alive():
                # Its end notifies nobody.
                self._changed.wait(0.01)
            return self._has_reason

    def let_pass(self, seconds: float) -> None:
        """Let so much time pass; the owner does what is due by then."""
        self.clock.now += seconds
        self.settle()

    def tag(self, queue: str) -> str:
        """The tag of the last consumer of a queue whose name begins so."""
        numbers = [n for n, (name, *_) in enumerate(self.consumed, 1) if name.startswith(queue)]
        return f"{self.consumed[numbers[-1] - 1][0]} {numbers[-1]}"

    def wait_for_attempts(self, number: int) -> None:
        """Wait until it was tried so often in all to connect."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.attempts >= number, _LONG)

    def end(self) -> None:
        """End the owner, if it has not ended."""
        if self._owner is None:
            return
        self._owner.ask_to_stop()
        self.run_freely()
        self._owner.join(_LONG)
        assert not self._owner.is_alive()

    def run_freely(self) -> None:
        """Let the owner go on for good."""
        with self._changed:
            self._runs_freely = True
            self._changed.notify_all()
