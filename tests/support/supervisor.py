"""Runs a server as systemd would: by what a unit says of starting, stopping and restarting.

It knows the keys of `SERVES`; a unit with other keys for the same things needs them here.
"""

import configparser
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

SERVES = {"WorkingDirectory", "EnvironmentFile", "ExecStart", "KillMode", "TimeoutStopSec"}


def read_unit(text: str) -> dict[str, str]:
    """Return the keys of the section "Service" of a unit."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys have capitals
    parser.read_string(text)
    return dict(parser["Service"])


def read_environment(file: Path) -> dict[str, str]:
    """Return what an EnvironmentFile sets."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


class Supervisor:
    """Starts the service of a unit by `start`; ends it with its block, whatever it does then.

    :param unit: the text of the unit; its paths must be those of this machine.
    :param more: more environment variables of the service.
    """

    def __init__(self, unit: str, more: Mapping[str, str]) -> None:
        service = read_unit(unit)
        assert service["KillMode"] == "mixed", "SIGTERM to the main process, then SIGKILL to all"
        self._command = shlex.split(service["ExecStart"])
        self._folder = Path(service["WorkingDirectory"])
        self._patience = float(service["TimeoutStopSec"])
        from_file = read_environment(Path(service["EnvironmentFile"]))
        self._environment = {**os.environ, **from_file, **more}
        self._process: subprocess.Popen[bytes] | None = None
        #: How each service that was stopped has ended: its exit code.
        self.exit_codes: list[int] = []
        #: How many had to be killed, since they did not end in time.
        self.killed = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the service, and do not wait for anything, as with Type=exec."""
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, env=self._environment, start_new_session=True
        )

    def stop(self) -> None:
        """Send SIGTERM; if the service has not ended in time, kill it with all its children."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            self.exit_codes.append(process.wait(self._patience))
        except subprocess.TimeoutExpired:
            self.killed += 1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def restart(self) -> None:
        """Stop the service, then start it."""
        self.stop()
        self.start()
