"""A round of a contestant: all measures in new processes."""

from dataclasses import dataclass

from tests.benchmarks.contestants import Contestant
from tests.benchmarks.contract import NotOffered
from tests.benchmarks.measures import MEASURES, Measure, Pair
from tests.benchmarks.options import Sizes
from tests.benchmarks.processes import Failed, NotStarted
from tests.benchmarks.results import Results
from tests.benchmarks.task import Say, Stage


@dataclass(frozen=True)
class Round:
    """One round of one contestant."""

    number: int
    contestant: Contestant
    sizes: Sizes

    @property
    def title(self) -> str:
        """Shown while it runs."""
        return f"round {self.number}, {self.contestant.name}"

    def run(self, stage: Stage, results: Results, say: Say) -> None:
        """Takes each measure; after one that failed, the others get new processes."""
        remaining = list(MEASURES)
        while remaining:
            try:
                with stage.pair(self.contestant) as pair:
                    self._take(pair, results, remaining, say)
            except NotStarted as error:
                results.add_failures(self.contestant.name, remaining, str(error))
                return
            except Failed as error:
                results.add_failures(self.contestant.name, [remaining.pop(0)], str(error))

    def _take(self, pair: Pair, results: Results, remaining: list[Measure], say: Say) -> None:
        while remaining:
            measure = remaining[0]
            say(measure.name)
            try:
                results.add(self.contestant.name, measure, measure.take(pair, self.sizes))
            except NotOffered as reason:
                results.add_nothing(self.contestant.name, measure, str(reason))
            del remaining[0]
