"""The requests under judgement: what the other servers of one server_id were asked.

No I/O here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from qam._protocol.correlation import CallKey
from qam._server.call import Call
from qam._server.known_siblings import GRACE, VALID

#: Seconds for which a question may wait to be sent, as while the broker has an alarm.
_ECHO_TIMEOUT = 10 * GRACE


class Verdict(Enum):
    """What is to become of a request that may have been received before."""

    RUN = "run"  # nobody began with it
    MINE = "mine"  # somebody else has it, and answers
    LOST = "lost"  # whoever had it may be gone


@dataclass(slots=True)
class Question:
    """A request under judgement."""

    key: CallKey
    resent: bool
    asked_at: float
    vouched: bool
    #: Those who are still to say a word; nobody waits for one that is taken for dead.
    silent: set[str]
    calls: list[Call] = field(default_factory=list)
    #: When this server's own copy of the question came back: all that others said
    #: before it has been heard.
    echoed_at: float | None = None
    answered: set[str] = field(default_factory=set)
    #: Somebody says that it is lost; which counts if nobody else has it.
    lost: bool = False
    verdict: Verdict | None = None

    @property
    def echo_expected_until(self) -> float:
        """When it is given up that others hear of this question."""
        return self.asked_at + _ECHO_TIMEOUT

    def take_word(self, sender: str, known: bool, said: str, now: float) -> None:
        """*sender* said mine, lost, never or vouch.

        :param known: it is one of those that are waited for when they are there.
        """
        if known:
            self.answered.add(sender)
        self.silent.discard(sender)
        if said == "mine":
            self.verdict = self.verdict or Verdict.MINE
        elif said == "lost":
            self.lost = True
        elif said == "vouch" and now - self.asked_at < VALID:
            self.vouched = True


class Questions:
    """The questions of one server that are open, by the keys of their requests."""

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
        """*question* is open from now on."""
        self._open[question.key] = question

    def remove(self, question: Question) -> None:
        """*question* is decided."""
        del self._open[question.key]

    def clear(self) -> None:
        """What was asked about comes again."""
        self._open.clear()

    def echoed(self, keys: Iterable[CallKey], now: float) -> None:
        """This server heard its own questions about *keys*."""
        for key in self._open.keys() & keys:
            self._open[key].echoed_at = now

    def expect(self, instance: str) -> None:
        """Have every open question wait for *instance*, which is there."""
        for question in self._open.values():
            if instance not in question.answered:
                question.silent.add(instance)

    def expect_no_more(self, instance: str) -> None:
        """Have no question wait for *instance*."""
        for question in self._open.values():
            question.silent.discard(instance)
