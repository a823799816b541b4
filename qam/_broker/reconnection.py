"""Where and when a lost connection is opened again.  No I/O and no clock here."""

import random
from collections.abc import Sequence

from qam._broker.endpoint import Endpoint
from qam._common.deadline import backoff

#: Seconds before the second, and at most before any, attempt to connect again.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 1.0
#: Seconds after which a connection is known to be of use.
_SHORT_LIFE = 1.0


class Reconnection:
    """Paces the attempts to connect, and says which host is the next.

    :param endpoints: where to connect, in the order in which that is tried.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        # How many of them are passed over at first.
        self._skipped = 0
        # When the last connection was opened; how many before it did not last.
        self._opened_at = 0.0
        self._short_lives = 0
        # Attempts since the last connection that could be opened.
        self._failures = 0

    def __str__(self) -> str:
        return " or ".join(map(str, self._endpoints))

    def candidates(self) -> list[Endpoint]:
        """All endpoints, the one to be tried first at the front."""
        first = self._skipped % len(self._endpoints)
        return [*self._endpoints[first:], *self._endpoints[:first]]

    def skip(self) -> None:
        """The endpoint that was the first did not serve: begin with the one behind it."""
        self._skipped += 1

    def opened(self, now: float) -> None:
        """The broker is reached."""
        self._opened_at = now

    def serves(self) -> None:
        """The connection is declared to be of use; the next attempt begins from the start."""
        self._failures = 0

    def pause_after_failure(self) -> float:
        """Return how many seconds to wait once an attempt has failed: ever more, and by chance.

        Else all clients of a broker that comes back would connect at the same moments.
        """
        jitter = random.uniform(0.5, 1.0)  # no secret  # nosec B311
        pause = backoff(self._failures, _FIRST_BACKOFF, _LONGEST_BACKOFF) * jitter
        self._failures += 1
        return pause

    def pause_after_loss(self, now: float) -> float:
        """Return how many seconds to wait once a connection is lost.

        None, except where one after the other is of no use although each can be opened.
        """
        if now >= self._opened_at + _SHORT_LIFE:
            self._short_lives = 0
            return 0.0
        self._short_lives += 1
        if self._short_lives == 1:
            return 0.0
        return backoff(self._short_lives - 1, _FIRST_BACKOFF, _LONGEST_BACKOFF)
