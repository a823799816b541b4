"""One server among the others of its server_id: whether they know it, and whether it knows them.

Each server has a queue of its own on an exchange that reaches all of them, and says hello there
before it takes its first request.  The queue outlives a lost connection, and the hello outlives a
killed broker once it is confirmed, so no server misses a hello.  A server that has seen the request
queue empty, with no consumer and no server that it does not know, can *vouch*: each request that is
delivered with a mark from then on was received by servers that it knows.

No I/O and no clock here.
"""

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from qam._broker.messages import QueueState
from qam._server.known_siblings import VALID, KnownSiblings
from qam._server.queue_inspections import QueueInspections

#: Seconds within which the broker notices that a connection is dead, and delivers again what was
#: not acknowledged on it.
_NOTICED = 30.0


class Findings(NamedTuple):
    """What an inspection of the request queue shows."""

    #: True if a sibling may be gone, so that all have to be asked whether they are there.
    roll_is_called: bool
    #: The dead siblings whose requests are all judged; they are not known any more.
    forgotten: list[str]


class Membership:
    """Which siblings this server knows, and what follows from that."""

    def __init__(self) -> None:
        #: The others.
        self.known = KnownSiblings()
        self._inspections = QueueInspections()
        self._vouches_since: float | None = None
        # How many other servers were there when they were counted last, and whether that shows
        # that all of them are known.
        self._others = 0
        self._all_are_known = False
        #: When the connection was opened.
        self.opened_at = 0.0
        self._lost_at: float | None = None
        # Until when the broker may deliver to others what this server has answered already.
        self._needed_until = -inf
        # The number of the latest hello: how many connections were opened.  And the latest ones
        # that came back, and that the broker has confirmed.
        self._hello = self._heard_hello = self._confirmed_hello = 0

    # --- the connection -----------------------------------------------------------

    def opened(self, without_gap: bool, now: float) -> int:
        """A connection is open; return the number of the hello to say on it.

        :param without_gap: True if no word that was said since the last one is missed.
        """
        self.opened_at = now
        if self._lost_at is not None:
            self._needed_until = now + _NOTICED
        if not without_gap:
            self._vouches_since = None
            self.known.mark_all_unheard()
        self._hello += 1
        return self._hello

    def lost(self, now: float) -> None:
        """The connection is gone."""
        self._lost_at = now
        self.known.give_up_roll_call()
        self.known.restore_recently_left(now)

    def heard_own_hello(self, number: int) -> None:
        """This server received its own hello, so what is said reaches it."""
        self._heard_hello = max(self._heard_hello, number)

    def hello_confirmed(self, number: int) -> None:
        """The broker has confirmed a hello, so all others will have it, even if it is killed."""
        self._confirmed_hello = max(self._confirmed_hello, number)

    @property
    def announced(self) -> bool:
        """True once all others know this server, so that it may take requests.

        The hello of an earlier connection does not count: others may have missed it.
        """
        return self._heard_hello == self._confirmed_hello == self._hello > 0

    def is_needed(self, now: float) -> bool:
        """Return True while others may have to ask about what this server has answered before.

        The last acks may be lost with a connection, or with a broker that was killed.
        """
        return bool(self.known) and now < self._needed_until

    # --- what is certain ------------------------------------------------------------

    @property
    def vouches(self) -> bool:
        """True if no unknown server can have received a request that arrives with a mark."""
        return self._vouches_since is not None

    def vouches_to_others(self, now: float) -> bool:
        """Return True if this server has vouched for so long that others may rely on it."""
        return self._vouches_since is not None and now - self._vouches_since >= VALID

    @property
    def is_in_doubt(self) -> bool:
        """True if a server that may have received a request is dead, or is not known."""
        return bool(self.known.absent) or self.known.crowded

    # --- siblings come ----------------------------------------------------------------

    def add(self, instance: str, there: bool) -> bool:
        """Add *instance* to the known siblings; return False if there is no room for it.

        While there is no room, this server does not vouch: *instance* may have requests that
        arrive with a mark.

        :param there: False to take it for dead.
        """
        has_room = self.known.add(instance, there)
        if not has_room:
            self._vouches_since = None
        return has_room

    def heard(self, instance: str, consumes: bool, now: float) -> bool:
        """*instance*, which is known, is there; return True if it was taken for dead.

        :param consumes: whether it consumes from the request queue.
        """
        was_consuming = self.known.is_consuming(instance)
        was_dead = self.known.heard(instance, consumes, now)
        if self.known.is_consuming(instance) and not was_consuming:
            self._inspections.hasten()
        return was_dead

    # --- the request queue is inspected -----------------------------------------------

    def next_inspection(self, holds: bool, now: float) -> float:
        """Return when the request queue is to be inspected; infinite for never.

        :param holds: True if this server holds copies of requests that siblings have.
        """
        if not self.announced or (self.vouches and not self.known):
            return inf
        is_calm = self.vouches and not (self.known.absent or holds or self.is_needed(now))
        return self._inspections.next_due(is_calm)

    def next_due(self, holds: bool, now: float) -> float:
        """Return when there is something to do, if no word arrives; infinite for never."""
        soonest = min(self.next_inspection(holds, now), self.known.roll_call_ends())
        return min(soonest, self._needed_until) if self.is_needed(now) else soonest

    def servers_counted(self, others: int | None) -> None:
        """So many *others* are there; None if they can't be counted.

        If one has just gone, the broker may be about to deliver again what it had.
        """
        before, self._others = self._others, others or 0
        self._all_are_known = others is not None and before <= others == self.known.count_present()

    def queue_inspected(
        self, state: QueueState, own_consumers: int, holders: Iterable[str], now: float
    ) -> Findings:
        """Learn from the *state* of the request queue.

        :param own_consumers: how many consumers this server has on it.
        :param holders: the siblings that have requests which this server holds copies of.
        """
        self._inspections.done(now)
        expected = own_consumers + self.known.count_consumers()
        calls_roll = self._misses_somebody(state.consumers < expected, holders)
        forgotten: list[str] = []
        # No consumers are no evidence: RabbitMQ tells of a quorum queue that does not answer it
        # that nothing is in it, and that nobody consumes.
        if self._all_are_known and state == (0, expected) and expected:
            self._needed_until = -inf  # what was delivered again was asked about by now
            calls_roll |= self._note_empty_queue(now)
            forgotten = self._forget_the_judged(now)
        if calls_roll:
            self.known.call_roll(now)
        return Findings(calls_roll, forgotten)

    def _misses_somebody(self, too_few: bool, holders: Iterable[str]) -> bool:
        """Return True if a sibling may be gone, and no roll call is under way that would show it.

        :param too_few: True if the queue has fewer consumers than known servers consume.
        """
        # If a holder does not consume, the number of consumers would not show its death.
        may_miss = too_few or not all(map(self.known.is_consuming, holders))
        return may_miss and not self.known.roll_is_called

    def _note_empty_queue(self, now: float) -> bool:
        """All unacknowledged requests are with known servers; return True to call the roll."""
        if self.known.crowded:
            # If there is room now, the siblings without room answer the roll call.
            return self.known.has_room_again()
        if self._vouches_since is None:
            self._vouches_since = now
        return False

    def _forget_the_judged(self, now: float) -> list[str]:
        """Forget the dead siblings whose requests are surely judged by now; return them."""
        dead = list(self.known.absent)
        return [each for each in dead if self.known.forget_if_judged(each, now)]
