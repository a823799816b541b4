"""A test says the same thing however it was started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Begins like a program that nohup started, with signals blocked, in a bare environment.
BEGIN = """
import os, signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR2})
os.umask(0o777)
from tests.support.surroundings import begin_as_from_a_terminal
begin_as_from_a_terminal("/a/home")
"""
TELL = """
import os, signal, sys
umask = os.umask(0)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print({signal.getsignal(each) for each in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)})
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), oct(umask), os.environ["HOME"])
"""


def test_what_a_test_process_starts_begins_as_from_a_terminal() -> None:
    started_by_it = f"subprocess.run([sys.executable, '-c', {TELL!r}], check=True)"

    told = subprocess.run(
        [sys.executable, "-c", BEGIN + started_by_it],
        cwd=ROOT,
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    assert told.stdout.split("\n") == ["True", "{<Handlers.SIG_DFL: 0>}", "set() 0o22 /a/home", ""]


def test_this_process_has_begun_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert Path(os.environ["HOME"]).parent == tmp_path_factory.getbasetemp()
