"""The requests under judgement, about which the other servers of one server_id were asked.

No I/O here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from qam._protocol.correlation import CallKey
from qam._server.call import Call
from qam._server.known_siblings import GRACE, VALID

#: Seconds for which a question may wait to be sent, as while the broker has an alarm.
_ECHO_TIMEOUT = 10 * GRACE
#: Seconds for which a copy of a request that a sibling runs is kept: RabbitMQ closes a channel
#: with a delivery that is open for half an hour, by default.
_LONGEST_HOLD = 25 * 60.0


class Verdict(Enum):
    """The decision on a request that may have been received before."""

    RUN = "run"  # no server has begun to run it
    MINE = "mine"  # another server has answered it
    AGAIN = "again"  # another server has published it anew, to be run again
    LOST = "lost"  # a server that had it may be gone


@dataclass(slots=True)
class Question:
    """A request under judgement."""

    key: CallKey
    resent: bool
    asked_at: float
    vouched: bool
    #: The siblings whose answers are awaited; none of them is taken for dead.
    silent: set[str]
    calls: list[Call] = field(default_factory=list)
    #: Those of the calls that their client sent again after the question was opened: the answer
    #: may have been sent before, and be lost.
    late: list[Call] = field(default_factory=list)
    #: When this server received its own question: every word that was sent before it has
    #: been heard by then.
    echoed_at: float | None = None
    answered: set[str] = field(default_factory=set)
    #: The siblings that have it, and have not answered it yet; none of them is taken for dead.
    holders: set[str] = field(default_factory=set)
    #: A server says that it is lost, which counts unless another server has it.
    lost: bool = False
    verdict: Verdict | None = None
    #: True if no server had begun to run it when it was published.  Only who says that it has a
    #: copy, or that it is lost, keeps it from running.
    fresh: bool = False
    #: A sibling has asked about it, too.
    shared: bool = False

    def ends(self, opened_at: float) -> float:
        """Return when the request is decided on, if nothing else is heard.

        :param opened_at: when this server opened its connection.
        """
        if self.holders:
            return self.asked_at + _LONGEST_HOLD
        if self.echoed_at is None:
            return self.asked_at + _ECHO_TIMEOUT
        # A server that is not known yet may have lost its connection as this one did.
        return (self.echoed_at if self.silent else opened_at) + GRACE

    def judge(self, now: float, opened_at: float, in_doubt: bool) -> Verdict | None:
        """Return the decision on the request, or None as long as there is none.

        :param in_doubt: True if a server that may have had it is dead, or is not known.
        """
        if self.verdict is not None:
            return self.verdict
        if self.echoed_at is not None and not (self.silent or self.holders):
            if self.lost or (in_doubt and not self.fresh):
                return Verdict.LOST
            if self.vouched:
                return Verdict.RUN
        if now < self.ends(opened_at):
            return None
        if self.holders:
            return Verdict.MINE
        return Verdict.LOST if self.lost or not self.fresh else Verdict.RUN

    def take_word(self, sender: str, known: bool, said: str, now: float) -> None:
        """Take the answer of *sender*: mine, done, again, lost, never or vouch.

        :param known: True if *sender* is a known sibling.
        """
        if known:
            self.answered.add(sender)
        self.silent.discard(sender)
        self.holders.discard(sender)
        if said == "mine":
            self.claimed_by(sender, known)
        elif said == "done":
            self.verdict = Verdict.MINE
        elif said == "again":
            self.verdict = Verdict.AGAIN
        elif said == "lost":
            self.lost = True
        elif said == "vouch" and now - self.asked_at < VALID:
            self.vouched = True

    def claimed_by(self, instance: str, known: bool) -> None:
        """*instance* has the request, and says so once it has answered it.

        :param known: True if it is a known sibling.  The end of another one would not show.
        """
        if known:
            self.holders.add(instance)
        else:
            self.verdict = Verdict.MINE


class Questions:
    """The open questions of one server, by the keys of their requests."""

    def __init__(self) -> None:
        self._open: dict[CallKey, Question] = {}

    def __contains__(self, key: CallKey) -> bool:
        return key in self._open

    def __iter__(self) -> Iterator[Question]:
        return iter(self._open.values())

    def get(self, key: CallKey) -> Question | None:
        """Return the question about *key*; None if there is none."""
        return self._open.get(key)

    def add(self, question: Question) -> None:
        """Open *question*."""
        self._open[question.key] = question

    def remove(self, question: Question) -> None:
        """Remove *question*, which is decided."""
        del self._open[question.key]

    def clear(self) -> None:
        """Remove all questions: the requests will be delivered again."""
        self._open.clear()

    def echoed(self, keys: Iterable[CallKey], now: float) -> None:
        """Note that this server received its own questions about *keys*."""
        for key in self._open.keys() & keys:
            self._open[key].echoed_at = now

    def wait_for(self, instance: str) -> None:
        """Let each open question wait for the answer of *instance*."""
        for question in self._open.values():
            if instance not in question.answered:
                question.silent.add(instance)

    def answered(self, keys: Iterable[CallKey], instance: str) -> None:
        """Note that *instance* has answered the requests *keys*.

        If a key is used again, that was an earlier request, unless *instance* has this one.
        """
        for key in self._open.keys() & keys:
            question = self._open[key]
            if key.is_unique or instance in question.holders:
                question.verdict = Verdict.MINE

    def left(self, instance: str) -> None:
        """*instance* has left: what it has not answered it may have run, and answered.

        What it had and did not say to be answered, it has given back without running it.
        """
        for question in self._open.values():
            question.holders.discard(instance)
            if instance in question.silent:
                question.silent.discard(instance)
                question.lost = question.lost or not question.fresh

    def died(self, instance: str) -> None:
        """Let no question wait for *instance*, which is dead: what it had is lost."""
        for question in self._open.values():
            question.silent.discard(instance)
            if instance in question.holders:
                question.holders.discard(instance)
                question.lost = True

    @property
    def held(self) -> list[Question]:
        """The questions about requests that siblings have and have not answered yet."""
        return [each for each in self._open.values() if each.holders]

    @property
    def held_longest(self) -> Question | None:
        """The one of :attr:`held` that was asked first; None if there are none."""
        return min(self.held, key=_asked_at, default=None)

    @property
    def holders(self) -> set[str]:
        """The siblings that have requests and have not answered them yet."""
        return {instance for each in self._open.values() for instance in each.holders}

    def next_end(self, opened_at: float) -> float:
        """Return when the first request is decided on, if nothing else is heard; or infinity.

        :param opened_at: when this server opened its connection.
        """
        return min((each.ends(opened_at) for each in self._open.values()), default=inf)


def _asked_at(question: Question) -> float:
    return question.asked_at
