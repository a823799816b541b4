"""The processes of a contestant, seen from the driver."""

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.benchmarks.contestants import Contestant
from tests.benchmarks.contract import NotOffered
from tests.benchmarks.place import Place

_ROOT = Path(__file__).parents[2]  # where `tests` is found
_READY_WITHIN = 30.0  # seconds
#: Seconds for a request if nothing else is said.
ANSWERS_WITHIN = 120.0


class Failed(Exception):
    """A contestant could not do what it was told; says what happened."""


class NotStarted(Failed):
    """It did not even start."""


class Side:
    """The server or the client of a contestant, in a process group of its own.

    As a context manager it is ready in the block, and gone after it. It does not outlive this
    process either: its standard input ends with us, and `tether` sees to the rest.
    """

    def __init__(self, role: str, python: Path, contestant: Contestant, place: Place) -> None:
        self._title = f"{role} of {contestant.name}"
        told = [role, contestant.module, contestant.variant, json.dumps(asdict(place))]
        self._command = [python, "-m", "tests.benchmarks.side", *told]
        self._unread = b""

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,  # what can't be written is not tried again at the end
            start_new_session=True,  # a ^C at the terminal is for the driver
        )
        try:
            self._read(_READY_WITHIN)
        except Failed as error:
            self.kill()
            raise NotStarted(str(error)) from error
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Ends the process and all that it has started, and returns when it is gone."""
        with suppress(ProcessLookupError):  # its number is its own until `wait`, dead or alive
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            pipe.close()

    def do(self, action: str, *, within: float = ANSWERS_WITHIN, **arguments: Any) -> Any:
        """Has a client do something and returns the result.

        Raises NotOffered if it has no way to, and Failed if it fails or takes too long.
        """
        request = json.dumps({"action": action, "arguments": arguments})
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then there is no answer, which tells more
            self._process.stdin.write(request.encode() + b"\n")
        answer = self._read(within)
        if "not_offered" in answer:
            raise NotOffered(answer["not_offered"])
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["result"]

    def _read(self, within: float) -> dict[str, Any]:
        """The next line of the process; no thread is needed to give up on one that never comes."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + within
        while b"\n" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise Failed(f"the {self._title} has not answered within {within:g} s")
            if not (chunk := os.read(self._process.stdout.fileno(), 65536)):
                raise Failed(self._obituary())
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def check_alive(self) -> None:
        """Raises Failed if it has ended."""
        if psutil.Process(self._process.pid).status() == psutil.STATUS_ZOMBIE:
            raise Failed(self._obituary())

    def _obituary(self) -> str:
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()
        return f"the {self._title} has ended: {said.rpartition(chr(10))[2] or 'it said nothing'}"

    # --- what it uses -----------------------------------------------------------

    def _processes(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """What it has computed so far, in the kernel and outside, its children included."""
        return sum(sum(each.cpu_times()[:2]) for each in self._processes())

    def resident_bytes(self) -> int:
        """The memory that it has."""
        return sum(each.memory_info().rss for each in self._processes())

    def thread_count(self) -> int:
        """How many threads it has, without the one that waits for the driver."""
        return sum(each.num_threads() for each in self._processes()) - 1
