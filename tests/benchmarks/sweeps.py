"""How a figure changes with what is varied: outstanding calls, threads, or the payload."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.contestants import Contestant
from tests.benchmarks.figures import Sample, cost_ratio, percentile
from tests.benchmarks.measures import Pair, calls_to_pipeline, rate_of_threads, seconds_of_echo
from tests.benchmarks.options import Sizes
from tests.benchmarks.processes import Failed
from tests.benchmarks.results import Failure, Results
from tests.benchmarks.task import Say, Stage

_MANY_OUTSTANDING = 10_000
_ENDS_WITHIN = 600.0  # seconds


@dataclass(frozen=True)
class Sweep:
    """A figure at each of several points."""

    name: str
    varied: str
    unit: str
    points: tuple[int, ...]
    take: Callable[[Pair, Sizes, int], float]


def _by_outstanding(pair: Pair, sizes: Sizes, outstanding: int) -> float:
    if outstanding < _MANY_OUTSTANDING:
        calls = calls_to_pipeline(pair, sizes, outstanding)
    else:
        calls = 2 * outstanding  # which takes so long that nothing needs to be warm before
    arguments = {"calls": calls, "outstanding": outstanding}
    return calls / pair.client.do("pipeline", within=_ENDS_WITHIN, **arguments)


def _by_payload(pair: Pair, sizes: Sizes, size: int) -> float:
    return size / seconds_of_echo(pair, sizes, size) / 1e6


def _by_computing_threads(pair: Pair, sizes: Sizes, threads: int) -> float:
    calls = max(10, sizes.calls // 10)
    return percentile(pair.client.do("beside_cpu_bound", calls=calls, threads=threads), 50) * 1e6


OUTSTANDING = Sweep(
    "outstanding",
    "calls outstanding",
    "calls/s",
    (1, 10, 100, 1_000, 10_000, 100_000),
    _by_outstanding,
)
SWEEPS = (
    OUTSTANDING,
    Sweep("threads", "threads that call", "calls/s", (1, 2, 4, 8, 16, 32, 64), rate_of_threads),
    Sweep(
        "payload",
        "bytes echoed",
        "MB/s",
        (10, 100, 1_000, 10_000, 100_000, 2**20, 2**23),
        _by_payload,
    ),
    Sweep(
        "beside CPU",
        "threads that compute beside",
        "µs (p50 of a call)",
        (0, 1, 2, 4),
        _by_computing_threads,
    ),
)


@dataclass(frozen=True)
class SweepRound:
    """One round of one sweep over one contestant."""

    sweep: Sweep
    contestant: Contestant
    sizes: Sizes

    @property
    def title(self) -> str:
        """Shown while it runs."""
        return f"by {self.sweep.varied}, {self.contestant.name}"

    def run(self, stage: Stage, results: Results, say: Say) -> None:
        """Takes the points, from the least to the largest."""
        try:
            with stage.pair(self.contestant) as pair:
                pair.client.do("sync", calls=100)  # warm-up
                for point in self.sweep.points:
                    say(f"{point:,}")
                    value = self.sweep.take(pair, self.sizes, point)
                    results.add_point(self.sweep.name, self.contestant.name, point, value)
        except Failed as error:
            results.failures.append(Failure(self.contestant.name, self.title, str(error)))


def growth_with_outstanding(results: Results, contestant: str) -> Sample:
    """How many times as dear a call is with 100,000 outstanding as it is with 1,000."""
    points = results.points(OUTSTANDING.name, contestant)
    return cost_ratio(points.get(100_000, []), points.get(1_000, []), more_is_better=True)
