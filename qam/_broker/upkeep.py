"""When what a connection needs is declared again, since somebody may have deleted it."""

import random
from math import inf

#: Seconds between two times.  They are shorter than the minute for which a server keeps a reply
#: that comes back.  Each differs at random by a part of them, so that many processes that were
#: started together do not all declare at once.
_INTERVAL, _SPREAD = 45.0, 0.2


class Upkeep:
    """Knows when the exchanges, queues and bindings of a connection are declared again.

    The broker does not tell that an exchange or a binding was deleted.  No I/O, no clock here.
    """

    def __init__(self) -> None:
        #: When they are declared again.
        self.due = inf

    def done(self, now: float) -> None:
        """They are declared."""
        by = random.uniform(1.0 - _SPREAD, 1.0 + _SPREAD)  # no secret  # nosec B311
        self.due = now + _INTERVAL * by
