"""The command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contestants import CONTESTANTS, REFERENCE

_ROOT = Path(__file__).parents[2]
_ENVIRONMENTS = _ROOT / ".tox" / "benchmark-environments"

_ROUNDS, _QUICK_ROUNDS = 5, 2
_CALLS, _QUICK_CALLS = 1_000, 200
_SECONDS, _QUICK_SECONDS = 1.0, 0.3


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a time."""

    #: Calls of a measure of latency.
    calls: int = _CALLS
    #: What a measure of throughput is to last, whoever it is that is measured.
    seconds: float = _SECONDS
    #: Calls of a measure of throughput at most.
    most_calls: int = 100 * _CALLS
    outstanding: int = 1_000
    threads: int = 16
    echo_bytes: int = 2**20


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    contestants: tuple[str, ...]
    rounds: int
    sizes: Sizes
    quick: bool
    json: Path | None
    plots: Path | None
    page: Path | None
    environments: Path


def _contestants(text: str) -> tuple[str, ...]:
    """The names in a list with commas, and the reference, in the order of CONTESTANTS."""
    asked = {name.strip() for name in text.split(",")} | {REFERENCE}
    if unknown := asked - CONTESTANTS.keys():
        known = ", ".join(CONTESTANTS)
        raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))}; there are {known}")
    return tuple(name for name in CONTESTANTS if name in asked)


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks", description="Measures qam beside other libraries."
    )
    add = parser.add_argument
    add("--contestants", type=_contestants, default=tuple(CONTESTANTS), metavar="A,B,…")
    add("--rounds", type=_count, help=f"by default {_ROUNDS}; with --quick {_QUICK_ROUNDS}")
    add("--calls", type=_count, help=f"of a latency; {_CALLS}, with --quick {_QUICK_CALLS}")
    add("--quick", action="store_true", help="less of each, and no sweeps")
    add("--json", type=Path, metavar="FILE", help="all samples, versions, and the machine")
    add("--plots", type=Path, metavar="FOLDER", help="where plots are drawn, and their data put")
    add("--page", type=Path, metavar="FILE", help="whose figures are replaced; its plots beside it")
    add(
        "--environments", type=Path, default=_ENVIRONMENTS, metavar="FOLDER", help=argparse.SUPPRESS
    )
    return parser


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options on the command line; it ends with 2 if they make no sense."""
    given = vars(_parser().parse_args(arguments))
    quick, calls = given["quick"], given.pop("calls")
    calls = calls or (_QUICK_CALLS if quick else _CALLS)
    rounds = given.pop("rounds") or (_QUICK_ROUNDS if quick else _ROUNDS)
    seconds = _QUICK_SECONDS if quick else _SECONDS
    return Options(rounds=rounds, sizes=Sizes(calls, seconds, 100 * calls), **given)
