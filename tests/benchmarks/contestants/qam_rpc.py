"""qam with its defaults: persistent messages, confirms, acknowledgements on both sides.

The variant "transient" has a proxy whose messages are not persistent, and the outcomes of the
pipelined calls of the variant "futures" come as futures. The server has its defaults too: 32
workers at most, and a prefetch that the library chooses.
"""

import time
from collections.abc import Callable
from typing import Any

from qam import QAMProxy, QAMServer, submit
from tests.benchmarks.contract import Window, add, check, echo
from tests.benchmarks.place import Place

_VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "futures": {},
    "transient": {"persistent": False},
}
_FINISHED = 2


class Client:
    """A proxy."""

    shared_by_threads = True

    def __init__(self, place: Place, variant: str) -> None:
        self._proxy = QAMProxy(place.name, hostname=place.url, **_VARIANTS[variant])
        self._begin = self._submit if variant == "futures" else self._call_back
        self.add = self._proxy.add
        self.echo = self._proxy.echo
        self.close = self._proxy.close

    def pipeline(self, calls: int, outstanding: int) -> None:
        window = Window(lambda: self._begin(window), calls, outstanding)
        window.open()
        window.wait()

    def _call_back(self, window: Window) -> None:
        self._proxy.callback(window.on_result, window.on_error).add(2, 3)

    def _submit(self, window: Window) -> None:
        future = submit(self._proxy.add, 2, 3)
        future.add_done_callback(lambda done: window.on_result(done.result()))

    def begin(self, calls: int) -> None:
        for _ in range(calls):
            self._proxy.callback(check).add(2, 3)

    def polling_latencies(self, calls: int) -> list[float]:
        """Seconds of each call by a callback that is waited for as the tutorial does it."""
        results: list[Any] = []
        latencies = [self._poll(results.append) for _ in range(calls)]
        assert results == [5] * calls
        return latencies

    def _poll(self, on_result: Callable[[Any], object]) -> float:
        proxy = self._proxy
        began = time.perf_counter()
        uid = proxy.callback(on_result).add(2, 3)
        while proxy.get_callback_state(uid) != _FINISHED:
            pass
        return time.perf_counter() - began


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    server = QAMServer(hostname=place.url, server_id=place.name)
    server.register_function(add)
    server.register_function(echo)
    ready()  # its queue stands already: what comes now waits there
    server.serve()
