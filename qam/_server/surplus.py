"""Decides when a server leaves requests to others, since it can't start them.  No I/O, no clock."""

from math import inf

#: Seconds for which a request waits for a worker before it is left to another server.
_PATIENCE = 1.0
#: Seconds between two times at which that is considered.
_INTERVAL = 10.0


class Surplus:
    """Knows when to look at the requests that wait for workers."""

    def __init__(self) -> None:
        self._looked_at = -inf

    def next_look(self, waiting_since: float | None) -> float:
        """Return when to look at them; infinite for never.

        :param waiting_since: when the oldest request came that has no worker; None if all have.
        """
        if waiting_since is None:
            return inf
        return max(waiting_since + _PATIENCE, self._looked_at + _INTERVAL)

    def looked(self, now: float) -> None:
        """They were looked at, whatever came of it."""
        self._looked_at = now

    def looked_long_ago(self) -> None:
        """Look again as soon as one has waited for long enough."""
        self._looked_at = -inf
