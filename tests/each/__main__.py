"""Whether each unit-test file covers its own module, run by itself; `tox run -e each`.

Where a module is covered by chance, by tests of something else, it may change without any test
that speaks of it.  So each test file runs alone, and has to cover nearly all of the module that it
is named after.  What is not so is said in tests/each/table.py, and nowhere else.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from functools import reduce
from operator import or_

from tests.each.measure import Coverage, NotGreen, Outcome, cover_each
from tests.each.table import BELOW, faults_of_the_table, files_that_test, modules

#: Of a hundred lines and branches of a module, so many have to be executed.
ENOUGH = 95.0


def main() -> int:
    """Measure; print each module and each fault as soon as it is known; return the exit code."""
    options = _options()
    faults = 0
    for line, is_fault in _lines(options.modules or modules(), options.at_once):
        print(line, flush=True)  # a run that is cut off has told what it knew
        faults += is_fault
    print(f"{faults} faults")
    return 1 if faults else 0


def _lines(chosen: list[str], at_once: int) -> Iterator[tuple[str, bool]]:
    """Yield what there is to say, and whether it is a fault."""
    for fault in faults_of_the_table():
        yield fault, True
    left, outcomes = chosen, dict[str, Outcome]()
    for test_file, outcome in cover_each(_modules_by_file(chosen), at_once):
        outcomes[test_file] = outcome
        if isinstance(outcome, NotGreen):
            yield str(outcome), True
        known = [each for each in left if outcomes.keys() >= {*files_that_test(each)}]
        left = [each for each in left if each not in known]
        for module in known:
            yield from _lines_of(module, [outcomes[each] for each in files_that_test(module)])
    for module in left:  # no test file is known for it
        yield from _lines_of(module, [])


def _modules_by_file(chosen: list[str]) -> dict[str, list[str]]:
    """The test files of the modules, and which of these each tests."""
    by_file = dict[str, list[str]]()
    for module in chosen:
        for test_file in files_that_test(module):
            by_file.setdefault(test_file, []).append(module)
    return by_file


def _lines_of(module: str, outcomes: list[Outcome]) -> Iterator[tuple[str, bool]]:
    measured = [each[module] for each in outcomes if not isinstance(each, NotGreen)]
    files = " ".join(files_that_test(module)) or "none"
    if not measured or len(measured) < len(outcomes):
        yield f"     ? %  {module}  by {files}", False
    else:
        found = reduce(or_, measured)
        yield f"{found.percent:6.1f} %  {module}  by {files}", False
        yield from ((fault, True) for fault in _faults_of(module, found))
    if module in BELOW:
        yield f"          {BELOW[module]}", False


def _faults_of(module: str, found: Coverage) -> list[str]:
    if module in BELOW:
        is_covered = found.percent >= ENOUGH
        return [f"{module}: is covered now; take it out of BELOW"] if is_covered else []
    if found.percent >= ENOUGH:
        return []
    lines = ", ".join(map(str, found.missing_lines))
    return [f"{module}: less than {ENOUGH:g} % is covered by its own tests; lines {lines}"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.each")
    parser.add_argument("modules", nargs="*", help="such as qam/_server/intake.py; by default all")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if unknown := [each for each in options.modules if each not in modules()]:
        parser.error(f"no such module: {', '.join(unknown)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
