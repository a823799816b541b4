"""What a soak has shown: the verdict, which names everything that must not be, and a table."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from tests.chaos.calls import HUNG_AFTER, IDEMPOTENT, IDEMPOTENT_RUNS
from tests.chaos.journal import BEGIN, END, Entry
from tests.chaos.outcomes import HUNG, NO_ERRORS, RAISED_AS_IT_SHOULD, RIGHT, WRONG, Outcome

#: What a call may end with while there are faults. All others would be untrue here: the server and
#: its methods are known, all arguments and results can be encoded, nobody closes a proxy.
HONEST_ERRORS = ("QAMConnectionException", "QAMServerLostException", "QAMTimeoutException")


@dataclass(frozen=True)
class Evidence:
    """All that is known when everybody has ended."""

    outcomes: Sequence[Outcome]
    #: What ran, by token.
    journal: Mapping[str, Sequence[Entry]]
    #: How often each fault struck.
    faults: Mapping[str, int] = field(default_factory=dict)
    #: There were no faults, and hence must be no errors.
    calm: bool = False
    #: What is wrong with how a process ended, by its name.
    bad_ends: Mapping[str, str] = field(default_factory=dict)
    #: What a process wrote to its standard error, by its name.
    stderr: Mapping[str, str] = field(default_factory=dict)
    #: The threads that were left after the proxy was closed, by the client's name.
    threads_left: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reply_queues_left: Sequence[str] = ()

    @cached_property
    def endings(self) -> Mapping[str, Sequence[Outcome]]:
        """How each call ended, by token: one outcome each, if all is well."""
        endings = defaultdict(list)
        for outcome in self.outcomes:
            endings[outcome.token].append(outcome)
        return dict(endings)

    def runs(self, token: str) -> int:
        """How often the method of a call has begun."""
        return sum(entry.event == BEGIN for entry in self.journal.get(token, ()))

    def finished_runs(self, token: str) -> int:
        """How often the method of a call has come to its end."""
        return sum(entry.event == END for entry in self.journal.get(token, ()))


class Violation(NamedTuple):
    """Something that must not be: what it is, whose (a token, or a name), and what is known."""

    what: str
    whose: str
    details: str

    def __str__(self) -> str:
        indented = "".join(f"\n    {line}" for line in self.details.splitlines())
        return f"{self.what}: {self.whose}{indented}"


# --- the verdict ----------------------------------------------------------------------------------


def find_violations(evidence: Evidence) -> list[Violation]:
    """Everything that must not be; a clean verdict is an empty list."""
    return [*_of_calls(evidence), *_of_runs(evidence), *_of_processes(evidence)]


def _of_calls(evidence: Evidence) -> Iterator[Violation]:
    if not evidence.outcomes:
        yield Violation("no call was made", "all clients", "so nothing is shown")
    for token, endings in evidence.endings.items():
        wrongs = [what for each in endings if (what := _wrong_with(each, evidence))]
        if len(endings) > 1:
            wrongs.append("ended more than once")
        for what in wrongs:
            yield Violation(what, token, _known_about(token, evidence))


def _wrong_with(outcome: Outcome, evidence: Evidence) -> str | None:
    """What must not be about how a call ended; None if all is well."""
    runs = evidence.runs(outcome.token)
    if outcome.outcome == HUNG or outcome.seconds > HUNG_AFTER:
        return "hung"
    if outcome.outcome == WRONG:
        return "wrong answer"
    if outcome.outcome in NO_ERRORS:
        has_run = evidence.finished_runs(outcome.token) > 0
        return None if has_run else "answered, but did not run"
    if outcome.executed == "no" and runs:
        return 'a lie: executed is "no", but it ran'
    if outcome.executed == "yes" and not runs:
        return 'a lie: executed is "yes", but it did not run'
    if outcome.outcome not in HONEST_ERRORS or evidence.calm:
        return "an error that nothing explains"
    return None


def _of_runs(evidence: Evidence) -> Iterator[Violation]:
    for token in evidence.journal:
        for what in _wrong_with_runs(token, evidence):
            yield Violation(what, token, _known_about(token, evidence))


def _wrong_with_runs(token: str, evidence: Evidence) -> Iterator[str]:
    endings = evidence.endings.get(token, ())
    allowed = max((_runs_allowed(each.method) for each in endings), default=1)
    if evidence.runs(token) > allowed:
        yield "ran too often"
    if not endings:
        yield "ran, but its call has no outcome"


def _runs_allowed(method: str) -> int:
    return IDEMPOTENT_RUNS if method == IDEMPOTENT else 1


def _of_processes(evidence: Evidence) -> Iterator[Violation]:
    for name, how in evidence.bad_ends.items():
        yield Violation("a process ended badly", name, how)
    for name, text in evidence.stderr.items():
        yield Violation("wrote to its stderr", name, text)
    for name, threads in evidence.threads_left.items():
        if threads:
            yield Violation("threads left after close", name, "\n".join(threads))
    for queue in evidence.reply_queues_left:
        yield Violation("reply queue left in the broker", queue, "")


def _known_about(token: str, evidence: Evidence) -> str:
    """How a call ended, and its lines in the journal."""
    endings = map(str, evidence.endings.get(token, ()))
    runs = map(str, evidence.journal.get(token, ()))
    return "\n".join([*endings, *(list(runs) or ["nothing in the journal"])])


# --- the table ------------------------------------------------------------------------------------


def table(evidence: Evidence) -> str:
    """What was done, and what came of it, in lines and columns."""
    return _aligned([*_calls(evidence), *_errors(evidence), *_times(evidence), *_faults(evidence)])


class _Row(NamedTuple):
    name: str
    value: str
    level: int = 0


def _calls(evidence: Evidence) -> Iterator[_Row]:
    counts = Counter(outcome.outcome for outcome in evidence.outcomes)
    yield _Row("calls made", str(len(evidence.outcomes)))
    yield _Row("right results", str(counts[RIGHT] + counts[RAISED_AS_IT_SHOULD]))
    yield _Row("values", str(counts[RIGHT]), 1)
    yield _Row("the method's own exception", str(counts[RAISED_AS_IT_SHOULD]), 1)
    yield _Row("wrong answers", str(counts[WRONG]))
    yield _Row("hung calls", str(counts[HUNG]))


def _errors(evidence: Evidence) -> Iterator[_Row]:
    kinds: dict[str, list[Outcome]] = defaultdict(list)
    for each in evidence.outcomes:
        if each.outcome not in NO_ERRORS:
            kinds[f"{each.outcome}, executed {each.executed}"].append(each)
    yield _Row("errors", str(sum(map(len, kinds.values()))))
    for name, errors in sorted(kinds.items()):
        had_run = sum(evidence.finished_runs(each.token) > 0 for each in errors)
        yield _Row(name, str(len(errors)), 1)
        yield _Row("though the method had run to its end", str(had_run), 2)


def _times(evidence: Evidence) -> Iterator[_Row]:
    seconds = sorted(each.seconds for each in evidence.outcomes) or [0.0]
    for name, percent in (("p50", 50), ("p99", 99), ("longest call", 100)):
        rank = math.ceil(len(seconds) * percent / 100)
        yield _Row(f"seconds, {name}", f"{seconds[rank - 1]:.3f}")


def _faults(evidence: Evidence) -> Iterator[_Row]:
    yield _Row("faults", str(sum(evidence.faults.values())))
    yield from (_Row(name, str(count), 1) for name, count in sorted(evidence.faults.items()))


def _aligned(rows: Sequence[_Row]) -> str:
    names = ["  " * row.level + row.name for row in rows]
    width = max(map(len, names))
    values = max(len(row.value) for row in rows)
    lines = [
        f"{name:<{width}}  {row.value:>{values}}" for name, row in zip(names, rows, strict=True)
    ]
    return "\n".join(lines)
