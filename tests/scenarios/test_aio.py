"""Calls from asyncio."""

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest

import qam.aio
from qam import QAMClosedException, QAMProxy, QAMServer, QAMTimeoutException, with_options
from tests.conftest import Broker
from tests.support.service import Service
from tests.support.waiting import until

LONG = 60.0


def test_a_call_is_awaited(proxy: QAMProxy) -> None:
    async def main() -> list[Any]:
        asynchronous = qam.aio.AsyncProxy(proxy)
        return [
            await qam.aio.call(proxy.add, 2, b=3),
            await asynchronous.add(2, 4),
            await asynchronous.testclass.adder_function(3, 4),
            await with_options(asynchronous, timeout=LONG).add(4, 4),
            await qam.aio.call(asynchronous.add, 4, 5),
        ]

    assert asyncio.run(main()) == [5, 6, 7, 8, 9]


def test_the_exception_of_a_method_is_raised(proxy: QAMProxy) -> None:
    with pytest.raises(ValueError, match="why"):
        asyncio.run(qam.aio.call(proxy.fail, "why"))


def test_a_timeout_is_raised(proxy: QAMProxy) -> None:
    async def main() -> None:
        await qam.aio.AsyncProxy(proxy.set_timeout(0.01)).hold()

    with pytest.raises(QAMTimeoutException):
        asyncio.run(main())


def test_a_proxy_can_be_connected_and_closed(
    broker: Broker, server_id: str, service: Service
) -> None:
    async def main() -> tuple[int, QAMProxy]:
        async with qam.aio.connect(server_id, **broker.kwargs) as calc:
            return await calc.add(2, 3), calc._caller

    result, proxy = asyncio.run(main())
    assert result == 5
    assert proxy.closed


def test_as_many_calls_run_at_once_as_the_server_has_workers(
    broker: Broker, server_id: str
) -> None:
    # given a method that returns when all calls are inside it
    together = threading.Barrier(500)
    server = QAMServer(server_id=server_id, max_workers=500, **broker.kwargs)
    server.register_function(lambda: together.wait(LONG) * 0, "meet")
    with server, QAMProxy(server_id, **broker.kwargs) as proxy:
        server.start()

        async def main() -> tuple[list[int], int]:
            before = threading.active_count()
            calls = [asyncio.ensure_future(qam.aio.call(proxy.meet)) for _ in range(500)]
            await asyncio.sleep(0)
            begun_by = threading.active_count() - before
            return await asyncio.gather(*calls), begun_by

        # when
        results, threads_of_clients = asyncio.run(main())
    # then
    assert results == [0] * 500
    # The workers of the server, in this process, may have begun: up to 500, and no thread more.
    assert threads_of_clients <= 501


def test_a_task_that_is_cancelled_while_its_request_waits_runs_nowhere(
    proxy: QAMProxy, service: Service
) -> None:
    proxy.publisher_thread.hold_requests()

    async def main() -> None:
        task = asyncio.ensure_future(qam.aio.call(proxy.add, 1, 2))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    proxy.publisher_thread.replies_can_come()
    assert proxy.add(3, 4) == 7
    assert service.runs == [(3, 4)]


def test_a_task_that_is_cancelled_while_its_method_runs_ends_at_once(
    proxy: QAMProxy, service: Service
) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(qam.aio.call(proxy.hold))
        while not service.holding.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not service.go_on.is_set()
    service.go_on.set()
    until(lambda: proxy._results.open_calls == 0)


def test_a_loop_that_is_closed_under_a_call_leaves_nothing(
    proxy: QAMProxy, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    # given a call whose loop goes away
    loop = asyncio.new_event_loop()
    coroutine = qam.aio.call(proxy.hold)
    task = loop.create_task(coroutine)
    loop.call_later(0.0, loop.stop)
    loop.run_forever()
    assert service.holding.wait(LONG)
    loop.close()
    # when its result comes
    service.go_on.set()
    until(lambda: proxy._results.open_calls == 0)
    assert proxy.add(1, 2) == 3
    # then nobody complains
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # the test has left it
    coroutine.close()
    del task
    gc.collect()


def test_several_loops_use_one_proxy(proxy: QAMProxy) -> None:
    results: list[int] = []

    def run(number: int) -> None:
        results.append(asyncio.run(qam.aio.call(proxy.add, number, number)))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 2, 4, 6, 8]


def test_a_closed_proxy_raises(proxy: QAMProxy) -> None:
    proxy.close()
    with pytest.raises(QAMClosedException):
        asyncio.run(qam.aio.call(proxy.add, 1, 2))


def test_what_is_no_proxy_is_refused(proxy: QAMProxy) -> None:
    with pytest.raises(TypeError, match="AsyncProxy needs a proxy"):
        qam.aio.AsyncProxy(proxy.callback(print))
    with pytest.raises(TypeError, match=r"as in call\(proxy\.add, 2, 3\)"):
        asyncio.run(qam.aio.call(len, []))
    assert repr(qam.aio.AsyncProxy(proxy)).startswith("<AsyncProxy of <open QAMProxy")
