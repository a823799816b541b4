"""What a contestant offers to the benchmark.

Only the standard library is imported here and in `actions`: a client may run in an environment in
which there is nothing but its own library.
"""

import pickle
import threading
from collections.abc import Callable
from typing import Any, Protocol

GIVES_UP_AFTER = 60.0  # seconds without the end of what was begun


class NotOffered(Exception):
    """The library has no natural way to do this; says why."""


class Client(Protocol):
    """One client of a library, made from the place of its server and its variant.

    Some have methods more, for what not everybody can do, or does in its own way: see `actions`.
    """

    #: Whether threads may share it; if not, each thread gets a client of its own.
    shared_by_threads: bool

    def add(self, a: int, b: int) -> int:
        """Calls the server's `add` and waits."""

    def echo(self, payload: bytes) -> bytes:
        """Calls the server's `echo` and waits."""

    def pipeline(self, calls: int, outstanding: int) -> None:
        """Calls add(2, 3) so often, with so many of them outstanding at any time."""

    def close(self) -> None:
        """Closes what it has opened."""


def add(a: int, b: int) -> int:
    """What every server offers."""
    return a + b


def echo(payload: bytes) -> bytes:
    """What every server offers."""
    return payload


def check(result: Any) -> None:
    """That this is the result of add(2, 3)."""
    if result != 5:
        raise AssertionError(f"add(2, 3) returned {result!r}")


class Window:
    """A sliding window of calls: as one comes back, the next one goes out.

    `call` begins a call and returns; `on_result` is to be called with its result, in any thread.
    """

    def __init__(self, call: Callable[[], object], calls: int, outstanding: int) -> None:
        self._call = call
        self._outstanding = min(calls, outstanding)
        self._lock = threading.Lock()
        self._to_begin = calls - self._outstanding
        self._to_end = calls
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def open(self) -> None:
        """Begins the first calls."""
        for _ in range(self._outstanding):
            self._call()

    def on_result(self, result: Any) -> None:
        """A call has come back."""
        try:
            check(result)
            if self._is_one_more():
                self._call()
        except Exception as error:
            self.on_error(error)

    def on_error(self, error: BaseException) -> None:
        """A call has failed, and with it all."""
        self._error = self._error or error
        self._ended.set()

    def _is_one_more(self) -> bool:
        with self._lock:
            self._to_end -= 1
            if self._to_end == 0:
                self._ended.set()
            self._to_begin -= 1
            return self._to_begin >= 0

    @property
    def ended(self) -> bool:
        """Whether all calls have come back, or one has failed, which is raised."""
        if self._error is not None:
            raise self._error
        return self._ended.is_set()

    def wait(self) -> None:
        """Returns when all calls have come back, which another thread sees to."""
        to_end = None
        while not self._ended.wait(GIVES_UP_AFTER):
            if to_end == self._to_end:
                raise TimeoutError(f"{to_end} calls do not come back")
            to_end = self._to_end
        assert self.ended


# For libraries that carry bytes and know nothing of methods: the least that can be done.


def encode_call(method: str, *arguments: Any) -> bytes:
    """A request as bytes."""
    return pickle.dumps((method, arguments))


_METHODS = {"add": add, "echo": echo}


def answer(body: bytes) -> bytes:
    """The reply to a request, both as bytes."""
    method, arguments = pickle.loads(body)
    return pickle.dumps(_METHODS[method](*arguments))
