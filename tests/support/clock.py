"""A clock that a test moves on, so that nobody has to wait for time to pass."""

import math
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


class MovableClock:
    """Called, it tells the time as time.monotonic does, and what it was moved on besides.

    It goes on by itself too: who waits with a real timeout until this clock's deadline must
    not wait for ever. Moving it wakes nobody up.
    """

    def __init__(self) -> None:
        self._ahead = 0.0  # seconds

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self._ahead += seconds


class StandingClock:
    """Tells about the time that time.monotonic told when it was made, until a test moves it on.

    For what never waits with a real timeout until this clock's time.
    """

    def __init__(self) -> None:
        self.now: float = math.floor(time.monotonic())  # so that whole seconds later are exact

    def __call__(self) -> float:
        return self.now


class _Time:
    """The module `time`, with another monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.monotonic = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def move(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> MovableClock:
    """Give *module*, which says `import time`, a clock of its own to go by in this test.

    Threads that the module has started read it as well, from their next look at the time.
    """
    clock = MovableClock()
    monkeypatch.setattr(module, "time", _Time(clock))
    return clock


def stop(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> StandingClock:
    """Give *modules*, which say `import time`, one clock that stands still in this test."""
    clock = StandingClock()
    for module in modules:
        monkeypatch.setattr(module, "time", _Time(clock))
    return clock
