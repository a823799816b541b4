"""Pipelining for libraries whose calls return a handle that can only be waited on."""

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from tests.benchmarks.contract import check

Handle = TypeVar("Handle")


def pipeline(
    begin: Callable[[], Handle], wait: Callable[[Handle], int], calls: int, outstanding: int
) -> None:
    """A sliding window: whenever the oldest call has come back, the next one goes out."""
    handles = deque(begin() for _ in range(min(calls, outstanding)))
    for _ in range(calls - len(handles)):
        check(wait(handles.popleft()))
        handles.append(begin())
    for handle in handles:
        check(wait(handle))
