"""How many replies were given up, told once for all that went to the same client."""

import logging
from collections import Counter

#: Of how many clients that are gone it is told at once that they are.
_MAX_TOLD = 20


class DroppedReplies:
    """Counts the replies that were given up since it was last told.

    :param log: where it is told.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
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
                self._log.warning(
                    "%d replies to other clients could not be delivered either", number
                )
            else:
                self._log.warning(
                    "%d replies could not be delivered: their client (%r) is gone", number, key
                )
        self._numbers.clear()
