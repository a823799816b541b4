"""A server with a few methods, as most tests need one."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qam import QAMServer


class Calculator:
    """The instance that is registered as `testclass`."""

    def __init__(self) -> None:
        self.looked_at = 0

    def adder_function(self, a: int, b: int) -> int:
        return a + b

    @property
    def secret(self) -> int:
        self.looked_at += 1
        return self.looked_at

    def _private(self) -> str:
        return "private"


class Service:
    """What the methods of the server know and do."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        #: Set when `hold` runs; `hold` returns when `go_on` is set.
        self.holding = threading.Event()
        self.go_on = threading.Event()

    def add(self, a: Any, b: Any = 0) -> Any:
        self.runs.append((a, b))
        return a + b

    def adder_function(self, a: int, b: int) -> int:
        return a + b

    def echo(self, value: Any) -> Any:
        return value

    def repeat(self, text: str, times: int) -> str:
        return text * times

    def fail(self, *args: Any) -> None:
        raise ValueError(*args)

    def fail_long(self, length: int) -> None:
        raise ValueError("x" * length)

    def hold(self, value: Any = None) -> Any:
        self.runs.append(("hold", value))
        self.holding.set()
        assert self.go_on.wait(60)
        return value

    def nap(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


def make_server(service: Service, **kwargs: Any) -> QAMServer:
    """A server, not yet started, that offers the methods of `service` and a `testclass`."""
    server = QAMServer(**kwargs)
    for name in ("add", "adder_function", "echo", "repeat", "fail", "fail_long", "hold", "nap"):
        server.register_function(getattr(service, name))
    server.register_class(Calculator(), "testclass")
    return server


@contextmanager
def serving(**kwargs: Any) -> Iterator[Service]:
    """A server that serves meanwhile; gives what its methods know and do."""
    service = Service()
    with make_server(service, **kwargs) as server:
        server.start()
        try:
            yield service
        finally:
            service.go_on.set()
