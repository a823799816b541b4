"""The deadlines of callbacks.  No clock in here: the time comes in."""

import heapq
import math
from collections.abc import Container


class CallbackTimeouts:
    """The deadlines of callbacks, by uid; the next one first.

    The lock of the callback items guards them.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float:
        """The next deadline; infinite if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def add(self, uid: str, at: float) -> bool:
        """Add the deadline of *uid*, which is *at* that time; return True if it is the next one."""
        heapq.heappush(self._heap, (at, uid))
        return self._heap[0][1] == uid

    def take_expired(self, now: float) -> list[str]:
        """Take out the callbacks whose time is up, and return their uids."""
        past = []
        while self._heap and self._heap[0][0] <= now:
            past.append(heapq.heappop(self._heap)[1])
        return past

    def forget_finished(self, waiting: Container[str], number: int) -> None:
        """Forget the callbacks that do not wait any more, once they are in the majority.

        Most callbacks finish long before their timeout.  Forgetting them together costs a
        constant time for each.

        :param waiting: the *number* uids that wait.
        """
        if len(self._heap) > 2 * number + 64:
            heap = [each for each in self._heap if each[1] in waiting]
            heapq.heapify(heap)
            self._heap = heap  # last: Ctrl-C in between must leave a heap
