"""The command line: `python -m tests.chaos --minutes 10 --seed 7`.

It prints a table and a verdict, and ends with 0 only if nothing was found that must not be.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.report import find_violations, table
from tests.chaos.soak import Options, soak


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.chaos", description="Soaks qam under faults.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; may be a fraction")
    parser.add_argument("--seed", type=int, default=7, help="what faults and calls are drawn from")
    parser.add_argument("--servers", type=int, default=3, help="how many, all under one id")
    parser.add_argument("--clients", type=int, default=2, help="how many, each with one proxy")
    parser.add_argument("--calm", action="store_true", help="no faults: no errors are allowed")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a soak; returns the exit code."""
    given = vars(_parser().parse_args(arguments))
    keep = given.pop("keep")
    folder = Path(tempfile.mkdtemp(prefix="qam-chaos-"))
    clean = False
    try:
        clean = _soak_and_report(Options(**given), folder)
    finally:
        if clean and not keep:
            shutil.rmtree(folder)
        else:
            print(f"\nlogs, journal and outcomes: {folder}")
    return 0 if clean else 1


def _soak_and_report(options: Options, folder: Path) -> bool:
    """Prints what a soak has shown; True if it has shown nothing bad."""
    evidence = soak(options, folder)
    violations = find_violations(evidence)
    print(table(evidence))
    print(f"\nverdict: {f'{len(violations)} violations' if violations else 'clean'}")
    for violation in violations:
        print(violation)
    return not violations


if __name__ == "__main__":
    sys.exit(main())
