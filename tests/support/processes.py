"""A server in a process of its own, for what can only be done to a process.

Run as a program, this file is that process. It is started by the watcher of `tethered`, so that it
never outlives the tests, not even while it is stopped by a signal.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

from qam import QAMServer
from tests.support import tethered

_ROOT = Path(__file__).parent.parent.parent
_IS_READY = "serving"
_HOLDS_AT_MOST = 60.0  # seconds
_ENDS_WITHIN = 30.0  # seconds


class Entry(NamedTuple):
    """What a method noted: that a run of it began, or ended."""

    pid: int
    method: str
    token: str  #: its last argument, by which the test knows the call
    what: str  #: begin or end


def read_journal(path: Path) -> list[Entry]:
    """What the methods noted so far, in the order in which it happened."""
    lines = path.read_text().splitlines() if path.exists() else []
    notes = (line.split(" ") for line in lines)
    return [Entry(int(pid), method, token, what) for pid, method, token, what in notes]


def runs(path: Path) -> Counter[str]:
    """How often a method began to run, for each token; a token is a text here."""
    return Counter(entry.token for entry in read_journal(path) if entry.what == "begin")


class ServerProcess:
    """A QAMServer in a process of its own, started by the constructor.

    `place` and `server_options` are arguments of QAMServer that JSON can carry. The server offers
    `add(a, b)`, `nap(seconds, value)` and `hold(value)`, and the same as idempotent methods under
    `add_again`, `nap_again` and `hold_again`. Each run notes in `journal` that it began and that
    it ended; several processes can share one. The last argument is its token there: a text without
    spaces, or a number.

    As a context manager it waits until it serves, and ends with the block. What the process writes
    to its stderr goes to that of the tests.
    """

    def __init__(
        self, server_id: str, place: Mapping[str, Any], journal: Path, **server_options: Any
    ) -> None:
        self.pid: int | None = None  #: known when it serves
        server = {"server_id": server_id, **place, **server_options}
        arguments = json.dumps({"journal": str(journal), "server": server})
        program = [sys.executable, "-m", "tests.support.processes", arguments]
        self._process = subprocess.Popen(
            [sys.executable, "-I", tethered.__file__, *program],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a ^C at the terminal is for the tests
        )

    def __enter__(self) -> Self:
        try:
            self.wait_until_serving()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the process is there, stopped or not."""
        return self._process.poll() is None

    def wait_until_serving(self) -> None:
        """Return when the server's queue stands and it goes about taking requests.

        Its consumer may come some milliseconds later. Raises RuntimeError if the process ends
        instead; it has told stderr why.
        """
        if self.pid is None:
            assert self._process.stdout is not None
            word, _, pid = self._process.stdout.readline().partition(" ")
            if word != _IS_READY:
                raise RuntimeError(f"the server ended as it started, with {self.wait()}")
            self.pid = int(pid)

    def kill(self) -> None:
        """Send SIGKILL, and return when the process is gone. Good at any time."""
        assert self._process.stdin is not None
        self._process.stdin.close()  # the watcher kills it then
        self.wait()

    def stop(self) -> None:
        """Send SIGSTOP: the process stands still, its connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT: it goes on."""
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Send SIGTERM: the server closes, which takes a while; see `wait`."""
        self._signal(signal.SIGTERM)

    def release(self) -> None:
        """Let `hold` return, also when it is called from now on."""
        self._signal(signal.SIGUSR1)

    def wait(self, timeout: float = _ENDS_WITHIN) -> int:
        """Wait until the process has ended; return its exit status, or -9 after SIGKILL."""
        status = self._process.wait(timeout)
        return status - 256 if status > 128 else status  # as the watcher had to pass it on

    def close(self) -> None:
        """End the process, if it still runs, and close what leads to it."""
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self.pid is not None, "it does not serve yet"
        assert self.running, "it has ended"
        os.kill(self.pid, number)


# --- inside the process -------------------------------------------------------


class _Methods:
    """What the server offers."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def nap(self, seconds: float, value: Any) -> Any:
        time.sleep(seconds)
        return value

    def hold(self, value: Any) -> Any:
        self.go_on.wait(_HOLDS_AT_MOST)
        return value


class _Journal:
    """A file to which several threads and processes may append."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def keeps(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The method, which notes each of its runs."""

        @wraps(method)
        def run(*args: Any) -> Any:
            self._note(name, args[-1], "begin")
            result = method(*args)
            self._note(name, args[-1], "end")
            return result

        return run

    def _note(self, method: str, token: Any, what: str) -> None:
        # A single write to a file that is opened to append is not mixed with another's.
        os.write(self._file, f"{os.getpid()} {method} {token} {what}\n".encode())


def _release_by_signal(methods: _Methods) -> None:
    """Have SIGUSR1 end what `hold` waits for; to be called before there are other threads.

    No handler, because a test may send SIGTERM at the same time. Of two signals the system can give
    one to another thread than the main one, which alone runs handlers, and which then sleeps on.
    So SIGUSR1 wakes one thread of its own, and that one does not take SIGTERM.
    """
    ours = {signal.SIGUSR1, signal.SIGTERM}

    def wait() -> None:
        signal.sigwait({signal.SIGUSR1})
        methods.go_on.set()

    signal.pthread_sigmask(signal.SIG_BLOCK, ours)  # a thread begins with the mask of its starter
    # A daemon: nobody has to send the signal.
    threading.Thread(target=wait, name="release", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _serve(journal: _Journal, options: dict[str, Any]) -> None:
    methods = _Methods()
    _release_by_signal(methods)
    with QAMServer(**options) as server:
        for method in (methods.add, methods.nap, methods.hold):
            name = method.__name__
            again = f"{name}_again"
            server.register_function(journal.keeps(method, name), name)
            server.register_function(journal.keeps(method, again), again, idempotent=True)

        def close(number: int, frame: FrameType | None) -> None:
            server.close()

        signal.signal(signal.SIGTERM, close)
        print(_IS_READY, os.getpid(), flush=True)
        server.serve()


if __name__ == "__main__":
    _arguments = json.loads(sys.argv[1])
    _serve(_Journal(_arguments["journal"]), _arguments["server"])
