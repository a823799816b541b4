"""Runs test files one by one, and tells which lines and branches of the package each covers."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What has rows of its own in tox.ini, or can't run beside coverage.
_LEFT_OUT = "not (watched or cluster or costly or greenlets or howto or web or signals)"
# Variables by which a run of pytest tells its parts what they belong to.
_OF_OTHERS = ("COV_CORE_", "PYTEST_XDIST_", "PYTEST_CURRENT_")


@dataclass(frozen=True)
class Coverage:
    """What of one module was executed, and what was not: lines, and branches as pairs of lines."""

    executed: frozenset[Any] = frozenset()
    missing: frozenset[Any] = frozenset()

    def __or__(self, other: "Coverage") -> "Coverage":
        executed = self.executed | other.executed
        return Coverage(executed, (self.missing | other.missing) - executed)

    @property
    def percent(self) -> float:
        """How much of it was executed."""
        everything = len(self.executed) + len(self.missing)
        return 100.0 * len(self.executed) / everything if everything else 100.0

    @property
    def missing_lines(self) -> list[int]:
        """The lines that were not executed, or not left on each of their branches."""
        return sorted({each[0] if isinstance(each, tuple) else each for each in self.missing})


class NotGreenByItselfError(Exception):
    """A test file is not green by itself, so what it covers says nothing."""


def cover(test_file: str) -> dict[str, Coverage]:
    """Run *test_file* by itself; return what it covers, by the paths of the modules.

    :raises NotGreenByItselfError: says how its run ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "coverage.json")
        run = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", test_file, "-q", "-m", _LEFT_OUT),
                *("-p", "no:cacheprovider", "--cov", f"--cov-report=json:{report}"),
                "--cov-fail-under=0",
            ],
            cwd=ROOT,
            env=_environment(str(Path(folder, "data"))),
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise NotGreenByItselfError(
                f"{test_file} is not green by itself:\n{run.stdout[-4000:]}"
            )
        files = json.loads(report.read_text())["files"]
    return {path: _coverage(measured) for path, measured in files.items()}


def _environment(data_file: str) -> dict[str, str]:
    """That of a run by itself, also where this one is a part of another."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_OTHERS)}
    return {**kept, "COVERAGE_FILE": data_file}


def _coverage(measured: dict[str, Any]) -> Coverage:
    return Coverage(
        frozenset([*measured["executed_lines"], *map(tuple, measured["executed_branches"])]),
        frozenset([*measured["missing_lines"], *map(tuple, measured["missing_branches"])]),
    )
