"""Limits warnings about events that a peer can cause as often as it likes."""

import logging
import time
from collections.abc import Callable
from math import inf

from qam._common.own_locks import own_lock

_MINUTE = 60.0  # seconds


class RareWarnings:
    """Logs a few warnings a minute; the next one says how many were left out before it.

    Any thread may warn.

    :param log: the logger that gets the warnings.
    :param clock: returns seconds on a monotonic clock.
    :param at_most: how many warnings are logged a minute.
    """

    def __init__(
        self,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        at_most: int = 1,
    ) -> None:
        self._log = log
        self._clock = clock
        self._at_most = at_most
        # Guards the three below.  Reentrant, because a finalizer that warns may run inside.
        self._lock = own_lock()
        self._minute_began_at = -inf
        self._said = 0
        self._left_out = 0

    def warn(self, text: str, *args: object) -> None:
        """Log a warning like :meth:`logging.Logger.warning`, or count it as left out."""
        left_out = self._left_out_before()
        if left_out is None:
            return
        if left_out:
            text, args = f"{text} (and %d times more since the last warning)", (*args, left_out)
        self._log.warning(text, *args, stacklevel=2)

    def _left_out_before(self) -> int | None:
        """Return how many warnings were left out before this one; None to leave it out, too."""
        now = self._clock()
        with self._lock:
            if now - self._minute_began_at >= _MINUTE:
                self._minute_began_at, self._said = now, 0
            if self._said >= self._at_most:
                self._left_out += 1
                return None
            self._said += 1
            left_out, self._left_out = self._left_out, 0
            return left_out
