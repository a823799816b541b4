"""Methods that are `async def`: on one event loop, and each with a worker that waits for it."""

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import qam.aio
from qam import (
    MultiCall,
    QAMException,
    QAMProxy,
    QAMServer,
    QAMServerLostException,
    QAMTimeoutException,
    current_call,
)
from tests.conftest import Broker
from tests.support.waiting import finish, until

LONG = 60.0
MANY = 100


@pytest.fixture(autouse=True)
def nothing_is_left_unawaited() -> Iterator[None]:
    """Fails a test that makes a coroutine which nobody awaits."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(each.message) for each in caught if "never awaited" in str(each.message)] == []


@pytest.fixture
def server(broker: Broker, server_id: str) -> Iterator[QAMServer]:
    """A server that the test starts when it has registered its methods."""
    with QAMServer(server_id=server_id, max_workers=MANY, **broker.kwargs) as server:
        yield server


@pytest.fixture
def proxy(broker: Broker, server_id: str, server: QAMServer) -> Iterator[QAMProxy]:
    with QAMProxy(server_id, client_id="label", timeout=LONG, **broker.kwargs) as proxy:
        yield proxy


def test_a_hundred_are_inside_at_one_time(server: QAMServer, proxy: QAMProxy) -> None:
    # given a method that ends when as many have begun
    inside: list[int] = []
    threads: set[int] = set()
    results: list[int] = []

    @server.register_function
    async def meet(number: int) -> int:
        inside.append(number)
        threads.add(threading.get_ident())
        while len(inside) < MANY:
            await asyncio.sleep(0.01)
        return number

    server.start()
    for number in range(MANY):
        proxy.callback(results.append, results.append).meet(number)
    finish(proxy)
    assert sorted(results) == list(range(MANY))
    assert len(threads) == 1


def test_no_more_are_inside_than_there_are_workers(broker: Broker, server_id: str) -> None:
    inside, most, results = set[int](), list[int](), list[Any]()
    options: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with QAMServer(max_workers=2, **options) as server, QAMProxy(timeout=LONG, **options) as proxy:

        @server.register_function
        async def enter(number: int) -> None:
            inside.add(number)
            for _ in range(10):
                await asyncio.sleep(0)
            most.append(len(inside))
            inside.discard(number)

        server.start()
        for number in range(20):
            proxy.callback(results.append, results.append).enter(number)
        finish(proxy)
    assert results == [None] * 20
    assert max(most) <= 2


class Shop:
    async def price(self, number: int, each: int = 1) -> int:
        await asyncio.sleep(0)
        return number * each

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("sold out")


def test_methods_of_an_instance_are_called_as_others_are(
    server: QAMServer, proxy: QAMProxy
) -> None:
    server.register_class(Shop(), "shop")
    server.start()
    assert proxy.shop.price(3) == 3
    assert proxy.shop.price(3, each=2) == 6
    several = MultiCall(proxy)
    several.shop.price(1)
    several.shop.price(2, each=5)
    assert list(several()) == [1, 10]


def test_what_one_raises_comes_with_its_traceback(server: QAMServer, proxy: QAMProxy) -> None:
    server.register_class(Shop(), "shop")
    server.start()
    with pytest.raises(ValueError, match="sold out") as raised:
        proxy.shop.fail()
    [note] = raised.value.__notes__
    assert "in fail" in note
    assert 'raise ValueError("sold out")' in note


def test_a_plain_function_that_returns_one_is_told_so(server: QAMServer, proxy: QAMProxy) -> None:
    server.register_function(lambda: Shop().price(1), "price")
    server.start()
    with pytest.raises(TypeError, match="register the async function itself"):
        proxy.price()


def test_they_know_their_call_and_have_its_time(
    broker: Broker, server: QAMServer, proxy: QAMProxy, server_id: str
) -> None:
    begun, errors = list[bool](), list[QAMException]()
    with (
        QAMServer(server_id=f"{server_id}-absent", **broker.kwargs),
        QAMProxy(f"{server_id}-absent", **broker.kwargs) as absent,
    ):

        @server.register_function
        async def whoami() -> Any:
            await asyncio.sleep(0)
            call = current_call()
            inside = await asyncio.to_thread(current_call)
            assert call == inside
            return call and (call.method, call.client_id)

        @server.register_function
        async def outer() -> None:
            begun.append(True)
            try:
                await qam.aio.call(absent.never)
            except QAMException as error:
                errors.append(error)

        server.start()
        assert proxy.whoami() == ("whoami", "label")
        while not begun:  # on a slow machine its time may be up before it begins
            with suppress(QAMTimeoutException):  # unless the call inside ends a moment before
                proxy.set_timeout(0.3).outer()
        until(lambda: errors)
    assert isinstance(errors[0], QAMTimeoutException)
    assert "the time that was left to the caller of outer()" in str(errors[0])


@pytest.mark.parametrize("idempotent", [False, True], ids=["once", "again"])
def test_close_in_the_middle_ends_within_its_time(
    broker: Broker, server: QAMServer, proxy: QAMProxy, server_id: str, idempotent: bool
) -> None:
    # given many that would not end
    begun, cancelled, outcomes = list[int](), list[int](), list[Any]()

    async def hold(number: int) -> None:
        begun.append(number)
        try:
            await asyncio.sleep(10 * LONG)
        finally:
            cancelled.append(number)

    server.register_function(hold, idempotent=idempotent)
    server.start()
    for number in range(20):
        proxy.callback(outcomes.append, outcomes.append).hold(number)
    until(lambda: len(begun) == 20)
    # when
    before = time.monotonic()
    server.close(0.1)
    took = time.monotonic() - before
    with QAMServer(server_id=server_id, **broker.kwargs) as other:
        other.register_function(lambda number: "again", "hold", idempotent=idempotent)
        other.start()
        finish(proxy)
    # then each was cancelled, and its caller knows; or it runs elsewhere
    assert sorted(cancelled) == list(range(20))
    assert took < LONG
    if idempotent:
        assert outcomes == ["again"] * 20
    else:
        assert [type(each) for each in outcomes] == [QAMServerLostException] * 20


def test_a_task_of_the_application_that_ends_the_loop_keeps_no_caller_waiting(
    server: QAMServer, proxy: QAMProxy
) -> None:
    # given a task that raises SystemExit when it is cancelled, and a method that waits
    errors: list[Any] = []
    inside = threading.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def end_badly() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            raise SystemExit from None

    @server.register_function
    async def hold() -> None:
        tasks.add(asyncio.ensure_future(end_badly()))
        inside.set()
        await asyncio.sleep(LONG)

    @server.register_function
    async def stop() -> None:
        asyncio.get_running_loop().stop()

    server.start()
    proxy.callback(errors.append, errors.append).hold()
    assert inside.wait(LONG)
    # when the application stops the loop
    proxy.callback(errors.append, errors.append).stop()
    # then
    finish(proxy)
    assert len(errors) == 2
    tasks.clear()


def test_one_may_close_its_server(server: QAMServer, proxy: QAMProxy) -> None:
    @server.register_function
    async def leave() -> str:
        server.close(LONG)
        await asyncio.sleep(0)
        return "left"

    server.start()
    assert proxy.leave() == "left"
    server.close(LONG)


def test_what_is_registered_while_the_server_serves_runs_too(
    server: QAMServer, proxy: QAMProxy
) -> None:
    server.start()
    server.register_class(Shop(), "shop")
    assert proxy.shop.price(2) == 2


def test_a_server_with_some_that_were_never_called_leaves_nothing(server_id: str) -> None:
    with QAMServer(f"memory://{server_id}", server_id=server_id) as server:
        server.register_class(Shop(), "shop")
        server.start()
    with QAMServer(f"memory://{server_id}", server_id=server_id) as server:
        server.register_class(Shop(), "shop")
