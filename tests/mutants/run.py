"""Runs tests with one module changed, in a child process for each change."""

import importlib.machinery
import importlib.util
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.abc import MetaPathFinder, SourceLoader
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

# What the tests import takes longer than they do; the children find it here.
import hypothesis  # noqa: F401
import kombu  # noqa: F401
import psutil  # noqa: F401
import pytest
import trustme  # noqa: F401

from tests.mutants.changes import Change

ROOT = Path(__file__).resolve().parents[2]
_FORK = multiprocessing.get_context("fork")
# Seconds that the tests may take at least, and how much longer than without a change.
_LEAST_TIME, _LONGER = 20.0, 10.0
# That plugins are imported already is meant.
_OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
_LEFT_OUT = "not (rabbitmq or watched or cluster or costly or greenlets or howto or web or signals)"


class Outcome(Enum):
    """What the tests make of a change."""

    NOTICED = "noticed"
    HANGS = "hangs"
    SURVIVES = "survives"


@dataclass
class _Run:
    process: BaseProcess
    change: Change
    ends_at: float


class NotGreenError(Exception):
    """The tests fail without any change, so that they fail with one says nothing."""


def try_changes(
    module: str, tests: list[str], changes: Iterable[Change], at_once: int
) -> Iterator[tuple[Change, Outcome]]:
    """Run *tests* with each of *changes* to *module*, several at once; yield what comes of it.

    :raises NotGreenError: they fail as the module is.
    """
    longest = max(_LEAST_TIME, _LONGER * _time_unchanged(module, tests))
    left, runs = iter(changes), list[_Run]()
    while True:
        while len(runs) < at_once and (change := next(left, None)) is not None:
            process = _start(module, tests, change.source)
            runs.append(_Run(process, change, time.monotonic() + longest))
        if not runs:
            return
        first_end = min(run.ends_at for run in runs)
        wait([run.process.sentinel for run in runs], timeout=max(0.0, first_end - time.monotonic()))
        for run in [*runs]:
            outcome = _outcome(run)
            if outcome is not None:
                runs.remove(run)
                yield run.change, outcome


def _outcome(run: _Run) -> Outcome | None:
    """What came of it; None while it goes on."""
    if run.process.exitcode is None and time.monotonic() < run.ends_at:
        return None
    if run.process.exitcode is None:
        run.process.kill()
        run.process.join()
        return Outcome.HANGS
    return Outcome.NOTICED if run.process.exitcode else Outcome.SURVIVES


def _time_unchanged(module: str, tests: list[str]) -> float:
    began = time.monotonic()
    process = _start(module, tests, (ROOT / module).read_text())
    process.join()
    if process.exitcode:
        raise NotGreenError(f"{' '.join(tests)} fail without any change")
    return time.monotonic() - began


def _start(module: str, tests: list[str], source: str) -> BaseProcess:
    process = _FORK.Process(target=_run_tests, args=(module, tests, source))
    process.start()
    return process


def _run_tests(module: str, tests: list[str], source: str) -> None:
    """Run the tests with *source* in place of the module's own; in a child process."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.chdir(ROOT)
    sys.meta_path.insert(0, _Changed(module, source))
    code = pytest.main([*_OPTIONS, "-m", _LEFT_OUT, *tests])
    os._exit(int(code))  # whatever threads a change has left behind


class _Changed(MetaPathFinder, SourceLoader):
    """Finds one module of the package, with another source."""

    def __init__(self, module: str, source: str) -> None:
        self._path, self._source = str(ROOT / module), source
        self._name = module.removesuffix(".py").replace("/", ".")

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        return self._source.encode()

    def path_stats(self, path: str | bytes) -> dict[str, Any]:
        raise OSError("it has no compiled form")
