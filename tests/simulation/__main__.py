"""The command line: `python -m tests.simulation --minutes 10 --seed 7`.

It plays stories, one seed after the other, and prints the shortest form of those that break a
promise. It ends with 0 only if none did.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.simulation.client import Outcome
from tests.simulation.judge import judge
from tests.simulation.plan import MIXES, Plan, draw
from tests.simulation.shrink import shrink
from tests.simulation.story import Evidence, play

#: How many stories that break the same promise are made short; that takes some seconds each.
_MADE_SHORT = 5


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.simulation", description="Plays servers and clients of qam under faults."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; may be a fraction")
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    parser.add_argument("--mix", choices=MIXES, help="what is drawn; by default each in turn")
    parser.add_argument("--tell", action="store_true", help="tell the story of one seed, and end")
    return parser


class _Run:
    """The stories of one run, and what they have shown."""

    def __init__(self) -> None:
        self._endings: Counter[str] = Counter()
        self._broken: Counter[str] = Counter()
        self._stories = 0

    def play(self, plan: Plan) -> None:
        evidence = play(plan)
        self._stories += 1
        self._endings.update(map(_ending, evidence.outcomes))
        for promise in {violation.what for violation in judge(evidence)}:
            self._broken[promise] += 1
            if self._broken[promise] <= _MADE_SHORT:
                print(f"\n{plan.seed}: {promise}; at its shortest:")
                tell(play(shrink(plan, promise)), with_journal=False)
            else:
                print(f"\n{plan.seed}: {promise}")

    def report(self) -> bool:
        """Print figures; return whether all promises were kept."""
        print(f"\nstories  {self._stories:>8}")
        for ending, number in self._endings.most_common():
            print(f"  {ending:<40}{number:>8}")
        for promise, number in self._broken.most_common():
            print(f"stories in which something {promise}: {number}")
        print(f"\nverdict: {'promises are broken' if self._broken else 'clean'}")
        return not self._broken


def _ending(outcome: Outcome) -> str:
    if outcome.void:
        return "nobody waits for it any more"
    return "a result" if outcome.ended and outcome.error is None else str(outcome)


def tell(evidence: Evidence, with_journal: bool) -> None:
    """Print a story in words, and which promises it breaks."""
    print(evidence.plan)
    if with_journal:
        print(*evidence.journal, sep="\n")
    for violation in judge(evidence):
        print(f"  => {violation}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays stories; returns the exit code."""
    given = _parser().parse_args(arguments)
    mixes = [given.mix] if given.mix else list(MIXES)
    if given.tell:
        evidence = play(draw(given.seed, mixes[0]))
        tell(evidence, with_journal=True)
        return 1 if judge(evidence) else 0
    run, seed = _Run(), given.seed
    until = time.monotonic() + 60 * given.minutes
    while time.monotonic() < until:
        for mix in mixes:
            run.play(draw(seed, mix))
        seed += 1
    return 0 if run.report() else 1


if __name__ == "__main__":
    sys.exit(main())
