"""Which deliveries may be acknowledged, with as few acks as possible."""

from bisect import bisect_left
from collections.abc import Iterable


class OpenDeliveries:
    """The deliveries of one channel that are not acknowledged yet.

    Delivery tags ascend.  One ack with *multiple* covers all up to the lowest one
    that is still open; what is done above it is acked singly.
    """

    def __init__(self) -> None:
        # No larger than the prefetch, so that to look for the lowest one costs little.
        self._open: set[int] = set()
        self._done: set[int] = set()

    def __len__(self) -> int:
        return len(self._open) + len(self._done)

    def opened(self, tag: int) -> None:
        """The broker delivered *tag*."""
        self._open.add(tag)

    def done(self, tags: Iterable[int]) -> None:
        """What came under *tags* is settled and may be acknowledged."""
        done = self._open.intersection(tags)
        self._open -= done
        self._done |= done

    def dropped(self, tag: int) -> None:
        """*tag* is settled otherwise, and must not be acknowledged."""
        self._open.discard(tag)

    def take_acks(self) -> list[tuple[int, bool]]:
        """Return what to acknowledge now, as pairs of tag and *multiple*."""
        if not self._done:
            return []
        done = sorted(self._done)
        self._done.clear()
        below = bisect_left(done, min(self._open)) if self._open else len(done)
        acks = [(done[below - 1], True)] if below else []
        return acks + [(tag, False) for tag in done[below:]]
