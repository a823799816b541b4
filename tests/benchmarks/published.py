"""What is published of a run: the figures of each round, and distributions in place of samples.

It is small enough to lie beside the page, and has all that the page and its plots show.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import percentile
from tests.benchmarks.options import Options
from tests.benchmarks.record import machine
from tests.benchmarks.results import Results

FILE = "figures.json"
#: The percentiles of a distribution: all whole ones, and those of the rare slow calls.
PERCENTS = (*map(float, range(1, 100)), 99.5, 99.9, 100.0)
_AS_THEY_ARE = ("samples", "not_offered", "broker", "load_before", "versions", "figures")


def published(options: Options, results: Results) -> dict[str, Any]:
    """All of it, as JSON can carry it."""
    return {
        "machine": machine(),
        "quick": options.quick,
        "rounds": options.rounds,
        "contestants": list(options.contestants),
        **{name: getattr(results, name) for name in _AS_THEY_ARE},
        "sweeps": results.sweeps,
        "distributions": {
            name: {measure: _distribution(rounds) for measure, rounds in by_measure.items()}
            for name, by_measure in results.latencies.items()
        },
        "failures": [f"{each.contestant}, {each.what}: {each.error}" for each in results.failures],
    }


def _distribution(rounds: list[list[float]]) -> list[float]:
    """Microseconds at each of PERCENTS, of the calls of all rounds together."""
    latencies = sorted(each for one in rounds for each in one)
    return [percentile(latencies, percent) for percent in PERCENTS]


def write(data: dict[str, Any], folder: Path) -> None:
    """Write it into *folder*: what is read there is the same as what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f'"{name}": {json.dumps(value)}' for name, value in data.items())
    (folder / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """What was written into *folder*."""
    data: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return data


def results_of(data: dict[str, Any]) -> Results:
    """The results from which the tables are made; without single latencies."""
    results = Results(**{name: data[name] for name in _AS_THEY_ARE})
    samples = {name: defaultdict(list, columns) for name, columns in data["samples"].items()}
    results.samples = defaultdict(lambda: defaultdict(list), samples)
    for name, by_contestant in data["sweeps"].items():
        for contestant, points in by_contestant.items():
            results.sweeps[name][contestant] = {int(at): each for at, each in points.items()}
    return results
