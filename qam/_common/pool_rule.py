"""When a pool of threads has to grow.  No clock in here: the times come in."""

import math


class PoolRule:
    """Another thread starts when a job has found no idle one for some time.

    A job that blocks delays another by no more than that; and many quick ones are done by
    the few threads that are awake anyway.

    :param delay: seconds that a job waits for a thread that is at work.
    :param many: from so many threads on the delay grows with their number: that many jobs
        that are merely slow get no faster by more threads.
    """

    def __init__(self, delay: float, many: int) -> None:
        self._delay = delay
        self._many = many
        self._last_start = -math.inf

    def started(self, now: float) -> None:
        """A thread was started, or was tried to be."""
        self._last_start = now

    def next_start(self, waiting_since: float | None, threads: int) -> float:
        """Return when another thread has to start, if none becomes idle before.

        :param waiting_since: when the oldest job came that no idle thread is there for; None
            if there is none.
        :param threads: how many there are.
        :returns: a time; infinite if none has to start.
        """
        if waiting_since is None:
            return math.inf
        if not threads and self._last_start < waiting_since:
            return waiting_since
        delay = self._delay * max(1.0, threads / self._many)
        return max(waiting_since, self._last_start) + delay
