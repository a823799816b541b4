"""A process of the soak, seen from outside: it does not outlive the one that started it."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.part import READY, Part
from tests.support import tethered

_ROOT = Path(__file__).parents[2]  # where `tests` is found

_READY_WITHIN = 60.0  # seconds
_KILLED_WITHIN = 10.0  # seconds


class Child:
    """A Python process that is started with `python_arguments`; its first words are that it is
    ready.

    Between the two stands the watcher of tests.support.tethered, which kills the process when its
    own standard input ends: also one that is stopped, and whatever becomes of us.
    """

    def __init__(self, part: Part, python_arguments: Sequence[str]) -> None:
        self.part = part
        #: What is wrong with how it ended; None if nothing is.
        self.bad_end: str | None = None
        with part.stderr.open("wb") as stderr:
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", tethered.__file__, sys.executable, *python_arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=_ROOT,
                # A ^C at the terminal is for who started this one, and ends it.
                start_new_session=True,
            )
        self.pid = 0

    def wait_until_ready(self) -> None:
        """Returns when the process says so; raises RuntimeError, and kills it, if it does not."""
        assert self._watcher.stdout is not None
        readable, _, _ = select.select([self._watcher.stdout], [], [], _READY_WITHIN)
        said = self._watcher.stdout.readline().split() if readable else []
        if said[:1] != [READY.encode()]:
            self.destroy()
            raise RuntimeError(f"{self} did not start:\n{self.part.stderr.read_text()}")
        self.pid = int(said[1])

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._watcher.poll() is None

    def stop(self) -> None:
        """Lets it run no further (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets it run on after a stop (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it by SIGKILL, and returns when it is gone."""
        self._should_be_alive()
        self.destroy()

    def destroy(self) -> None:
        """As `kill`, when nobody asks any more how it ended. Also when it has ended."""
        assert self._watcher.stdin is not None
        assert self._watcher.stdout is not None
        self._watcher.stdin.close()
        self._watcher.wait(_KILLED_WITHIN)
        self._watcher.stdout.close()

    def ask_to_end(self) -> None:
        """Sends SIGTERM, and returns at once."""
        if self._should_be_alive():
            self._signal(signal.SIGTERM)

    def wait_for_end(self, deadline: float) -> None:
        """Returns when it has ended, as it was asked to; kills it at `deadline`, which is a time
        of time.monotonic().
        """
        try:
            code = self._watcher.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._ended_badly("had not ended when its time was up, after SIGTERM")
        else:
            if code != 0:
                self._ended_badly(f"ended with exit code {code}, after SIGTERM")
        self.destroy()

    def _should_be_alive(self) -> bool:
        if not self.alive:
            self._ended_badly(f"ended without being asked, with exit code {self._watcher.poll()}")
        return self.alive

    def _ended_badly(self, how: str) -> None:
        self.bad_end = self.bad_end or how  # what came first led to the rest

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def __str__(self) -> str:
        return f"{self.part.name} (pid {self.pid})" if self.pid else self.part.name
