"""What a run has shown so far."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.contestants import REFERENCE
from tests.benchmarks.figures import Sample, cost_ratio, median
from tests.benchmarks.measures import Column, Measure, Taken


@dataclass(frozen=True)
class Failure:
    """Something that did not work, and why."""

    contestant: str
    what: str
    error: str


def _lists_in_dicts() -> Any:
    return defaultdict(lambda: defaultdict(list))


def _dicts_in_dicts() -> Any:
    return defaultdict(lambda: defaultdict(dict))


@dataclass
class Results:
    """The samples, a list of rounds for each contestant and column or measure."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=_lists_in_dicts)
    latencies: dict[str, dict[str, list[list[float]]]] = field(default_factory=_lists_in_dicts)
    #: Why a contestant has no way to do what a measure asks for.
    not_offered: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    failures: list[Failure] = field(default_factory=list)
    #: The broker and its version.
    broker: str = ""
    #: How many processes wanted a CPU in the minute before: what else the machine had to do.
    load_before: float = 0.0
    #: What each was measured with: contestant, then package.
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    #: Points of the sweeps: sweep, then contestant, then what is varied.
    sweeps: dict[str, dict[str, dict[int, list[float]]]] = field(default_factory=_dicts_in_dicts)
    #: Single figures: name, then contestant.
    figures: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, contestant: str, measure: Measure, taken: Taken) -> None:
        """What a measure has shown in this round."""
        for column in measure.columns:
            self.samples[contestant][column].append(taken.figures[column])
        if taken.latencies:
            self.latencies[contestant][measure.name].append(taken.latencies)

    def add_nothing(self, contestant: str, measure: Measure, reason: str) -> None:
        """The contestant has no way to do it."""
        self.not_offered[contestant][measure.name] = reason
        self._miss(contestant, measure)

    def add_failures(self, contestant: str, measures: Sequence[Measure], error: str) -> None:
        """They all failed in this round, for the same reason."""
        what = ", ".join(measure.name for measure in measures)
        self.failures.append(Failure(contestant, what, error))
        for measure in measures:
            self._miss(contestant, measure)

    def _miss(self, contestant: str, measure: Measure) -> None:
        # So that each place in a list is the same round for all.
        for column in measure.columns:
            self.samples[contestant][column].append(None)

    def add_point(self, sweep: str, contestant: str, point: int, value: float) -> None:
        """What a sweep has shown in this round."""
        self.sweeps[sweep][contestant].setdefault(point, []).append(value)

    def points(self, sweep: str, contestant: str) -> dict[int, list[float]]:
        """What a sweep has shown at each point, in each round."""
        return self.sweeps.get(sweep, {}).get(contestant, {})  # makes no entry in the defaultdict

    def value(self, contestant: str, column: Column) -> Sample:
        """The median over the rounds."""
        return median(self.samples[contestant][column.name])

    def ratio(self, contestant: str, column: Column) -> Sample:
        """How many times as dear as the reference."""
        reference = self.samples[REFERENCE][column.compared_with or column.name]
        return cost_ratio(self.samples[contestant][column.name], reference, column.more_is_better)
