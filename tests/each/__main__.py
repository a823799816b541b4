"""Whether each unit-test file covers its own module, run by itself; `tox run -e each`.

Where a module is covered by chance, by tests of something else, it may change without any test
that speaks of it.  So each test file runs alone, and has to cover nearly all of the module that it
is named after.  What is not so is said in tests/each/table.py, and nowhere else.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import or_

from tests.each.measure import Coverage, NotGreenByItselfError, cover
from tests.each.table import BELOW, faults_of_the_table, files_that_test, modules

#: Of a hundred lines and branches of a module, so many have to be executed.
ENOUGH = 95.0


def main() -> int:
    """Measure, and print a line for each module; return the exit code."""
    options = _options()
    chosen = [each for each in modules() if not options.modules or each in options.modules]
    faults = faults_of_the_table()
    measured = _measure(
        {file for each in chosen for file in files_that_test(each)}, options.at_once
    )
    faults += [str(outcome) for outcome in measured.values() if isinstance(outcome, Exception)]
    for module in chosen:
        found = _coverage_of(module, measured)
        files = " ".join(files_that_test(module)) or "none"
        print(f"{found.percent:6.1f} %  {module}  by {files}")
        faults += _faults_of(module, found)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def _measure(
    files: Iterable[str], at_once: int
) -> dict[str, dict[str, Coverage] | NotGreenByItselfError]:
    def measure(file: str) -> dict[str, Coverage] | NotGreenByItselfError:
        try:
            return cover(file)
        except NotGreenByItselfError as error:
            return error

    ordered = sorted(files)
    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(ordered, pool.map(measure, ordered), strict=True))


def _coverage_of(
    module: str, measured: dict[str, dict[str, Coverage] | NotGreenByItselfError]
) -> Coverage:
    found = [measured[file] for file in files_that_test(module)]
    return reduce(or_, [each[module] for each in found if isinstance(each, dict)], Coverage())


def _faults_of(module: str, found: Coverage) -> list[str]:
    if module in BELOW:
        if found.percent >= ENOUGH and files_that_test(module):
            return [f"{module}: is covered now; take it out of BELOW"]
        print(f"          {BELOW[module]}")
        return []
    if found.percent >= ENOUGH:
        return []
    lines = ", ".join(map(str, found.missing_lines))
    return [f"{module}: less than {ENOUGH:g} % is covered by its own tests; lines {lines}"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.each")
    parser.add_argument("modules", nargs="*", help="such as qam/_server/intake.py; by default all")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
