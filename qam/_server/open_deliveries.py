"""Finds the fewest acks for the deliveries that may be acknowledged."""

from bisect import bisect_left
from collections.abc import Iterable

#: Seconds for which the broker may lose an ack that it received, if it is killed.
UNSAFE_ACKS = 5.0


class OpenDeliveries:
    """The deliveries of one channel that are not acknowledged yet.

    Delivery tags ascend.  One ack with *multiple* covers all tags below the lowest one that
    is still open; each settled one above it gets an ack of its own.
    """

    def __init__(self) -> None:
        # No larger than the prefetch, so finding the lowest tag costs little.
        self._open: set[int] = set()
        self._done: set[int] = set()

    def __len__(self) -> int:
        return len(self._open) + len(self._done)

    def opened(self, tag: int) -> None:
        """The broker delivered *tag*."""
        self._open.add(tag)

    def done(self, tags: Iterable[int]) -> None:
        """The deliveries *tags* are settled, and may be acknowledged."""
        done = self._open.intersection(tags)
        self._open -= done
        self._done |= done

    def dropped(self, tag: int) -> None:
        """The delivery *tag* was rejected, and must not be acknowledged."""
        self._open.discard(tag)

    def take_acks(self) -> list[tuple[int, bool]]:
        """Return the acks to send now, as pairs of tag and *multiple*."""
        if not self._done:
            return []
        done = sorted(self._done)
        self._done.clear()
        below = bisect_left(done, min(self._open)) if self._open else len(done)
        acks = [(done[below - 1], True)] if below else []
        return acks + [(tag, False) for tag in done[below:]]
