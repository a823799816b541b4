"""aio-pika's `patterns.RPC` with its defaults: transient messages, pickled, requests acknowledged.

The server is one event loop without a prefetch, so that RabbitMQ sends all that it has.
"""

import asyncio
from collections.abc import Callable

import aio_pika
from aio_pika.patterns import RPC

from tests.benchmarks.asyncio_client import AsyncioClient
from tests.benchmarks.contract import add, echo
from tests.benchmarks.place import Place


class Client(AsyncioClient):
    """A connection with its RPC."""

    def __init__(self, place: Place, variant: str) -> None:
        super().__init__()
        self._server = place.name
        self.run(self._connect(place))

    async def _connect(self, place: Place) -> None:
        self._connection = await aio_pika.connect(place.url_of_pika)
        self._rpc = await RPC.create(await self._connection.channel())

    async def call_add(self, a: int, b: int) -> int:
        return await self._rpc.call(f"{self._server}.add", {"a": a, "b": b})

    async def call_echo(self, payload: bytes) -> bytes:
        return await self._rpc.call(f"{self._server}.echo", {"payload": payload})

    async def disconnect(self) -> None:
        await self._connection.close()


async def _async_add(a: int, b: int) -> int:
    return add(a, b)


async def _async_echo(payload: bytes) -> bytes:
    return echo(payload)


async def _serve(place: Place, ready: Callable[[], object]) -> None:
    connection = await aio_pika.connect(place.url_of_pika)
    rpc = await RPC.create(await connection.channel())
    await rpc.register(f"{place.name}.add", _async_add, auto_delete=True)
    await rpc.register(f"{place.name}.echo", _async_echo, auto_delete=True)
    ready()
    await asyncio.Future()


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    asyncio.run(_serve(place, ready))
