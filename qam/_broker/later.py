"""What is to be sent at a later time.  No clock in here: the time comes in."""

import heapq
from itertools import count
from typing import Generic, Protocol, TypeVar


class _HasBody(Protocol):
    body: bytes


Item = TypeVar("Item", bound=_HasBody)


class Later(Generic[Item]):
    """Items that are to be sent at a time of their own; those of the same time in their order."""

    def __init__(self) -> None:
        #: Bytes in the bodies of what is kept.
        self.bytes = 0
        # A heap of when, a tie-breaker, and what.
        self._items: list[tuple[float, int, Item]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item, due: float) -> None:
        """Keep *item* until the time *due*."""
        self.bytes += len(item.body)
        heapq.heappush(self._items, (due, next(self._numbers), item))

    def next_due(self) -> float | None:
        """Return when the first item is due; None if there is none."""
        return self._items[0][0] if self._items else None

    def take_due(self, now: float) -> list[Item]:
        """Take out the items whose time has come, in its order."""
        due: list[Item] = []
        while self._items and self._items[0][0] <= now:
            item = heapq.heappop(self._items)[2]
            self.bytes -= len(item.body)
            due.append(item)
        return due

    def items(self) -> list[Item]:
        """Return all that is kept, in no order."""
        return [item for _, _, item in self._items]
