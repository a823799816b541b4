"""A short soak, with fixed seeds: part of the normal tests, so that it works when it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.rabbitmq

_ROOT = Path(__file__).parents[2]


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=170)


def count(name: str, table: str) -> int:
    [line] = [line for line in table.splitlines() if line.startswith(name)]
    return int(line.removeprefix(name))


@pytest.mark.timeout(180)
def test_calls_under_faults_end_honestly_and_run_once() -> None:
    done = soak("--minutes", "0.2", "--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: clean" in done.stdout
    assert count("right results", done.stdout) > 100
    assert count("faults", done.stdout) > 0
