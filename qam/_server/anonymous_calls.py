"""Which requests without a correlation id have ended of late.  No I/O and no clock here."""

from collections import OrderedDict
from collections.abc import Iterable

from qam._protocol.correlation import CallKey
from qam._server.call import Call

#: Seconds after which the broker has an ack for good; of late ones it may forget some when killed.
_UNSAFE = 5.0


class AnonymousCalls:
    """The requests of 0.2.x clients that ended while the broker may not have their acks.

    They are recognized by their bodies.  A copy that comes while the broker may not have the ack
    is the same request; one that comes later is another one, with the same arguments.
    """

    def __init__(self) -> None:
        # By key, when they ended; the first is the oldest.
        self._ended: OrderedDict[CallKey, float] = OrderedDict()

    def end(self, calls: Iterable[Call], now: float) -> None:
        """*calls* have ended; those of them that are anonymous are noted."""
        for call in calls:
            if call.is_anonymous:
                self._ended[call.key] = now
                self._ended.move_to_end(call.key)

    def connection_opened(self, now: float) -> None:
        """A connection is open: what was not acknowledged on the last one comes again now."""
        self._ended = OrderedDict.fromkeys(self._ended, now)

    def take_safe(self, now: float) -> list[CallKey]:
        """Return the keys of those whose acks the broker has, each once; while it is connected."""
        safe = []
        while self._ended and now - next(iter(self._ended.values())) > _UNSAFE:
            safe.append(self._ended.popitem(last=False)[0])
        return safe
