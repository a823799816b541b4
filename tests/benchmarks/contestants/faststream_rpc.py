"""FastStream's `broker.request` with its defaults: transient messages, requests acknowledged.

Replies come over RabbitMQ's direct reply-to. A request holds a lock of its client until the reply
is there, so of those that are outstanding all but one wait in the client. The server is one event
loop without a prefetch.
"""

import asyncio
from collections.abc import Callable

from faststream import FastStream
from faststream.rabbit import RabbitBroker

from tests.benchmarks.asyncio_client import AsyncioClient
from tests.benchmarks.contract import GIVES_UP_AFTER
from tests.benchmarks.place import Place


class Client(AsyncioClient):
    """A broker, as the library calls its connection."""

    def __init__(self, place: Place, variant: str) -> None:
        super().__init__()
        self._server = place.name
        self._broker = RabbitBroker(place.url_of_pika, logger=None)
        self.run(self._broker.start())

    async def call_add(self, a: int, b: int) -> int:
        request = {"a": a, "b": b}
        reply = await self._broker.request(request, f"{self._server}.add", timeout=GIVES_UP_AFTER)
        return await reply.decode()

    async def call_echo(self, payload: bytes) -> bytes:
        reply = await self._broker.request(payload, f"{self._server}.echo", timeout=GIVES_UP_AFTER)
        return await reply.decode()

    async def disconnect(self) -> None:
        await self._broker.stop()


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    broker = RabbitBroker(place.url_of_pika, logger=None)

    @broker.subscriber(f"{place.name}.add")
    async def add(a: int, b: int) -> int:
        return a + b

    @broker.subscriber(f"{place.name}.echo")
    async def echo(payload: bytes) -> bytes:
        return payload

    app = FastStream(broker, logger=None)

    @app.after_startup
    async def tell() -> None:
        ready()

    asyncio.run(app.run())
