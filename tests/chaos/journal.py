"""The journal of runs: one file, in which the methods of all servers write when they run.

A line is `<token> <pid> begin|end <seconds since the start of the soak>`.

It is what is known for sure: a line that was written is there, even if the server is killed with
the next step it takes. Each is one write to a file opened for appending, so no two mix.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "begin", "end"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal."""

    token: str
    pid: int
    event: str
    at: float

    def __str__(self) -> str:
        return f"{self.token} {self.pid} {self.event} {self.at:.3f}"


class Journal:
    """Writes the runs of this process; `started` is when the soak began, by time.time()."""

    def __init__(self, path: Path, started: float) -> None:
        self._started = started
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @contextmanager
    def run(self, token: str) -> Iterator[None]:
        """The method that was called with `token` runs meanwhile."""
        self._write(token, BEGIN)
        try:
            yield
        finally:
            self._write(token, END)

    def close(self) -> None:
        """Gives the file back; nothing runs any more."""
        os.close(self._file)

    def _write(self, token: str, event: str) -> None:
        entry = Entry(token, os.getpid(), event, time.time() - self._started)
        os.write(self._file, f"{entry}\n".encode())


def read_journal(path: Path) -> dict[str, list[Entry]]:
    """The entries by token, each token's in the order in which they were written."""
    runs: dict[str, list[Entry]] = defaultdict(list)
    if path.exists():
        with path.open() as lines:
            for line in lines:
                token, pid, event, at = line.split()
                runs[token].append(Entry(token, int(pid), event, float(at)))
    return dict(runs)
