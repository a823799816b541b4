"""Fixtures for the tests of the command line: commands that run here, and in processes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from qam.__main__ import main
from tests.conftest import Broker

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"

#: Writes a module of some name, and of some source.
Module = Callable[[str, str], Path]


class Finished(NamedTuple):
    """How a command ended, and what it wrote."""

    exit_code: int
    output: str
    errors: str


#: Runs a command.
Run = Callable[..., Finished]


@pytest.fixture(autouse=True)
def no_broker_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tests were started says nothing of a broker."""
    monkeypatch.delenv("QAM_BROKER_URL", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process; returns exit code, stdout and stderr."""

    def run(*arguments: str) -> Finished:
        try:
            exit_code = main(arguments)
        except SystemExit as exited:  # of argparse
            exit_code = int(exited.code or 0)
        return Finished(exit_code, *capsys.readouterr())

    return run


@pytest.fixture
def url(broker: Broker) -> str:
    """The URL of the broker."""
    if broker.port is None:
        return broker.hostname
    return f"amqp://{broker.username}:{broker.password}@{broker.hostname}:{broker.port}//"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Writes modules into the current folder; they are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def write(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        return path

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def command(*arguments: str) -> list[str]:
    """The command line of a process."""
    return [sys.executable, "-W", "error", "-m", "qam", *arguments]


def environment(url: str) -> dict[str, str]:
    """The environment of a process, for which the broker is at *url*."""
    own = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "QAM_BROKER_URL": url}
    return {**os.environ, **own}


def in_process(*arguments: str, url: str, cwd: Path = EXAMPLES, input: str = "") -> Finished:
    """Runs the command line in a process of its own."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(url),
        input=input,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving(*arguments: str, url: str, cwd: Path = EXAMPLES) -> Iterator["subprocess.Popen[str]"]:
    """``qam serve`` in a process of its own, which serves meanwhile."""
    with subprocess.Popen(
        command("serve", *arguments),
        cwd=cwd,
        env=environment(url),
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            lines = []
            for line in server.stderr:
                lines.append(line)
                if "serves at" in line:
                    break
            else:
                pytest.fail(f"it ended with {server.wait()}: {''.join(lines)}")
            yield server
        finally:
            server.kill()
