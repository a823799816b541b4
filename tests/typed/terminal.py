"""A shell that is typed into, and what it shows."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import NamedTuple, Self

_POLL_INTERVAL = 0.05  # seconds


class Shown(NamedTuple):
    """What a command has written, to stdout and stderr, and its exit code."""

    output: str
    exit_code: int


class Terminal:
    """One bash for all commands of a page, so that folder, environment and exports stay.

    A command that does not end in `seconds` is killed, with all others, and shows what it wrote.
    """

    def __init__(self, folder: Path, environment: dict[str, str], seconds: float) -> None:
        self._seconds = seconds
        self._logs = folder.parent
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kill()
        self._shell.communicate()

    def _kill(self) -> None:
        os.killpg(self._shell.pid, signal.SIGKILL)

    def type(self, line: str) -> Shown:
        """Type a command, and wait for its end."""
        assert self._shell.stdin is not None
        mark = uuid.uuid4().hex
        # The shell reads its own stdin, and no command may take lines from it.
        self._shell.stdin.write(f"{{ {line}\n}} </dev/null\nprintf '\\n%s %s\\n' {mark} $?\n")
        self._shell.stdin.flush()
        watchdog = Timer(self._seconds, self._kill)
        watchdog.start()
        try:
            return self._read_until(mark)
        finally:
            watchdog.cancel()

    def _read_until(self, mark: str) -> Shown:
        assert self._shell.stdout is not None
        output = ""
        for line in self._shell.stdout:
            if line.startswith(mark):
                return Shown(output.removesuffix("\n"), int(line.split()[1]))
            output += line
        return Shown(output, -signal.SIGKILL)

    def serve(self, line: str, is_ready: Callable[[str], bool]) -> Shown:
        """Type a command that runs on; return when it is ready, as what it has written says."""
        log = self._logs / f"{uuid.uuid4().hex}.log"
        log.touch()
        self.type(f"{{ {line}\n}} >{log} 2>&1 &")
        until = time.monotonic() + self._seconds
        while not is_ready(log.read_text(encoding="utf-8")) and time.monotonic() < until:
            time.sleep(_POLL_INTERVAL)
        return Shown(log.read_text(encoding="utf-8"), 0)
