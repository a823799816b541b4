"""The other servers of one server_id: which answer, which are silent, and which have left.

No I/O here.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import inf

from qam._server.open_deliveries import UNSAFE_ACKS
from qam._server.sibling_words import MAX_SIBLINGS

#: Seconds within which a server that lost its connection is expected to be back.
GRACE = 3.0
#: Seconds after a question for which a sibling may vouch; it must have been able to for as long.
VALID = 2 * GRACE
#: How many names of forgotten siblings are kept, so that the words of others do not add them.
_MAX_FORGOTTEN = 1000


@dataclass(slots=True)
class _Sibling:
    """What this server knows of one sibling."""

    #: A word of it was heard since this server last missed any.
    heard: bool = False
    #: Its last word said that it consumes from the request queue.
    consumes: bool = False
    #: When its last word was heard.
    last_heard: float = -inf
    #: When the request queue was first seen empty after that.
    settled_at: float | None = None


class KnownSiblings:
    """The siblings of one server, by the names of their instances."""

    def __init__(self) -> None:
        self._known: dict[str, _Sibling] = {}
        # The siblings that did not answer in time.
        self._absent: set[str] = set()
        # When each sibling left, oldest first.
        self._left: dict[str, float] = {}
        self._forgotten: dict[str, None] = {}
        #: True if there was no room for a sibling.
        self.crowded = False
        # When the roll was called; None if no answers to it are awaited.
        self._roll_called_at: float | None = None

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, instance: str) -> bool:
        return instance in self._known

    @property
    def present(self) -> set[str]:
        """The siblings that are not taken for dead."""
        return self._known.keys() - self._absent

    @property
    def absent(self) -> AbstractSet[str]:
        """The siblings that are taken for dead."""
        return self._absent

    @property
    def report(self) -> dict[str, bool]:
        """All known siblings, each with True unless it is taken for dead."""
        return {instance: instance not in self._absent for instance in self._known}

    def has_heard_of(self, instance: str) -> bool:
        """Return True if *instance* is known, or was."""
        return instance in self._known or instance in self._left or instance in self._forgotten

    def is_consuming(self, instance: str) -> bool:
        """Return True if *instance* has a consumer on the request queue."""
        sibling = self._known[instance]
        return sibling.heard and sibling.consumes and instance not in self._absent

    def count_present(self) -> int:
        """Return how many siblings are there, whether they take requests or not."""
        return sum(self._known[instance].heard for instance in self.present)

    def count_consumers(self) -> int:
        """Return how many siblings have a consumer on the request queue."""
        return sum(map(self.is_consuming, self._known))

    # --- siblings come and go -----------------------------------------------------

    def add(self, instance: str, there: bool) -> bool:
        """Add *instance*; if there is no room for it, return False and become crowded.

        :param there: False to take it for dead.
        """
        if len(self._known) >= MAX_SIBLINGS:
            self.crowded = True
            return False
        self._add(instance, there)
        return True

    def _add(self, instance: str, there: bool) -> None:
        self._known[instance] = _Sibling()
        if not there:
            self._absent.add(instance)

    def has_room_again(self) -> bool:
        """Return True if there is room for a sibling; then it is no longer crowded."""
        has_room = len(self._known) < MAX_SIBLINGS
        self.crowded = self.crowded and not has_room
        return has_room

    def heard(self, instance: str, consumes: bool, now: float) -> bool:
        """A word of *instance* was heard; return True if it was taken for dead.

        :param consumes: whether it consumes from the request queue.
        """
        sibling = self._known[instance]
        sibling.heard, sibling.consumes = True, consumes
        sibling.last_heard, sibling.settled_at = now, None
        self._forgotten.pop(instance, None)
        was_absent = instance in self._absent
        self._absent.discard(instance)
        return was_absent

    def mark_absent(self, instance: str) -> bool:
        """Take *instance* for dead; return False if it was already."""
        if instance in self._absent:
            return False
        self._absent.add(instance)
        return True

    def leave(self, instance: str, now: float) -> bool:
        """Forget *instance*, which said goodbye; return False if it is unknown, or has to stay."""
        while self._left and now - self._left[earliest := next(iter(self._left))] >= UNSAFE_ACKS:
            del self._left[earliest]
        # If too many have left, this one stays known, and is found silent instead.
        if instance not in self._known or len(self._left) >= MAX_SIBLINGS:
            return False
        self._forget(instance)
        self.note_departure(instance, now)
        return True

    def note_departure(self, instance: str, now: float) -> None:
        """Note that *instance*, which is not known, left just now; or may have, by any name."""
        self._left.pop(instance, None)
        self._left[instance] = now

    def restore_recently_left(self, now: float) -> None:
        """Take those that left just now for dead: a killed broker may have lost their acks."""
        for instance, left_at in self._left.items():
            if now - left_at < UNSAFE_ACKS:
                self._add(instance, there=False)
        self._left.clear()

    # --- the roll call --------------------------------------------------------------

    @property
    def roll_is_called(self) -> bool:
        """True while the answers to a roll call are awaited."""
        return self._roll_called_at is not None

    def call_roll(self, now: float) -> None:
        """The roll is called: siblings that are not heard within GRACE are absent."""
        self._roll_called_at = now

    def roll_call_ends(self) -> float:
        """Return when the wait for the answers ends; infinite if the roll is not called."""
        return inf if self._roll_called_at is None else self._roll_called_at + GRACE

    def give_up_roll_call(self) -> None:
        """Await no answers: the connection was lost, so none can come."""
        self._roll_called_at = None

    def end_roll_call(self, now: float) -> list[str]:
        """End the roll call if its time is up; return the siblings that did not answer."""
        called_at = self._roll_called_at
        if called_at is None or now < called_at + GRACE:
            return []
        self._roll_called_at = None
        return [name for name, each in self._known.items() if each.last_heard < called_at]

    # --- the dead --------------------------------------------------------------------

    def forget_if_judged(self, instance: str, now: float) -> bool:
        """Forget *instance*, which is dead, once all its requests are surely judged.

        The request queue is empty, so other servers have received its requests again.

        :returns: True if it is forgotten now.
        """
        sibling = self._known[instance]
        if sibling.settled_at is None:
            sibling.settled_at = now
        elif now - sibling.settled_at > VALID:
            self._forget_for_good(instance)
            return True
        return False

    def _forget_for_good(self, instance: str) -> None:
        """Forget *instance*, which is dead, and do not add it again because others name it."""
        self._forget(instance)
        self._forgotten[instance] = None
        if len(self._forgotten) > _MAX_FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]

    def _forget(self, instance: str) -> None:
        del self._known[instance]
        self._absent.discard(instance)

    def mark_all_unheard(self) -> None:
        """Words of siblings were missed: count none of them as heard."""
        for sibling in self._known.values():
            sibling.heard = False
