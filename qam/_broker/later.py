"""Holds messages until the time at which they are to be sent.  No clock: times are passed in."""

import heapq
from itertools import count
from typing import Generic, Protocol, TypeVar


class _HasBody(Protocol):
    body: bytes


Item = TypeVar("Item", bound=_HasBody)


class Later(Generic[Item]):
    """Items, each with the time when it is due; items of the same time stay in their order."""

    def __init__(self) -> None:
        #: Bytes of the items' bodies.
        self.bytes = 0
        # A heap of the time, a tie-breaker and the item.
        self._items: list[tuple[float, int, Item]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item, due: float) -> None:
        """Keep *item* until the time *due*."""
        self.bytes += len(item.body)
        heapq.heappush(self._items, (due, next(self._numbers), item))

    def next_due(self) -> float | None:
        """Return the time when the first item is due; None if there is no item."""
        return self._items[0][0] if self._items else None

    def take_due(self, now: float) -> list[Item]:
        """Remove and return the items that are due, the earliest first."""
        due: list[Item] = []
        while self._items and self._items[0][0] <= now:
            item = heapq.heappop(self._items)[2]
            self.bytes -= len(item.body)
            due.append(item)
        return due

    def items(self) -> list[Item]:
        """Return all items, in no particular order."""
        return [item for _, _, item in self._items]
