"""Warnings of what others can make happen as often as they like."""

import logging
import time
from collections.abc import Callable

#: Seconds from one warning to the next.
_INTERVAL = 60.0


class RareWarnings:
    """Warns once a minute at most; the next warning says how many went before it unsaid.

    :param log: where.
    :param clock: seconds on a clock that only goes forward.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._warned_at: float | None = None
        self._unsaid = 0

    def warn(self, text: str, *args: object) -> None:
        """Warn in the way of :meth:`logging.Logger.warning`, or count it."""
        now = self._clock()
        if self._warned_at is not None and now - self._warned_at < _INTERVAL:
            self._unsaid += 1
            return
        self._warned_at, unsaid, self._unsaid = now, self._unsaid, 0
        if unsaid:
            text, args = f"{text} (and %d times more since the last warning)", (*args, unsaid)
        self._log.warning(text, *args)
