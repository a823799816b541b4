"""How remote methods get types: a Protocol says what the server offers, and `cast` what a proxy is.

mypy and pyright check this file: each type that is asserted, and that each wrong call is refused.
basedpyright warns of such a cast, unless it is `cast(Calculator, cast(object, proxy))`.
"""

# pyright: basic, reportInvalidCast=false, reportUnnecessaryTypeIgnoreComment=true

from concurrent.futures import Future
from typing import Any, Protocol, assert_type, cast

import qam
from qam import AMQPCredentials, MultiCall, QAMProxy, QAMServer, aio, ping, send, submit
from qam import with_options as options


class Calculator(Protocol):
    """What the server offers."""

    def add(self, a: int, b: int = 0) -> int: ...
    def divide(self, a: float, b: float) -> float: ...


class AsyncCalculator(Protocol):
    """The same, as asyncio sees it."""

    async def add(self, a: int, b: int = 0) -> int: ...


def client(proxy: QAMProxy) -> None:
    """Make calls whose types are known."""
    calc = cast(Calculator, proxy)
    assert_type(calc.add(2, 3), int)
    assert_type(calc.divide(2, 3), float)
    assert_type(submit(calc.add, 2, 3), Future[int])
    assert_type(submit(calc.divide, 1, b=2).result(), float)
    assert_type(options(calc, timeout=5), Calculator)
    assert_type(options(calc, metadata={"trace": "a1"}).add(1), int)
    assert_type(ping(proxy), float)
    assert_type(proxy.callback(print).add(2, 3), str)
    assert_type(proxy.callback(print).set_timeout(5).counter.add(2), str)
    assert_type(list(MultiCall(proxy)()), list[Any])
    send(calc.add, 2, b=3)

    calc.add("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    calc.subtract(2)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    submit(calc.add, 2, "3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    send(calc.add)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    options(calc, timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def async_client() -> None:
    """The same for asyncio."""
    async with aio.connect("calc") as proxy:
        calc = cast(AsyncCalculator, proxy)
        assert_type(await calc.add(2, 3), int)
        await calc.add("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    direct = cast(Calculator, QAMProxy("calc", connect=False))
    assert_type(await aio.call(direct.add, 2, 3), int)
    await aio.call(direct.add, "2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def server() -> None:
    """What is registered or trusted keeps its type."""
    server = QAMServer(credentials=AMQPCredentials(ssl=True), server_id="calc")

    @server.register_function
    def add(a: int, b: int = 0) -> int:
        return a + b

    @server.register_function(name="divide", idempotent=True)
    def share(a: float, b: float) -> float:
        return a / b

    @qam.trust
    class Order:
        """A class of the application."""

    assert_type(add(2, 3), int)
    assert_type(share(2, 3), float)
    assert_type(Order(), Order)
    add("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AMQPCredentials(ssl=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
