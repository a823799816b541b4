"""Runs test files one by one, and tells which lines and branches of the modules each covers."""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import coverage

# What the tests import takes longer than most of them do; the forked children find it here.
# Nothing of qam may be imported: its modules have to be executed where it is measured.
import hypothesis  # noqa: F401
import kombu  # noqa: F401
import psutil  # noqa: F401
import pytest
import trustme  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
# What has rows of its own in tox.ini, or can't run beside coverage.
_LEFT_OUT = "not (watched or cluster or costly or greenlets or howto or web or signals)"
# That plugins are imported already is meant.
_OPTIONS = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
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


@dataclass(frozen=True)
class NotGreen:
    """A test file is not green by itself, so what it covers says nothing."""

    test_file: str
    told: str

    def __str__(self) -> str:
        return f"{self.test_file} is not green by itself:\n{self.told}"


#: What comes of a test file: what it covers, by the paths of the modules.
Outcome = dict[str, Coverage] | NotGreen


@dataclass(frozen=True)
class _Run:
    process: BaseProcess
    test_file: str
    output: Path
    report: Path

    def outcome(self) -> Outcome:
        self.process.join()
        if self.process.exitcode:
            return NotGreen(self.test_file, self.output.read_text(errors="replace")[-4000:])
        files = json.loads(self.report.read_text())["files"]
        return {path: _coverage(measured) for path, measured in files.items()}


def cover_each(modules_of: Mapping[str, list[str]], at_once: int) -> Iterator[tuple[str, Outcome]]:
    """Run each test file by itself, several at once; yield each, and what it covers, as it ends.

    :param modules_of: the modules that are looked at, by the test file.
    """
    left, runs = iter(modules_of.items()), dict[int, _Run]()
    with tempfile.TemporaryDirectory() as folder:
        while True:
            while len(runs) < at_once and (item := next(left, None)) is not None:
                run = _start(*item, folder)
                runs[run.process.sentinel] = run
            if not runs:
                return
            for sentinel in wait(list(runs)):
                run = runs.pop(sentinel)  # type: ignore[call-overload]
                yield run.test_file, run.outcome()


def _start(test_file: str, modules: list[str], folder: str) -> _Run:
    name = test_file.replace("/", "-")
    output, report = Path(folder, f"{name}.txt"), Path(folder, f"{name}.json")
    process = multiprocessing.get_context("fork").Process(
        target=_run_tests, args=(test_file, modules, output, report)
    )
    process.start()
    return _Run(process, test_file, output, report)


def _run_tests(test_file: str, modules: list[str], output: Path, report: Path) -> None:
    """Run them, and write down what they execute of *modules*; in a child process."""
    _become_a_run_by_itself(output)
    measuring = coverage.Coverage(data_file=None, config_file=str(ROOT / "pyproject.toml"))
    measuring.start()
    code = pytest.main([*_OPTIONS, "-m", _LEFT_OUT, test_file])
    measuring.stop()
    if code == pytest.ExitCode.OK:
        measuring.json_report(morfs=modules, outfile=str(report))
    sys.stdout.flush()
    os._exit(code)  # whatever threads the tests have left behind


def _become_a_run_by_itself(output: Path) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(ROOT)
    for name in [each for each in os.environ if each.startswith(_OF_OTHERS)]:
        del os.environ[name]


def _coverage(measured: dict[str, Any]) -> Coverage:
    return Coverage(
        frozenset([*measured["executed_lines"], *map(tuple, measured["executed_branches"])]),
        frozenset([*measured["missing_lines"], *map(tuple, measured["missing_branches"])]),
    )
