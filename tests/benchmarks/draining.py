"""Clients and servers of libraries with one thread, which read when they are told to.

What comes in is only stored in the callbacks of the library, and handled outside of them: a
publish of py-amqp reads as well, so one inside a callback may lead to the next callback, and so on
until Python has had enough.
"""

import itertools
import pickle
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from tests.benchmarks.contract import Window, check, encode_call


class DrainingClient:
    """Calls on one connection, which is not for threads to share.

    `publish(id, body)` sends a request; `drain()` waits for what comes, for whose replies the
    library calls `self.arrived.append((id, body))`.
    """

    shared_by_threads = False

    def __init__(self) -> None:
        #: Ids and bodies of replies that are not handled yet.
        self.arrived: deque[tuple[str, bytes]] = deque()
        self._ids = map(str, itertools.count())
        self._waiting: dict[str, Callable[[Any], object]] = {}

    def publish(self, id: str, body: bytes) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        raise NotImplementedError

    def _begin(self, on_result: Callable[[Any], object], method: str, *arguments: Any) -> None:
        id = next(self._ids)
        self._waiting[id] = on_result
        self.publish(id, encode_call(method, *arguments))

    def _wait_until(self, ended: Callable[[], object]) -> None:
        while not ended():
            if not self.arrived:
                self.drain()
            while self.arrived:
                id, body = self.arrived.popleft()
                self._waiting.pop(id)(pickle.loads(body))

    def _call(self, method: str, *arguments: Any) -> Any:
        results: list[Any] = []
        self._begin(results.append, method, *arguments)
        self._wait_until(lambda: results)
        return results[0]

    def add(self, a: int, b: int) -> Any:
        return self._call("add", a, b)

    def echo(self, payload: bytes) -> Any:
        return self._call("echo", payload)

    def pipeline(self, calls: int, outstanding: int) -> None:
        window = Window(lambda: self._begin(window.on_result, "add", 2, 3), calls, outstanding)
        window.open()
        self._wait_until(lambda: window.ended)

    def begin(self, calls: int) -> None:
        for _ in range(calls):
            self._begin(check, "add", 2, 3)


def serve_by_draining(
    drain: Callable[[], object], requests: deque[Any], reply_to: Callable[[Any], object]
) -> NoReturn:
    """Replies to each of the requests, which the library appends while it drains."""
    while True:
        if not requests:
            drain()
        while requests:
            reply_to(requests.popleft())
