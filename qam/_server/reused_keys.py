"""The requests that ended recently whose keys may come again.  No I/O and no clock here."""

from collections import OrderedDict
from collections.abc import Iterable

from qam._protocol.correlation import CallKey
from qam._server.call import Call
from qam._server.open_deliveries import UNSAFE_ACKS


class ReusedKeys:
    """The keys of requests that have ended, while the broker may lack their acks.

    A 0.2.x client sends no correlation id, and other AMQP libraries number theirs from 1 in each
    process.  A redelivered copy with such a key that arrives while the broker may lack the ack is
    the same request.  One that arrives later is another request.

    :param unsafe: for how many seconds the broker may lack an ack.
    """

    def __init__(self, unsafe: float = UNSAFE_ACKS) -> None:
        self._unsafe = unsafe
        #: When each request ended, by key, oldest first.
        self.ended: OrderedDict[CallKey, float] = OrderedDict()

    def end(self, calls: Iterable[Call], now: float) -> None:
        """Note those of *calls*, which have ended, whose keys are not unique."""
        for call in calls:
            if not call.key.is_unique:
                self.ended[call.key] = now
                self.ended.move_to_end(call.key)

    def connection_opened(self, now: float) -> None:
        """A connection is open: from now on unacknowledged requests are delivered again."""
        self.ended = OrderedDict.fromkeys(self.ended, now)

    def take_safe(self, now: float) -> list[CallKey]:
        """Return the keys of the requests whose acks the broker has; only while connected."""
        safe = []
        while self.ended and now - next(iter(self.ended.values())) > self._unsafe:
            safe.append(self.ended.popitem(last=False)[0])
        return safe
