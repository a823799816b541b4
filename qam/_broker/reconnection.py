"""Decides where and when a lost connection is opened again.  No I/O and no clock here."""

import random
from collections.abc import Sequence
from math import inf

from qam._broker.endpoint import Endpoint
from qam._common.deadline import backoff

#: Seconds to pause after the first failed attempt, and at most after any.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 1.0
#: Seconds.  A connection that is lost sooner counts as useless.
_SHORT_LIFE = 1.0
#: Seconds after which the same reason is logged as a warning again.
_REMINDER_DELAY = 60.0


class Reconnection:
    """Paces the attempts to connect, and chooses the endpoint to try first.

    :param endpoints: the endpoints, in the order in which they are tried.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        # How many endpoints were skipped so far; the first one to try follows from it.
        self._skipped = 0
        # When the last connection was opened; how many short-lived ones came one after the other.
        self._opened_at = 0.0
        self._short_lives = 0
        # Failed attempts since the last connection that was of use.
        self._failures = 0
        #: Why there is no connection; empty while there is one.
        self.reason = ""
        self._told_at = -inf

    def __str__(self) -> str:
        return " or ".join(map(str, self._endpoints))

    def candidates(self) -> list[Endpoint]:
        """Return all endpoints, the one to try first at the front."""
        first = self._skipped % len(self._endpoints)
        return [*self._endpoints[first:], *self._endpoints[:first]]

    def skip(self) -> None:
        """Begin the next attempt with the endpoint after the one that was the first."""
        self._skipped += 1

    def opened(self, now: float) -> None:
        """Note that a connection was opened at the time *now*."""
        self._opened_at = now

    def serves(self) -> None:
        """Note that the connection works, so that pauses start again from the shortest."""
        self._failures = 0
        self.reason = ""

    def is_news(self, reason: str, now: float) -> bool:
        """Note why there is no connection; return True if that is to be logged as a warning.

        Each new reason is, and the same one once a minute.
        """
        if reason == self.reason and now - self._told_at < _REMINDER_DELAY:
            return False
        self.reason, self._told_at = reason, now
        return True

    def pause_after_failure(self) -> float:
        """Return how many seconds to pause after a failed attempt: ever more, and random.

        Otherwise all clients of a broker that comes back would connect at the same moments.
        """
        jitter = random.uniform(0.5, 1.0)  # no secret  # nosec B311
        pause = backoff(self._failures, _FIRST_BACKOFF, _LONGEST_BACKOFF) * jitter
        self._failures += 1
        return pause

    def pause_after_loss(self, now: float) -> float:
        """Return how many seconds to pause after the loss of a connection.

        No pause, unless connections are lost soon after they were opened, one after the other.
        """
        if now >= self._opened_at + _SHORT_LIFE:
            self._short_lives = 0
            return 0.0
        self._short_lives += 1
        if self._short_lives == 1:
            return 0.0
        return backoff(self._short_lives - 1, _FIRST_BACKOFF, _LONGEST_BACKOFF)
