"""When the time of callbacks is up.  No clock in here: the time comes in."""

import heapq
import math
from collections.abc import Container


class CallbackTimeouts:
    """The times at which callbacks end, by uid; the next one first.

    The lock of the callback items guards it.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float:
        """When the next one is up; infinite if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def add(self, uid: str, at: float) -> bool:
        """The time of *uid* is up *at* that time; return True if that is the next one."""
        heapq.heappush(self._heap, (at, uid))
        return self._heap[0][1] == uid

    def take_past(self, now: float) -> list[str]:
        """Take out those whose time is up."""
        past = []
        while self._heap and self._heap[0][0] <= now:
            past.append(heapq.heappop(self._heap)[1])
        return past

    def forget_others(self, waiting: Container[str], number: int) -> None:
        """Forget those that do not wait any more, when they are the most.

        Most callbacks finish long before their timeout.  So each costs a constant time in
        the end.

        :param waiting: the *number* uids that wait.
        """
        if len(self._heap) > 2 * number + 64:
            self._heap = [each for each in self._heap if each[1] in waiting]
            heapq.heapify(self._heap)
