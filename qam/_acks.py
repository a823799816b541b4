"""Which deliveries may be acknowledged, with as few acks as possible."""

from collections import OrderedDict
from collections.abc import Iterable


class OpenDeliveries:
    """The deliveries of one channel that are not acknowledged yet.

    Delivery tags ascend.  One ack with *multiple* covers all up to the lowest one
    that is still open; what is done above it is acked singly.
    """

    def __init__(self) -> None:
        # In the order of their delivery; a dict would get slow at finding its first.
        self._open: OrderedDict[int, None] = OrderedDict()
        self._done: set[int] = set()

    def __len__(self) -> int:
        return len(self._open) + len(self._done)

    def opened(self, tag: int) -> None:
        """The broker delivered *tag*."""
        self._open[tag] = None

    def done(self, tags: Iterable[int]) -> None:
        """What came under *tags* is settled and may be acknowledged."""
        for tag in tags:
            if tag in self._open:
                del self._open[tag]
                self._done.add(tag)

    def dropped(self, tag: int) -> None:
        """*tag* is settled otherwise, and must not be acknowledged."""
        self._open.pop(tag, None)

    def take_acks(self) -> list[tuple[int, bool]]:
        """Return what to acknowledge now, as pairs of tag and *multiple*."""
        if not self._done:
            return []
        lowest_open = next(iter(self._open), None)
        below = [tag for tag in self._done if lowest_open is None or tag < lowest_open]
        singly = sorted(self._done.difference(below))
        self._done.clear()
        acks = [(max(below), True)] if below else []
        return acks + [(tag, False) for tag in singly]
