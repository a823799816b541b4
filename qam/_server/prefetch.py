"""How many requests a server holds that it has not answered."""

from collections.abc import Iterable

#: Methods that average below this many seconds are short: more requests in hand make
#: them faster.  Above the second they are long: what waits had better wait in the
#: queue, where another server can take it.
_SHORT, _LONG = 0.005, 0.010
#: How many requests a server of short methods holds.
_MANY = 256
#: How many a server can hold at most: basic.qos has 16 bits for it.
MAX_PREFETCH = 2**16 - 1
#: How much the latest method counts in the average.
_WEIGHT = 0.05


class Prefetch:
    """Follows the work: as many as there are workers, more while methods are short.

    :param workers: how many methods can run at once.
    :param fixed: the prefetch, if it is not to follow anything.
    """

    def __init__(self, workers: int, fixed: int | None = None) -> None:
        self._workers = min(workers, MAX_PREFETCH)
        self._fixed = fixed
        self._average = _LONG
        #: What the prefetch should be now.
        self.wanted = fixed or self._workers

    def ran(self, times: Iterable[float]) -> None:
        """Methods took *times*, in seconds."""
        if self._fixed is not None:
            return
        for seconds in times:
            self._average += _WEIGHT * (seconds - self._average)
        if self._average < _SHORT:
            self.wanted = max(_MANY, self._workers)
        elif self._average > _LONG:
            self.wanted = self._workers
