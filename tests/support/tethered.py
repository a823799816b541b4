"""A child process that never outlives this one.

Between the two stands a small watcher: this file, run as a program. It starts the command, and
kills it when its own standard input ends, which is when `TetheredProcess.kill` closes the pipe, or
when the process that holds the other end dies, however that happens. (Linux could do it without a
watcher, with PR_SET_PDEATHSIG; but that goes by the death of the *thread* which started the child.)
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_POLL_INTERVAL = 0.01  # seconds


class TetheredProcess:
    """Runs `command`, its output appended to the file `output`; `kill()` ends it by SIGKILL."""

    def __init__(
        self, command: Sequence[str | Path], *, env: Mapping[str, str], output: Path
    ) -> None:
        with output.open("ab") as output_file:
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", __file__, *command],
                stdin=subprocess.PIPE,
                stdout=output_file,
                stderr=subprocess.STDOUT,
                env=env,
                # A ^C at the terminal is for the tests: they end what they have started.
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether the command still runs."""
        return self._watcher.poll() is None

    def processes(self) -> list[psutil.Process]:
        """The processes that there are because of this one: watcher, command, its children."""
        try:
            watcher = psutil.Process(self._watcher.pid)
            return [watcher, *watcher.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, timeout: float = 10.0) -> None:
        """Kills the command and returns when it is gone, and its children with it.

        The children are not killed: they have to end by themselves when their parent is gone.
        Raises TimeoutError if one has not after `timeout` seconds. Does nothing the second time.
        """
        deadline = time.monotonic() + timeout
        processes = self.processes()
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait(timeout)
        # Whose parent is dead is no child of ours: there is nothing to wait on but to look.
        while remaining := [process for process in processes if is_running(process)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"still running after {timeout} s: {remaining}")
            time.sleep(_POLL_INTERVAL)


def is_running(process: psutil.Process) -> bool:
    """Whether it runs: one that has ended and is not yet reaped (by init) does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _watch(command: Sequence[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def kill_when_the_tether_breaks() -> None:
        os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it returns at the end of input
        child.kill()

    # A daemon, for when the command ends by itself: nothing ends the read then.
    threading.Thread(target=kill_when_the_tether_breaks, name="tether", daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(_watch(sys.argv[1:]))
