"""How many replies were given up, told once for all that went to the same client."""

import logging
from collections import Counter

from qam._common.rare_warnings import RareWarnings

#: Of how many clients that are gone it is told that they are, at once and in a minute.
_MAX_TOLD = 20


class DroppedReplies:
    """Counts the replies that were given up since it was last told.

    :param log: where it is told.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._warnings = RareWarnings(log, at_most=_MAX_TOLD + 1)
        # By where they were to go; None for all others, where they are many.
        self._numbers: Counter[str | None] = Counter()

    def count(self, routing_key: str) -> None:
        """A reply to *routing_key* was given up."""
        is_one_of_few = routing_key in self._numbers or len(self._numbers) < _MAX_TOLD
        self._numbers[routing_key if is_one_of_few else None] += 1

    def tell(self) -> None:
        """Log a warning for each client whose replies were given up."""
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
