"""When a server inspects the request queue, to learn who else consumes from it.  No I/O here."""

from math import inf

#: Seconds between two inspections of the request queue, while there is a reason for them; and
#: while there is none but that one of the others might have died.
_INTERVAL, _CALM_INTERVAL = 1.0, 10.0
#: Seconds from one inspection to the next where a sibling asks for it by what it says.
_SHORTEST_INTERVAL = 0.05


class QueueInspections:
    """When the last one was, and when the next is due."""

    def __init__(self) -> None:
        self._last = -inf
        self._has_news = False

    def hasten(self) -> None:
        """A sibling has begun to consume: there is one more to count on."""
        self._has_news = True

    def done(self, now: float) -> None:
        """The queue is inspected."""
        self._last, self._has_news = now, False

    def next_due(self, calm: bool) -> float:
        """When the next one is due.

        :param calm: nothing has to be found out.
        """
        if self._has_news:
            return self._last + _SHORTEST_INTERVAL
        return self._last + (_CALM_INTERVAL if calm else _INTERVAL)
