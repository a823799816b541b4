"""Determines the fate of the messages that a publisher writes.

No I/O, no threads, no locks and no clock: events and times are passed in, fates are returned.
The publisher decides what follows from the fate of a message.
"""

from enum import Enum, auto

#: Seconds for which the broker may refuse every message before a new connection is tried: the
#: first time, and at most.
_FIRST_BORNE, _LONGEST_BORNE = 1.0, 64.0


class Fate(Enum):
    """What became of a message."""

    #: It is being written, and no event will report on it.
    WRITTEN = auto()
    #: The broker has taken responsibility for it.
    CONFIRMED = auto()
    #: The broker returned it: no queue is bound for its route.
    RETURNED = auto()
    #: The broker could not take it (a nack).
    REFUSED = auto()
    #: The connection was lost, and the broker may or may not have it.
    UNKNOWN = auto()
    #: The broker closed the channel because of it.
    CULPRIT = auto()


class UnderWay:
    """Counts the messages under way, and finds the message for which the broker closes channels.

    Such a message, the culprit, takes down all messages that are under way with it.  So after
    that they are sent again one at a time until the culprit is found, and the others are not
    taken down a second time.
    """

    def __init__(self) -> None:
        #: How many messages were written and have no fate yet.
        self.in_flight = 0
        # How many messages at the head of the queue may be the culprit.
        self._suspects = 0
        # When the broker began to refuse every message; and how many seconds that is borne.
        self._refused_since: float | None = None
        self._refusals_borne = _FIRST_BORNE

    @property
    def one_at_a_time(self) -> bool:
        """Whether messages have to be written one at a time."""
        return self._suspects > 0

    @property
    def has_to_wait(self) -> bool:
        """Whether no message may be written before the one under way has its fate."""
        return self._suspects > 0 and self.in_flight > 0

    def written(self, number: int) -> None:
        """Note that *number* messages are about to be written, and will get a fate."""
        self.in_flight += number

    def ended(self, fate: Fate, number: int) -> None:
        """Note that *number* messages have got their *fate*."""
        self.in_flight -= number
        self._suspects = max(0, self._suspects - number)
        if fate is Fate.CONFIRMED:
            self._refused_since, self._refusals_borne = None, _FIRST_BORNE

    def gives_up(self, now: float) -> bool:
        """Return True if the connection is useless; called after a message was refused.

        On a channel that has published to a quorum queue, RabbitMQ may keep publishing to the
        queue's dead leader: it refuses every message there, but none on a new channel.
        """
        self._refused_since = self._refused_since or now
        if now - self._refused_since < self._refusals_borne:
            return False
        self._refused_since = None
        self._refusals_borne = min(2 * self._refusals_borne, _LONGEST_BORNE)
        return True

    def lost(self, number: int, by_message: bool) -> Fate:
        """Return the fate of the messages that were under way when the connection was lost.

        :param number: how many messages were under way.
        :param by_message: whether the broker closed the channel because of one of them.
        """
        self.in_flight = 0
        if not (by_message and number == 1):
            return Fate.UNKNOWN
        self._suspects = max(0, self._suspects - 1)
        return Fate.CULPRIT

    def suspect(self, number: int) -> None:
        """Note that one of the next *number* messages is the culprit."""
        self._suspects = number
