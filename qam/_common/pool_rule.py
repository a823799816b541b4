"""Decides when a pool of threads has to grow.  No clock here: the times are passed in."""

import math


class PoolRule:
    """Another thread starts when a job has waited for an idle thread for some time.

    So a job that blocks delays other jobs by no more than that time, and many quick jobs are
    done by the few threads that are awake anyway.

    :param delay: seconds that a job waits for a busy thread before another thread starts.
    :param many: from so many threads on, the delay grows with their number: more threads
        make so many merely slow jobs no faster.
    """

    def __init__(self, delay: float, many: int) -> None:
        self._delay = delay
        self._many = many
        self._last_start = -math.inf

    def started(self, now: float) -> None:
        """Take note that a thread was started, or that an attempt to start one failed."""
        self._last_start = now

    def next_start(self, waiting_since: float | None, threads: int) -> float:
        """Return when another thread has to start, unless a thread becomes idle before.

        :param waiting_since: when the oldest job came that has no idle thread; None if each
            job has one.
        :param threads: how many threads there are.
        :returns: a time; infinite if no thread has to start.
        """
        if waiting_since is None:
            return math.inf
        if not threads and self._last_start < waiting_since:
            return waiting_since
        delay = self._delay * max(1.0, threads / self._many)
        return max(waiting_since, self._last_start) + delay
