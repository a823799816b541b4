"""Counts the replies that were dropped, and logs one warning for each client."""

import logging
from collections import Counter

from qam._common.rare_warnings import RareWarnings

#: How many clients get a warning of their own, at once and in a minute.
_MAX_CLIENTS = 20


class DroppedReplies:
    """Counts the replies that were dropped since the last warnings.

    :param log: the logger for the warnings.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._warnings = RareWarnings(log, at_most=_MAX_CLIENTS + 1)
        # By routing key; None for all clients beyond the first few.
        self._numbers: Counter[str | None] = Counter()

    def count(self, routing_key: str) -> None:
        """Count a dropped reply to *routing_key*."""
        is_one_of_few = routing_key in self._numbers or len(self._numbers) < _MAX_CLIENTS
        self._numbers[routing_key if is_one_of_few else None] += 1

    def log_warnings(self) -> None:
        """Log a warning for each client whose replies were dropped, and begin to count anew."""
        for key, number in self._numbers.items():
            if key is None:
                self._warnings.warn(
                    "%d replies to other clients could not be delivered either", number
                )
            else:
                self._warnings.warn(
                    "%d replies could not be delivered: their client (%r) is gone", number, key
                )
        self._numbers.clear()
