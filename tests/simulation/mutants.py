"""Decisions that are taken out, one at a time: the simulation has to notice each."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from qam._broker.fates import Fate
from qam._client.call_fates import CallFates
from qam._client.result_list import ResultList
from qam._protocol.correlation import CallKey
from qam._server import reply_fates
from qam._server.intake import Intake
from qam._server.known_siblings import KnownSiblings
from qam._server.open_deliveries import OpenDeliveries
from qam._server.record import Record
from qam._server.reply_fates import ReplyFates
from qam._server.sibling_questions import Question, Verdict
from qam._server.siblings import Siblings

_take_verdicts = Siblings.take_verdicts
_settled = Intake.settled
_decide = ReplyFates.decide
_decide_call = CallFates.decide
_take_word = Question.take_word


def _never_lost(siblings: Siblings) -> Any:
    """Nothing is ever taken for lost: it runs."""
    verdicts = _take_verdicts(siblings)
    return [(calls, Verdict.RUN if it is Verdict.LOST else it) for calls, it in verdicts]


def _duplicates_forgotten(intake: Intake, calls: Any) -> Any:
    """What came again while it ran is not seen to when it ends."""
    for call in calls:
        call.duplicates = None
    return _settled(intake, calls)


def _unknown_replies_dropped(fates: ReplyFates, fate: Fate, messages: Any, *rest: Any) -> Any:
    """A reply of which nobody knows whether it arrived counts as arrived."""
    return _decide(fates, Fate.CONFIRMED if fate is Fate.UNKNOWN else fate, messages, *rest)


def _unknown_requests_dropped(fates: CallFates, fate: Fate, calls: Any, *rest: Any) -> Any:
    """A request of which nobody knows whether it arrived is not sent again."""
    return [] if fate is Fate.UNKNOWN else _decide_call(fates, fate, calls, *rest)


def _idle_without_deliveries(intake: Intake) -> bool:
    """What has no open delivery does not run."""
    return len(intake._deliveries) <= intake.siblings.held


def _gives_its_copy_away(question: Question, *_: Any) -> None:
    """Another server has it: there is no need to keep a copy of it."""
    question.verdict = Verdict.MINE


def _lost_at_once(question: Question, sender: str, known: bool, said: str, now: float) -> None:
    """Who says that it is lost is right, whatever others say."""
    _take_word(question, sender, known, said, now)
    if said == "lost":
        question.verdict = Verdict.LOST


class Mutant(NamedTuple):
    """A decision: where it is, what stands in its place, the mix of stories that misses it, and the
    seed of one of them."""

    where: Any
    attribute: str
    instead: Any
    mix: str
    seed: int


MUTANTS = {
    "the record knows nothing": Mutant(Record, "knows", lambda *_: False, "network", 5),
    "nothing is ever lost": Mutant(Siblings, "take_verdicts", _never_lost, "killed servers", 1),
    "nobody is waited for": Mutant(Question, "judge", lambda *_: Verdict.RUN, "killed servers", 1),
    "a dead sibling is not missed": Mutant(
        KnownSiblings, "mark_absent", lambda *_: False, "killed servers", 103
    ),
    "duplicates are forgotten": Mutant(Intake, "settled", _duplicates_forgotten, "network", 5),
    "replies on their way are dropped": Mutant(
        ReplyFates, "decide", _unknown_replies_dropped, "network", 272
    ),
    "requests on their way are dropped": Mutant(
        CallFates, "decide", _unknown_requests_dropped, "network", 54
    ),
    "nothing is acknowledged": Mutant(OpenDeliveries, "take_acks", lambda *_: [], "peace", 0),
    "a lost reply queue is no matter": Mutant(
        CallFates, "replies_lost", lambda *_: [], "lost replies", 7
    ),
    "a server covers all": Mutant(
        Record, "covers", lambda *_: True, "lost replies and deploys", 10
    ),
    "who leaves is forgotten with what it ran": Mutant(
        Record, "uncover", lambda _: None, "lost replies and deploys", 97
    ),
    "what has no open delivery does not run": Mutant(
        Intake, "is_idle", property(_idle_without_deliveries), "cuts and deploys", 133
    ),
    "the only copy is given away": Mutant(
        Question, "claimed_by", _gives_its_copy_away, "cuts and deploys", 382
    ),
    "lost wins over mine": Mutant(
        Question, "take_word", _lost_at_once, "lost replies and cuts", 27
    ),
    "what is given back again is not marked": Mutant(
        reply_fates, "_mark_copy", lambda _: None, "giving back", 323
    ),
    "a key is never used again": Mutant(
        CallKey, "is_unique", property(lambda _: True), "foreign clients", 1
    ),
    "outcomes go anywhere": Mutant(ResultList, "new_call_id", lambda _: 1, "peace", 1),
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Take that decision out meanwhile."""
    mutant = MUTANTS[name]
    with patch.object(mutant.where, mutant.attribute, mutant.instead):
        yield
