"""Whether the tests of a module notice small changes to it; `tox run -e mutants`.

Each change is made to one module at a time, and the test files of that module are run with it.
What none of them notices is printed; where that is a tenth of all, it is a failure.

A library would do, if it could drop statements: of the changes that no test noticed before, the
half were such.  cosmic-ray and mutmut change operators and values alone.
"""

import argparse
import os
import sys

from tests.each.table import files_that_test
from tests.mutants.changes import changes_of
from tests.mutants.run import ROOT, Outcome, try_changes

#: What decides, and what carries it out.
MODULES = [
    "qam/_client/call_fates.py",
    "qam/_client/method_queue.py",
    "qam/_client/publisher_thread.py",
    "qam/_client/consumer_thread.py",
    "qam/_broker/fates.py",
    "qam/_broker/later.py",
    "qam/_broker/loan.py",
    "qam/_broker/publishing_thread.py",
    "qam/_broker/reconnection.py",
    "qam/_server/reused_keys.py",
    "qam/_server/intake.py",
    "qam/_server/reply_fates.py",
    "qam/_server/record.py",
    "qam/_server/siblings.py",
    "qam/_server/membership.py",
    "qam/_server/judgement.py",
    "qam/_server/known_siblings.py",
    "qam/_server/sibling_outbox.py",
    "qam/_server/sibling_questions.py",
    "qam/_server/closing.py",
    "qam/_server/method_registry.py",
    "qam/_server/publisher_thread.py",
    "qam/_server/request_consumer_thread.py",
]
#: So many of a hundred changes may go unnoticed; some change nothing that anybody could see.
MOST_SURVIVORS = 10


def main() -> int:
    """Try all changes; return the exit code."""
    options = _options()
    made = survived = 0
    for module in options.modules or MODULES:
        changes = list(changes_of((ROOT / module).read_text()))
        survivors = []
        for change, outcome in try_changes(
            module, files_that_test(module), changes, options.at_once
        ):
            if outcome is Outcome.SURVIVES:
                survivors.append(change)
        made, survived = made + len(changes), survived + len(survivors)
        print(f"{module}: {len(survivors)} of {len(changes)} survive", flush=True)
        for change in sorted(survivors, key=lambda each: each.line):
            print(f"    {change}", flush=True)
    percent = 100.0 * survived / made if made else 0.0
    print(f"{survived} of {made} changes survive: {percent:.1f} %")
    return 1 if percent >= MOST_SURVIVORS else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("modules", nargs="*", help="such as qam/_server/intake.py; by default all")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
