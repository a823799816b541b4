"""Clients of libraries that run on asyncio: each has an event loop of its own."""

import asyncio
import itertools
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.benchmarks.contract import check

T = TypeVar("T")


class AsyncioClient:
    """Runs its calls in an event loop, in the thread that wants the result."""

    shared_by_threads = False

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it to its end."""
        return self._loop.run_until_complete(coroutine)

    async def call_add(self, a: int, b: int) -> int:
        raise NotImplementedError

    async def call_echo(self, payload: bytes) -> bytes:
        raise NotImplementedError

    async def disconnect(self) -> None:
        raise NotImplementedError

    def add(self, a: int, b: int) -> int:
        return self.run(self.call_add(a, b))

    def echo(self, payload: bytes) -> bytes:
        return self.run(self.call_echo(payload))

    def sync_latencies(self, calls: int) -> list[float]:
        """As in a program on asyncio, which does not leave its loop after each call."""
        return self.run(self._latencies(calls))

    async def _latencies(self, calls: int) -> list[float]:
        seconds = []
        for _ in range(calls):
            began = time.perf_counter()
            result = await self.call_add(2, 3)
            seconds.append(time.perf_counter() - began)
            check(result)
        return seconds

    def pipeline(self, calls: int, outstanding: int) -> None:
        self.run(self._pipeline(calls, outstanding))

    async def _pipeline(self, calls: int, outstanding: int) -> None:
        to_begin = itertools.islice(itertools.count(), calls)

        async def call_on() -> None:
            for _ in to_begin:
                check(await self.call_add(2, 3))

        await asyncio.gather(*(call_on() for _ in range(min(calls, outstanding))))

    def close(self) -> None:
        self.run(self.disconnect())
        self._loop.close()
