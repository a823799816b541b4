"""What becomes of the messages that a publisher writes.

No I/O, no threads, no locks and no clock: events and the time come in, fates go out.  What
follows from the fate of a message is for its owner to decide.
"""

from enum import Enum, auto

#: Seconds of nothing but refusals after which a new connection is tried, first and at most.
_FIRST_BORNE, _LONGEST_BORNE = 1.0, 64.0


class Fate(Enum):
    """What becomes of a message."""

    #: It is being written, and there will be no other sign of it.
    WRITTEN = auto()
    #: The broker is responsible for it.
    CONFIRMED = auto()
    #: No queue is bound where it was to go.
    RETURNED = auto()
    #: The broker could not take it.
    REFUSED = auto()
    #: The connection was lost, and nobody can say whether the broker has it.
    UNKNOWN = auto()
    #: The broker closed the channel because of it.
    CULPRIT = auto()


class UnderWay:
    """Counts the messages that wait for their fate, and finds the one that closes channels.

    A message for which the broker closes the channel takes down all that are under way with
    it.  So those that are sent again after that go one at a time until the culprit is found,
    and the others are not taken down a second time.
    """

    def __init__(self) -> None:
        #: How many messages were written and have no fate yet.
        self.in_flight = 0
        # How many messages, at the head of what waits, may be the culprit.
        self._suspects = 0
        # Since when the broker has refused all that it was sent; and how long that is borne.
        self._refused_since: float | None = None
        self._refusals_borne = _FIRST_BORNE

    @property
    def one_at_a_time(self) -> bool:
        """Whether the next message has to be under way alone."""
        return self._suspects > 0

    @property
    def has_to_wait(self) -> bool:
        """Whether nothing may be written before one that is under way has its fate."""
        return self._suspects > 0 and self.in_flight > 0

    def written(self, number: int) -> None:
        """So many messages are about to be written, and will have a fate."""
        self.in_flight += number

    def ended(self, fate: Fate, number: int) -> None:
        """So many messages have their *fate*."""
        self.in_flight -= number
        self._suspects = max(0, self._suspects - number)
        if fate is Fate.CONFIRMED:
            self._refused_since, self._refusals_borne = None, _FIRST_BORNE

    def gives_up(self, now: float) -> bool:
        """Return True if the connection is of no use, after a message was refused.

        RabbitMQ may go on asking the dead leader of a quorum queue, on a channel that it
        has asked for it before: it refuses everything there, and nothing on a new one.
        """
        self._refused_since = self._refused_since or now
        if now - self._refused_since < self._refusals_borne:
            return False
        self._refused_since = None
        self._refusals_borne = min(2 * self._refusals_borne, _LONGEST_BORNE)
        return True

    def lost(self, number: int, by_message: bool) -> Fate:
        """Return the fate of all that were under way when the connection was lost.

        :param number: how many there are.
        :param by_message: the broker closed the channel because of one of them.
        """
        self.in_flight = 0
        if not (by_message and number == 1):
            return Fate.UNKNOWN
        self._suspects = max(0, self._suspects - 1)
        return Fate.CULPRIT

    def suspect(self, number: int) -> None:
        """One of the next *number* messages has closed the channel."""
        self._suspects = number
