"""Holds requests that run again back until the requests that they replace are acknowledged.

A lost request is published anew as a new message, the old one is acknowledged, and the new one
runs when it is received.  Suppose that one server publishes the new request, receives it, and
dies of it before the broker has the ack of the old one.  Then the broker has both, and the
number of runs in the new one counts only half of them.  So the server waits for that ack.

Only the thread that receives the requests uses this.
"""

from collections import deque
from collections.abc import Iterable
from itertools import count

from qam._server.call import Call


class HeldBack:
    """The requests that wait for lost ones at hand, any of which may be published anew."""

    def __init__(self) -> None:
        # The lost requests at hand, oldest first, with their numbers.
        self._lost: dict[Call, int] = {}
        self._numbers = count()
        # The requests that wait, oldest first.  Each waits until no lost request with a smaller
        # number than its own is left.
        self._held: deque[tuple[Call, int]] = deque()
        # True while the broker may lack an ack of a lost request.
        self._in_doubt = False

    def begin(self, call: Call) -> None:
        """*call* is lost: its caller will be told so, or it will be published anew."""
        self._lost[call] = next(self._numbers)

    def end(self, calls: Iterable[Call]) -> None:
        """*calls* are settled, and their acks are about to be sent."""
        for call in calls:
            if call.lost and self._lost.pop(call, None) is not None:
                self._in_doubt = True

    def hold(self, call: Call) -> bool:
        """Keep *call*, and return True, if this server may have published it anew."""
        if call.runs == 1 or not (self._lost or self._in_doubt):
            return False
        self._held.append((call, next(self._numbers)))
        return True

    @property
    def ready(self) -> bool:
        """True if a request waits only for the broker to show that it has all acks."""
        return bool(self._held) and self._is_free(self._held[0][1])

    def _is_free(self, number: int) -> bool:
        return not self._lost or next(iter(self._lost.values())) > number

    def take_ready(self) -> list[Call]:
        """Return the requests that need not wait longer; the broker must have all acks by now."""
        self._in_doubt = False
        ready = []
        while self.ready:
            ready.append(self._held.popleft()[0])
        return ready

    def take_all(self) -> list[Call]:
        """Return all requests that wait: they are given back."""
        held, self._held = self._held, deque()
        return [call for call, _ in held]

    def lost_connection(self, not_started: Iterable[Call]) -> None:
        """Drop all requests that wait or are *not_started*: the broker delivers them again."""
        self._held.clear()
        self._in_doubt = False
        for call in not_started:
            self._lost.pop(call, None)
