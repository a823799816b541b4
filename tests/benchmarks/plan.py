"""The tasks of a run, in their order."""

from tests.benchmarks.contestants import Contestant
from tests.benchmarks.footprint import Idle, Memory
from tests.benchmarks.options import Options
from tests.benchmarks.rounds import Round
from tests.benchmarks.sweeps import SWEEPS, SweepRound
from tests.benchmarks.task import Task

# With 100,000 calls outstanding a round takes minutes.
_MOST_ROUNDS_OF_SWEEPS = 3
#: Who is measured at every point: for all of them it would take hours.
SWEPT = ("raw", "qam", "qam-transient")


def plan(options: Options, contestants: list[Contestant]) -> list[Task]:
    """Rounds in which everybody is measured; then, without --quick, the rest."""
    rounds = range(1, options.rounds + 1)
    tasks: list[Task] = [Round(n, each, options.sizes) for n in rounds for each in contestants]
    return tasks if options.quick else tasks + _beyond(options, contestants)


def _beyond(options: Options, contestants: list[Contestant]) -> list[Task]:
    swept = [each for each in contestants if each.name in SWEPT]
    sweeps = [
        SweepRound(sweep, each, options.sizes)
        for _ in range(min(options.rounds, _MOST_ROUNDS_OF_SWEEPS))
        for sweep in SWEEPS
        for each in swept
    ]
    return [*map(Idle, contestants), *map(Memory, swept), *sweeps]
