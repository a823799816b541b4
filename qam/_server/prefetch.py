"""How many unacknowledged requests the broker delivers to a server."""

from collections.abc import Iterable

#: Methods that take less than _SHORT seconds on average are short: a larger prefetch makes
#: their calls faster.  Above _LONG seconds they are long: their requests had better wait in
#: the queue, where another server can take them.
_SHORT, _LONG = 0.005, 0.010
#: The prefetch of a server of short methods.
_MANY = 256
#: The largest prefetch: basic.qos has 16 bits for it.
MAX_PREFETCH = 2**16 - 1
#: The weight of the latest method in the average.
_WEIGHT = 0.05


class Prefetch:
    """Computes the prefetch: the number of workers, or more while methods are short.

    :param workers: how many methods can run at once.
    :param fixed: the prefetch, if it must not change.
    """

    def __init__(self, workers: int, fixed: int | None = None) -> None:
        self._workers = min(workers, MAX_PREFETCH)
        self._fixed = fixed
        self._average = _LONG
        self._own = fixed or self._workers
        #: How many deliveries are kept that need no worker; they take no room from others.
        self.kept = 0

    @property
    def wanted(self) -> int:
        """What the prefetch should be now.

        Room for what is kept is made in large steps: each step is another consumer.
        """
        step = min(self._own, self._workers)
        steps = -(-self.kept // step)
        return min(self._own + steps * step, MAX_PREFETCH)

    def adapt(self, times: Iterable[float]) -> None:
        """Adapt the prefetch to methods that took *times*, in seconds."""
        if self._fixed is not None:
            return
        for seconds in times:
            self._average += _WEIGHT * (seconds - self._average)
        if self._average < _SHORT:
            self._own = max(_MANY, self._workers)
        elif self._average > _LONG:
            self._own = self._workers
