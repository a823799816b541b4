"""Calls from a program that runs on asyncio."""

import asyncio

from warehouse import make_server

from qam import aio


async def main() -> None:
    """Make two calls at once."""
    async with aio.connect("warehouse", "memory://warehouse", timeout=10) as proxy:
        print(await asyncio.gather(proxy.add(2, 3), proxy.stock.count("bolt")))


with make_server("memory://warehouse") as server:
    server.start()
    asyncio.run(main())
