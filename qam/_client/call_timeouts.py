"""The deadlines of calls for which no caller waits.  No clock in here: the time comes in."""

import heapq
import math
from collections.abc import Callable


class CallTimeouts:
    """The deadlines of calls, by the ids of these on the wire; the next one first.

    The lock of the callback items guards them.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float:
        """The next deadline; infinite if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def add(self, call_id: int, at: float) -> bool:
        """Add the deadline of a call, which is *at* that time; return True if it is the next."""
        heapq.heappush(self._heap, (at, call_id))
        return self._heap[0][1] == call_id

    def take_expired(self, now: float) -> list[int]:
        """Take out the calls whose time is up, and return their ids."""
        past = []
        while self._heap and self._heap[0][0] <= now:
            past.append(heapq.heappop(self._heap)[1])
        return past

    def forget_ended(self, is_open: Callable[[int], bool], number: int) -> None:
        """Forget the calls that have ended, once they are in the majority.

        Most calls end long before their timeout.  Forgetting them together costs a constant
        time for each.

        :param is_open: whether a call has not ended; *number* calls have not.
        """
        if len(self._heap) > 2 * number + 64:
            heap = [each for each in self._heap if is_open(each[1])]
            heapq.heapify(heap)
            self._heap = heap  # last: Ctrl-C in between must leave a heap
