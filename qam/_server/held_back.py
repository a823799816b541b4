"""Requests that run again, until what they replace is acknowledged.

A request that may have ended the server that had it is published anew, acknowledged, and
runs again when it is received so.  If the server that did that received the new one, and
died of it before the broker had the ack of the old one, the broker would have both: the
number of runs in the new one would count no more than half of them.

It belongs to the thread that receives the requests.
"""

from collections import deque
from collections.abc import Iterable
from itertools import count

from qam._server.call import Call


class HeldBack:
    """What waits for requests at hand that are lost, any of which may be published anew."""

    def __init__(self) -> None:
        # Those at hand that are lost, oldest first, with their numbers.
        self._lost: dict[Call, int] = {}
        self._numbers = count()
        # What waits, in the order in which it came, with the number up to which it waits.
        self._held: deque[tuple[Call, int]] = deque()
        # The broker may not have all acks of what was lost.
        self._in_doubt = False

    def begin(self, call: Call) -> None:
        """*call* is lost: it is going to be answered so, or published anew."""
        self._lost[call] = next(self._numbers)

    def end(self, calls: Iterable[Call]) -> None:
        """*calls* are settled, and their acks are about to be sent."""
        for call in calls:
            if call.lost and self._lost.pop(call, None) is not None:
                self._in_doubt = True

    def hold(self, call: Call) -> bool:
        """Return True, and keep *call*, if it may be one that this server has published anew."""
        if call.runs == 1 or not (self._lost or self._in_doubt):
            return False
        self._held.append((call, next(self._numbers)))
        return True

    @property
    def ready(self) -> bool:
        """True if something waits only for the broker to be asked whether it has the acks."""
        return bool(self._held) and self._is_free(self._held[0][1])

    def _is_free(self, number: int) -> bool:
        return not self._lost or next(iter(self._lost.values())) > number

    def take_ready(self) -> list[Call]:
        """Return what waits no more; to be called when the broker is known to have all acks."""
        self._in_doubt = False
        ready = []
        while self.ready:
            ready.append(self._held.popleft()[0])
        return ready

    def take_all(self) -> list[Call]:
        """Return all that waits: it is given back."""
        held, self._held = self._held, deque()
        return [call for call, _ in held]

    def lost_connection(self, not_started: Iterable[Call]) -> None:
        """What waits is void, as what was *not_started*: the broker delivers it again."""
        self._held.clear()
        self._in_doubt = False
        for call in not_started:
            self._lost.pop(call, None)
