"""Warnings of what others can make happen as often as they like."""

import logging
import threading
import time
from collections.abc import Callable
from math import inf

_MINUTE = 60.0  # seconds


class RareWarnings:
    """Warns a few times a minute; the next warning says how many were left out before it.

    Any thread may warn.

    :param log: where.
    :param clock: seconds on a clock that only goes forward.
    :param at_most: how many warnings a minute has.
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
        # Guards the three below; reentrant, as a finalizer may warn in the middle.
        self._lock = threading.RLock()
        self._minute_began_at = -inf
        self._said = 0
        self._left_out = 0

    def warn(self, text: str, *args: object) -> None:
        """Warn in the way of :meth:`logging.Logger.warning`, or count it."""
        left_out = self._left_out_before()
        if left_out is None:
            return
        if left_out:
            text, args = f"{text} (and %d times more since the last warning)", (*args, left_out)
        self._log.warning(text, *args, stacklevel=2)

    def _left_out_before(self) -> int | None:
        """Return how many warnings were left out before this one; None if it is itself."""
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
