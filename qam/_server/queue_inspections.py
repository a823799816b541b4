"""When a server inspects the request queue, to learn of its other consumers.  No I/O here."""

from math import inf

#: Seconds between two inspections of the request queue: while something has to be found out,
#: and while the only reason is that a sibling might have died.
_INTERVAL, _CALM_INTERVAL = 1.0, 10.0
#: Seconds between two inspections if a sibling has begun to consume meanwhile.
_SHORTEST_INTERVAL = 0.05


class QueueInspections:
    """Knows when the last inspection was, and when the next is due."""

    def __init__(self) -> None:
        self._last = -inf
        self._has_news = False

    def hasten(self) -> None:
        """Inspect soon: a sibling has begun to consume, so there is one more known consumer."""
        self._has_news = True

    def done(self, now: float) -> None:
        """The queue was inspected."""
        self._last, self._has_news = now, False

    def next_due(self, calm: bool) -> float:
        """Return when the next inspection is due.

        :param calm: True if nothing has to be found out.
        """
        if self._has_news:
            return self._last + _SHORTEST_INTERVAL
        return self._last + (_CALM_INTERVAL if calm else _INTERVAL)
