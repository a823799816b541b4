"""A process of the soak, seen from inside: what it is told, where it writes, how it is set up."""

import json
import logging
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tests.chaos.spoilt_logging import spoil_logging

#: All servers are one to their clients.
SERVER_ID = "chaos"
HOST = "127.0.0.1"
READY = "ready"


@dataclass(frozen=True)
class Part:
    """What a server or client is told: its name, the broker's port, the folder of the soak, when
    that began (by time.time()), and what its random numbers are drawn from.
    """

    name: str
    port: int
    folder: str
    started: float
    seed: int

    @property
    def place(self) -> dict[str, Any]:
        """Where the broker and the servers are, as QAMServer and QAMProxy take it."""
        return {"hostname": HOST, "port": self.port, "server_id": SERVER_ID}

    @property
    def journal(self) -> Path:
        """What ran: the same file for all servers."""
        return Path(self.folder, "journal")

    @property
    def outcomes(self) -> Path:
        """What became of the calls of this client."""
        return Path(self.folder, f"{self.name}.outcomes")

    @property
    def threads_left(self) -> Path:
        """The names of the threads that were left when this client had closed its proxy."""
        return Path(self.folder, f"{self.name}.threads")

    @property
    def log(self) -> Path:
        """What the library logged in this process."""
        return Path(self.folder, f"{self.name}.log")

    @property
    def stderr(self) -> Path:
        """What this process wrote to its standard error."""
        return Path(self.folder, f"{self.name}.stderr")

    def as_argument(self) -> str:
        """The one argument of the process' command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_command_line(cls) -> Self:
        """What this process is told."""
        return cls(**json.loads(sys.argv[1]))

    def set_up_logging(self) -> None:
        """Logs go to the file. What the library logs as an error is a bug of it, whatever happens
        to the broker: it goes to stderr too, where nothing may be in the end.
        """
        file = logging.FileHandler(self.log)
        errors = logging.StreamHandler(sys.stderr)
        errors.setLevel(logging.ERROR)
        for handler in (file, errors):
            handler.setFormatter(_SinceTheStart(self.started))
        logging.basicConfig(level=logging.WARNING, handlers=[file, errors])
        logging.getLogger("qam").setLevel(logging.INFO)
        spoil_logging()

    @staticmethod
    def say_ready() -> None:
        """Tells who started this process that it is ready, and its process id."""
        print(READY, os.getpid(), flush=True)


class _SinceTheStart(logging.Formatter):
    """The time is that of the journal and of the faults: seconds since the soak began."""

    def __init__(self, started: float) -> None:
        super().__init__("%(since)9.3f %(levelname)s %(name)s [%(threadName)s] %(message)s")
        self._started = started

    def format(self, record: logging.LogRecord) -> str:
        record.since = record.created - self._started
        return super().format(record)
