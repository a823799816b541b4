"""Time, chance and wakers that belong to a story: no thread, no socket, no clock of the machine."""

import heapq
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import qam._broker.connection_thread
import qam._broker.publishing_thread
import qam._broker.reconnection
import qam._broker.upkeep
import qam._client.consumer_thread
import qam._client.publisher_thread
import qam._client.result_list
import qam._common.deadline
import qam._server.execute_method_thread
import qam._server.mailboxes
import qam._server.publisher_thread
import qam._server.request_consumer_thread

Act = Callable[[], None]

#: When every story begins; the monotonic clock of a machine does not stand at 0 either.
BEGINNING = 1000.0

# Nothing that comes to an end takes as many events.
_MOST_EVENTS = 200_000

# The modules of the library that read the monotonic clock.
_TELL_THE_TIME = (
    qam._broker.connection_thread,
    qam._broker.publishing_thread,
    qam._client.consumer_thread,
    qam._client.publisher_thread,
    qam._common.deadline,
    qam._server.execute_method_thread,
    qam._server.publisher_thread,
    qam._server.request_consumer_thread,
)


class Schedule:
    """What is going to happen, and the time, which jumps from one event to the next.

    What happens at the same time happens in the order in which it was scheduled.
    """

    def __init__(self) -> None:
        self.now = BEGINNING
        self._events: list[tuple[float, int, Act]] = []
        self._numbers = count()

    def at(self, when: float, act: Act) -> None:
        """Have *act* happen at the time *when*, or now if that is over."""
        heapq.heappush(self._events, (max(when, self.now), next(self._numbers), act))

    def after(self, seconds: float, act: Act) -> None:
        self.at(self.now + seconds, act)

    def run(self, until: float) -> None:
        """Let everything happen that is due up to the time *until*."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, number, act = heapq.heappop(events)
            if number > _MOST_EVENTS:
                raise RuntimeError("the story goes round in circles")
            act()
        self.now = until


class VirtualWaker:
    """Stands for the waker of a thread: whoever drives that thread is called at once."""

    def __init__(self) -> None:
        self.on_wake: Act = _nobody
        self.is_in_use_here = False

    def wake(self) -> None:
        self.on_wake()

    def clear(self) -> None: ...

    def close(self) -> None:
        self.on_wake = _nobody


def _nobody() -> None:
    """The thread does not run yet, or not any more."""


def drawn(*names: object) -> random.Random:
    """Chance that is the same each time, and other for others."""
    return random.Random("/".join(map(str, names)))


@contextmanager
def virtual(schedule: Schedule, seed: object, connect: Callable[..., Any]) -> Iterator[None]:
    """Have the library live in a story meanwhile.

    :param connect: stands for what opens a connection to the first broker that takes one.
    """
    names = count(1)
    time = SimpleNamespace(monotonic=lambda: schedule.now)
    uuid = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"instance-{next(names)}"))
    chance = drawn(seed, "library")
    randomness = SimpleNamespace(uniform=chance.uniform, SystemRandom=lambda: chance)
    patches: list[tuple[Any, str, Any]] = [
        *((module, "time", time) for module in _TELL_THE_TIME),
        (qam._server.request_consumer_thread, "uuid", uuid),
        (qam._broker.reconnection, "random", randomness),
        (qam._broker.upkeep, "random", randomness),
        (qam._client.result_list, "random", randomness),
        (qam._broker.connection_thread, "Waker", VirtualWaker),
        (qam._server.mailboxes, "Waker", VirtualWaker),
        (qam._broker.connection_thread, "connect_first", connect),
    ]
    with ExitStack() as stack:
        for module, name, value in patches:
            stack.enter_context(patch.object(module, name, value))
        stack.enter_context(_silence())
        yield


@contextmanager
def _silence() -> Iterator[None]:
    """A thousand lost connections are no news; what is logged as an error is, see `Owner`."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
