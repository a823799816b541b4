"""In a process of the benchmark: has it end, with all that it has started, when its driver does."""

import os
import signal
import threading
from collections.abc import Iterator

# Taken before anything replaces them, as eventlet does for nameko.
_read, _killpg, _getpgrp = os.read, os.killpg, os.getpgrp


def end_with_standard_input() -> None:
    """For a process that nobody tells anything."""
    threading.Thread(target=lambda: list(lines()), name="tether", daemon=True).start()


def lines() -> Iterator[bytes]:
    """The lines on standard input; at its end all processes of this group are killed.

    The driver gives each process that it starts a group of its own. To be read in a thread that
    does nothing else: whatever the others do then, the end is noticed.
    """
    rest = b""
    while chunk := _read(0, 65536):
        *complete, rest = (rest + chunk).split(b"\n")
        yield from complete
    _killpg(_getpgrp(), signal.SIGKILL)
