"""The requests without a correlation id that ended recently.  No I/O and no clock here."""

from collections import OrderedDict
from collections.abc import Iterable

from qam._protocol.correlation import CallKey
from qam._server.call import Call

#: Seconds for which the broker may lose an ack that it received, if it is killed.
_UNSAFE = 5.0


class AnonymousCalls:
    """The requests of 0.2.x clients that have ended, while the broker may lack their acks.

    They are recognized by their bodies.  A redelivered copy that arrives while the broker may
    lack the ack is the same request.  One that arrives later is another request with the same
    arguments.
    """

    def __init__(self) -> None:
        # When each request ended, by key, oldest first.
        self._ended: OrderedDict[CallKey, float] = OrderedDict()

    def end(self, calls: Iterable[Call], now: float) -> None:
        """Note the anonymous ones of *calls*, which have ended."""
        for call in calls:
            if call.is_anonymous:
                self._ended[call.key] = now
                self._ended.move_to_end(call.key)

    def connection_opened(self, now: float) -> None:
        """A connection is open: from now on unacknowledged requests are delivered again."""
        self._ended = OrderedDict.fromkeys(self._ended, now)

    def take_safe(self, now: float) -> list[CallKey]:
        """Return the keys of the requests whose acks the broker has; only while connected."""
        safe = []
        while self._ended and now - next(iter(self._ended.values())) > _UNSAFE:
            safe.append(self._ended.popitem(last=False)[0])
        return safe
