"""Decides when a queue that the broker does not speak of counts as down.  No I/O here.

Before RabbitMQ 4 the broker said so when the node of a classic queue was down.  Since then it waits
for that node, for a minute, and so does whoever declares the queue, or consumes from it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from qam.exceptions import QAMConnectionException

#: So many attempts in a row have to end without an answer: a busy broker may be late once.
_ENOUGH = 2
#: Seconds after which a queue that is down is asked about once more.
_REST = 300.0


class Silence:
    """Counts the attempts to open a queue that the broker did not answer."""

    def __init__(self) -> None:
        self._unanswered = 0
        self._asked_at = 0.0

    @property
    def rests(self) -> bool:
        """True while the queue is down and is not to be asked about: that costs the connection."""
        return self.is_down and time.monotonic() < self._asked_at + _REST

    @property
    def is_down(self) -> bool:
        """True if the queue is to be taken for one whose node is down."""
        return self._unanswered >= _ENOUGH

    def forget(self) -> None:
        """Begin to count anew: another queue is tried."""
        self._unanswered = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Make an attempt to open the queue, on a connection that has answered before."""
        try:
            yield
        except QAMConnectionException as error:
            # One that was down stays so: while a connection is in use, its loss has no such mark.
            is_silent = error.unanswered or self.is_down
            self._unanswered = self._unanswered + 1 if is_silent else 0
            self._asked_at = time.monotonic()
            raise
        self._unanswered = 0
