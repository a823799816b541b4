"""Whether what was promised was kept in a story."""

from collections.abc import Iterator
from typing import NamedTuple

from qam.exceptions import QAMException, QAMServerLostException
from tests.simulation.client import Outcome
from tests.simulation.story import Evidence

#: How often an idempotent method may begin for one call.
_MOST_RUNS = 3


class Violation(NamedTuple):
    """Something that must not be."""

    what: str
    whose: str
    details: str

    def __str__(self) -> str:
        return f"{self.whose} {self.what}: {self.details}"


def judge(evidence: Evidence) -> list[Violation]:
    """Return all that must not be."""
    if evidence.crash is not None:
        return [Violation("an internal error", "the library", repr(evidence.crash))]
    found = [each for outcome in evidence.outcomes for each in _of_call(evidence, outcome)]
    hangs = any(each.what == HANGS for each in found)
    if not hangs:  # what hangs is left behind anyway
        found += [Violation(LEFT, "something", what) for what in evidence.left_behind]
    return found


HANGS = "does not end"
WRONG = "gets a wrong result"
TWICE = "runs too often"
LIES = "is told a lie"
LEFT = "is left behind"
NEEDLESS = "fails although nothing has"


def _of_call(evidence: Evidence, outcome: Outcome) -> Iterator[Violation]:
    token = outcome.token
    begun, ended = evidence.times("begins", token), evidence.times("ends", token)
    most = _MOST_RUNS if outcome.method == "again" else 1
    if begun > most:
        yield Violation(TWICE, token, f"{begun} times")
    if outcome.void:
        return
    if not outcome.ended:
        yield Violation(HANGS, token, f"{outcome.method} began {begun} times, ended {ended} times")
    elif outcome.error is None:
        if outcome.result != token:
            yield Violation(WRONG, token, f"{outcome.result!r}")
        elif not ended:
            yield Violation(WRONG, token, "a result, although its method did not end")
    elif not isinstance(outcome.error, QAMException):
        yield Violation(WRONG, token, repr(outcome.error))
    else:
        yield from _of_failure(evidence, outcome, outcome.error, begun, ended)


def _of_failure(
    evidence: Evidence, outcome: Outcome, error: QAMException, begun: int, ended: int
) -> Iterator[Violation]:
    if error.executed == "no" and begun:
        yield Violation(LIES, outcome.token, f"it ran, and {error!r} says no")
    if error.executed == "yes" and not ended:
        yield Violation(LIES, outcome.token, f"it did not run, and {error!r} says yes")
    if isinstance(error, QAMServerLostException) and ended and evidence.nobody_is_missed:
        yield Violation(NEEDLESS, outcome.token, f"it ran to its end, and {error!r}")
    if evidence.peaceful and outcome.timeout is None:
        yield Violation(NEEDLESS, outcome.token, repr(error))
