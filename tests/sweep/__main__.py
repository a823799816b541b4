"""Sweeps the standard library and the named packages; says what came of each."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.sweep.packages import NAMED, PYTHON, with_what_comes_with

#: How many classes of exceptions have to be found; fewer is a sweep that does not look.
AT_LEAST = {
    PYTHON: 250,
    "flask": 3,
    "werkzeug": 40,
    "jinja2": 10,
    "click": 10,
    "django": 50,
    "requests": 20,
    "urllib3": 30,
    "sqlalchemy": 70,
    "jsonschema": 8,
    "referencing": 9,
    "celery": 35,
    "kombu": 20,
    "billiard": 8,
    "amqp": 20,
    "botocore": 120,
    "psycopg": 220,
}


#: Classes whose own text has no bounds, where it is asked for: a position in an expression is how
#: many blanks they write. Who shows an exception runs this code of its class.
OWN_TEXTS = {
    *(f"jmespath.exceptions.{name}Error" for name in ("IncompleteExpression", "Lexer", "Parse")),
}


class SweepError(Exception):
    """A process of the sweep found something, or did not look at all."""


def swept(distribution: str, *options: str) -> dict[str, Any]:
    """Sweep *distribution* in a process of its own; return what it says at the end.

    :raises SweepError: it found something; its text says what, and at which class.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweep.child", distribution, *options],
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines() or ["the start"]
    if done.returncode != 0:
        ended = f"{distribution} ended with {done.returncode} at {lines[-1]}"
        raise SweepError(f"{ended}\n{done.stderr[-3000:]}")
    report: dict[str, Any] = json.loads(lines[-1])
    if report["classes"] < AT_LEAST.get(distribution, 0):
        raise SweepError(f"{distribution}: only {report['classes']} classes were found")
    if distribution in AT_LEAST and not report["came"].get("as itself"):
        raise SweepError(f"{distribution}: nothing arrived as itself: {report['came']}")
    if new := set(report["own_texts"]) - OWN_TEXTS:
        raise SweepError(f"{distribution}: texts without bounds: {sorted(new)}")
    return report


def _line(distribution: str, report: dict[str, Any]) -> str:
    came = ", ".join(f"{number} {how}" for how, number in report["came"].items())
    cost = f"{report['seconds']:.1f} s of CPU, {report['grown'] / 2**20:.0f} MiB"
    return f"{distribution}: {report['classes']} classes, {cost}; {came or 'nothing to do'}"


def _not_imported(report: dict[str, Any]) -> list[str]:
    by_reason = defaultdict[str, list[str]](list)
    for name, reason in report["not_imported"].items():
        by_reason[reason].append(name)
    return [f"    not imported: {', '.join(names)} ({why})" for why, names in by_reason.items()]


def _said(distribution: str) -> tuple[str, bool]:
    """Return what is said of *distribution*, and whether it is well."""
    try:
        report = swept(distribution)
    except SweepError as error:
        return f"FAILED: {error}", False
    return "\n".join([_line(distribution, report), *_not_imported(report)]), True


def main() -> int:
    """Return how the process ends."""
    names = sys.argv[1:] or [PYTHON, *with_what_comes_with(NAMED)]
    missing = [name for name in NAMED if not sys.argv[1:] and name not in names]
    all_well = not missing
    if missing:
        print(f"FAILED: not installed: {', '.join(missing)}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for said, well in pool.map(_said, names):
            print(said, flush=True)
            all_well &= well
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main())
