"""What a client can be told to do, in its own process; each returns what JSON can carry."""

import gc
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.contract import Client, NotOffered, check


class Actions:
    """The public methods are what the driver can ask for, by name.

    `make_client` makes one client more, for the threads of a library that can't share one.
    """

    def __init__(self, make_client: Callable[[], Client]) -> None:
        self._make_client = make_client
        self._client = make_client()

    def sync(self, calls: int) -> list[float]:
        """Seconds of each of so many calls, one after the other."""
        own_way = getattr(self._client, "sync_latencies", None)
        return own_way(calls) if own_way else latencies(self._client, calls)

    def polling(self, calls: int) -> list[float]:
        """Seconds of each call by a callback whose state is polled."""
        if not hasattr(self._client, "polling_latencies"):
            raise NotOffered("no state of a callback to poll")
        return self._client.polling_latencies(calls)

    def beside_cpu_bound(self, calls: int, threads: int) -> list[float]:
        """As `sync`, while so many threads of this process only compute."""
        with _computing(threads):
            self.sync(1)  # when it is back, they have begun
            return self.sync(calls)

    def pipeline(self, calls: int, outstanding: int) -> float:
        """Seconds of so many calls with so many outstanding."""
        began = time.perf_counter()
        self._client.pipeline(calls, outstanding)
        return time.perf_counter() - began

    def threads(self, calls: int, threads: int) -> float:
        """Seconds of so many calls that are made by so many threads at once."""
        with self._clients_for(threads) as clients, ThreadPoolExecutor(threads) as pool:
            list(pool.map(_one_call, clients))  # all threads are there, and all is connected
            began = time.perf_counter()
            list(pool.map(lambda client: _some_calls(client, calls // threads), clients))
            return time.perf_counter() - began

    @contextmanager
    def _clients_for(self, threads: int) -> Iterator[list[Client]]:
        if self._client.shared_by_threads:
            yield [self._client] * threads
            return
        clients = [self._make_client() for _ in range(threads)]
        yield clients
        for client in clients:
            client.close()

    def echo(self, calls: int, size: int) -> float:
        """Seconds of so many echoes of so many bytes, one after the other."""
        payload = os.urandom(size)
        began = time.perf_counter()
        for _ in range(calls):
            returned = self._client.echo(payload)
        seconds = time.perf_counter() - began
        assert returned == payload
        return seconds

    def begin(self, calls: int) -> None:
        """Begins so many calls of add(2, 3), for whose results it does not wait."""
        if not hasattr(self._client, "begin"):
            raise NotOffered("a call waits for its result")
        self._client.begin(calls)

    def trace_memory(self) -> None:
        """From now on, what Python allocates is counted."""
        tracemalloc.start()

    def traced_bytes(self) -> int:
        """What Python has allocated since, and not freed."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0]


def latencies(client: Client, calls: int) -> list[float]:
    """Seconds of each of so many calls, one after the other."""
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        result = client.add(2, 3)
        seconds.append(time.perf_counter() - began)
        check(result)
    return seconds


def _some_calls(client: Client, calls: int) -> None:
    for _ in range(calls):
        check(client.add(2, 3))


def _one_call(client: Client) -> None:
    _some_calls(client, 1)


@contextmanager
def _computing(threads: int) -> Iterator[None]:
    """So many threads in pure Python meanwhile, which never wait."""
    ended = False

    def compute() -> None:
        number = 0
        while not ended:
            number += 1

    computers = [threading.Thread(target=compute) for _ in range(threads)]
    for computer in computers:
        computer.start()
    try:
        yield
    finally:
        ended = True
        for computer in computers:
            computer.join()


def perform(actions: Actions, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request of the driver."""
    try:
        result = getattr(actions, request["action"])(**request["arguments"])
    except NotOffered as reason:
        return {"not_offered": str(reason)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"result": result}
