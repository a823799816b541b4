"""Which other servers of one server_id there are: who answers, who is silent, who has left.

No I/O here.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import inf

from qam._server.sibling_words import MAX_SIBLINGS

#: Seconds in which a server that lost its connection is expected back.
GRACE = 3.0
#: Seconds for which the word of another counts; as long it must have known.
VALID = 2 * GRACE
#: Seconds in which the broker, when it is killed, may forget that it got an ack.
_UNSAFE = 5.0
#: How many names of forgotten ones are kept, so that others do not bring them back.
_MAX_FORGOTTEN = 1000


@dataclass(slots=True)
class Sibling:
    """What is known of one of them."""

    #: It said something since this server can hear without a gap.
    heard: bool = False
    #: It consumes from the request queue, or so it said last.
    consumes: bool = False
    #: When it said something last.
    last_heard: float = -inf
    #: When the request queue was seen empty after that.
    settled_at: float | None = None


class KnownSiblings:
    """The siblings of one server, by the names of their instances."""

    def __init__(self) -> None:
        self._known: dict[str, Sibling] = {}
        # Those of them that did not answer in time.
        self._absent: set[str] = set()
        # When they left, in that order.
        self._left: dict[str, float] = {}
        self._forgotten: dict[str, None] = {}
        #: There was no room for one of them.
        self.crowded = False
        # When it was asked who is there, if the answers are still waited for.
        self._roll_called_at: float | None = None

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, instance: str) -> bool:
        return instance in self._known

    def get(self, instance: str) -> Sibling | None:
        """Return the one of that name; None if it is not known."""
        return self._known.get(instance)

    @property
    def present(self) -> set[str]:
        """Those that are not taken for dead."""
        return self._known.keys() - self._absent

    @property
    def absent(self) -> AbstractSet[str]:
        """Those that are taken for dead."""
        return self._absent

    @property
    def report(self) -> dict[str, bool]:
        """All that are known, and whether each is there."""
        return {instance: instance not in self._absent for instance in self._known}

    def has_heard_of(self, instance: str) -> bool:
        """Return True if *instance* is known, or was."""
        return instance in self._known or instance in self._left or instance in self._forgotten

    def is_consuming(self, instance: str) -> bool:
        """Return True if one of the consumers of the request queue is that of *instance*."""
        sibling = self._known[instance]
        return sibling.heard and sibling.consumes and instance not in self._absent

    def count_consumers(self) -> int:
        """Return how many consumers of the request queue are theirs."""
        return sum(map(self.is_consuming, self._known))

    # --- who comes and goes -------------------------------------------------------

    def add(self, instance: str, there: bool) -> Sibling | None:
        """Know *instance* from now on; return None, and be crowded, if there is no room for it.

        :param there: False to take it for dead.
        """
        if len(self._known) >= MAX_SIBLINGS:
            self.crowded = True
            return None
        return self._add(instance, there)

    def _add(self, instance: str, there: bool) -> Sibling:
        sibling = self._known[instance] = Sibling()
        if not there:
            self._absent.add(instance)
        return sibling

    def make_up_for_crowd(self) -> bool:
        """Be crowded no more, if there is room now; return whether."""
        has_room = len(self._known) < MAX_SIBLINGS
        self.crowded = self.crowded and not has_room
        return has_room

    def came_back(self, instance: str) -> bool:
        """*instance* said something; return whether it was taken for dead."""
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
        """*instance* said goodbye; return False if that can't be remembered, or it is not known."""
        while self._left and now - self._left[earliest := next(iter(self._left))] >= _UNSAFE:
            del self._left[earliest]
        # If too many have left already, it is found to be silent instead.
        if instance not in self._known or len(self._left) >= MAX_SIBLINGS:
            return False
        self._forget(instance)
        self._left.pop(instance, None)
        self._left[instance] = now
        return True

    def bring_back_who_just_left(self, now: float) -> None:
        """The broker may have died, and have forgotten their last acks: take them for dead."""
        for instance, left_at in self._left.items():
            if now - left_at < _UNSAFE:
                self._add(instance, there=False)
        self._left.clear()

    # --- the roll call --------------------------------------------------------------

    @property
    def roll_is_called(self) -> bool:
        """True while the answers to a roll call are awaited."""
        return self._roll_called_at is not None

    def call_roll(self, now: float) -> None:
        """Those that say nothing within GRACE are not there."""
        self._roll_called_at = now

    def roll_call_ends(self) -> float:
        """When those are missing that said nothing; infinite if the roll is not called."""
        return inf if self._roll_called_at is None else self._roll_called_at + GRACE

    def give_up_roll_call(self) -> None:
        """Nobody could answer."""
        self._roll_called_at = None

    def end_roll_call(self, now: float) -> list[str]:
        """Return those that did not answer; none as long as they still may."""
        called_at = self._roll_called_at
        if called_at is None or now < called_at + GRACE:
            return []
        self._roll_called_at = None
        return [name for name, each in self._known.items() if each.last_heard < called_at]

    # --- the dead --------------------------------------------------------------------

    def forget_if_judged(self, instance: str, now: float) -> bool:
        """Others have the requests of *instance*, a dead one, now; forget it once they are judged.

        :returns: whether it is forgotten now.
        """
        sibling = self._known[instance]
        if sibling.settled_at is None:
            sibling.settled_at = now
        elif now - sibling.settled_at > VALID:
            self._forget_for_good(instance)
            return True
        return False

    def _forget_for_good(self, instance: str) -> None:
        """Forget *instance*, which is dead; what others say of it does not bring it back."""
        self._forget(instance)
        self._forgotten[instance] = None
        if len(self._forgotten) > _MAX_FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]

    def _forget(self, instance: str) -> None:
        del self._known[instance]
        self._absent.discard(instance)

    def begin_to_hear_anew(self) -> None:
        """Some of what they said was missed."""
        for sibling in self._known.values():
            sibling.heard = False
