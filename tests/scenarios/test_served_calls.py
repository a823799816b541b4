"""Methods that know the call that they answer: who calls, with what, and how long it may take."""

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import qam
from qam import (
    CurrentCall,
    MultiCall,
    QAMProxy,
    QAMServer,
    QAMServerLostException,
    QAMTimeoutException,
    current_call,
    send,
)
from tests.conftest import Broker
from tests.support.waiting import finish, until

LONG = 60.0


@pytest.fixture
def server(broker: Broker, server_id: str) -> Iterator[QAMServer]:
    """A server that the test starts when it has registered its methods."""
    with QAMServer(server_id=server_id, **broker.kwargs) as server:
        yield server


@pytest.fixture
def proxy(broker: Broker, server_id: str, server: QAMServer) -> Iterator[QAMProxy]:
    with QAMProxy(server_id, client_id="label", timeout=LONG, **broker.kwargs) as proxy:
        yield proxy


def seen() -> CurrentCall:
    call = current_call()
    assert call is not None
    return call


def test_a_method_sees_its_call(
    server: QAMServer, proxy: QAMProxy, broker: Broker, server_id: str
) -> None:
    calls: list[CurrentCall] = []
    server.register_function(lambda a=0, b=0: calls.append(seen()), "note")
    server.start()
    with QAMProxy(server_id, metadata={"trace": "a1"}, **broker.kwargs) as other:
        # when
        proxy.note(1, b=2)
        other.note()
    # then
    assert [call.method for call in calls] == ["note", "note"]
    assert [call.client_id for call in calls] == ["label", other.client_id]
    assert [dict(call.metadata) for call in calls] == [{}, {"trace": "a1"}]
    assert [call.user for call in calls] == [None, None]
    assert len({call.id for call in calls}) == 2
    left = calls[0].remaining()
    assert left is not None
    assert 0 < left <= LONG
    assert calls[1].remaining() is None
    assert not calls[1].cancelled
    assert current_call() is None, "this is no method"


def test_each_call_of_a_multicall_and_one_that_is_sent_are_calls_too(
    server: QAMServer, proxy: QAMProxy
) -> None:
    calls: list[CurrentCall] = []
    for name in ("first", "second", "third"):
        server.register_function(lambda: calls.append(seen()), name)
    server.start()
    several = MultiCall(proxy)
    several.first()
    several.second()
    assert list(several()) == [None, None]
    send(proxy.third)
    until(lambda: len(calls) == 3)
    assert [call.method for call in calls] == ["first", "second", "third"]
    assert [call.client_id for call in calls] == ["label"] * 3
    assert calls[2].remaining() is None


def test_what_a_method_begins_elsewhere_has_its_call_only_if_it_is_handed_on(
    server: QAMServer, proxy: QAMProxy
) -> None:
    found: list[Any] = []

    @server.register_function
    def begin() -> None:
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(current_call).result())
            inside = contextvars.copy_context()
            found.append(pool.submit(inside.run, current_call).result())
        found.append(asyncio.run(asyncio.to_thread(current_call)))

    server.start()
    proxy.begin()
    assert found[0] is None
    assert [call.method for call in found[1:]] == ["begin", "begin"]


def test_a_method_whose_caller_has_gone_can_end(
    server: QAMServer, proxy: QAMProxy, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[CurrentCall] = []
    ended = threading.Event()

    @server.register_function
    def dig() -> None:
        calls.append(seen())
        try:
            until(lambda: calls[0].cancelled)
            calls[0].raise_if_cancelled()
        finally:
            ended.set()

    server.register_function(lambda: 5, "five")
    server.start()
    while not calls:  # on a slow machine its time may be up before it begins
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(0.2).dig()
    assert ended.wait(LONG)
    assert calls[0].remaining() == 0
    assert proxy.five() == 5
    # it is no error of the server
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


@pytest.mark.parametrize("idempotent", [False, True], ids=["once", "again"])
def test_a_method_is_told_when_the_server_has_no_more_time(
    broker: Broker, server: QAMServer, proxy: QAMProxy, server_id: str, idempotent: bool
) -> None:
    # given a method that ends as soon as it need not go on
    begun, outcomes = threading.Event(), list[Any]()

    def dig() -> None:
        begun.set()
        until(lambda: seen().cancelled)
        seen().raise_if_cancelled()

    server.register_function(dig, idempotent=idempotent)
    server.start()
    proxy.callback(outcomes.append, outcomes.append).dig()
    assert begun.wait(LONG)
    # when the server closes, and another one is there
    server.close(0.1)
    with QAMServer(server_id=server_id, **broker.kwargs) as other:
        other.register_function(lambda: "again", "dig", idempotent=idempotent)
        other.start()
        finish(proxy)
    # then it was told that it is lost, or it runs again: the error of the method is no answer
    if idempotent:
        assert outcomes == ["again"]
    else:
        assert [type(each) for each in outcomes] == [QAMServerLostException]


def test_the_calls_of_a_multicall_that_are_not_begun_then_do_not_run(
    server: QAMServer, proxy: QAMProxy
) -> None:
    begun, ran, outcomes = threading.Event(), list[str](), list[Any]()

    @server.register_function
    def dig() -> None:
        begun.set()
        until(lambda: seen().cancelled)

    server.register_function(lambda: ran.append("last"), "last")
    server.start()
    several = MultiCall(proxy)
    several.dig()
    several.last()

    def call() -> None:
        try:
            several()
        except QAMServerLostException as error:
            outcomes.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(LONG)
    server.close(0.1)
    caller.join(LONG)
    assert len(outcomes) == 1
    assert ran == []


# --- time that is inherited ------------------------------------------------------


def test_callers_that_wait_no_more_keep_no_worker_busy(broker: Broker, server_id: str) -> None:
    # given a server of two workers, whose method calls a server that is not there
    with (
        QAMServer(server_id=f"{server_id}-absent", **broker.kwargs),
        QAMProxy(f"{server_id}-absent", **broker.kwargs) as absent,
        QAMServer(server_id=server_id, max_workers=2, max_nested=0, **broker.kwargs) as server,
        QAMProxy(server_id, **broker.kwargs) as proxy,
    ):
        server.register_function(lambda: absent.never(), "outer")
        server.register_function(lambda: "at once", "quick")
        server.start()
        # when two calls of it time out
        errors: list[Any] = []
        for _ in range(2):
            proxy.callback(print, errors.append).set_timeout(0.3).outer()
        finish(proxy)
        # one of both ends sees it first, the proxy or the method
        assert all("timed out after 0." in str(each) for each in errors)
        assert len(errors) == 2
        # then a third call finds a worker
        assert proxy.set_timeout(LONG).quick() == "at once"


def test_the_last_of_a_chain_of_servers_sees_what_is_left_to_the_first(
    broker: Broker, server_id: str
) -> None:
    names = [f"{server_id}-{number}" for number in range(3)]
    left: list[Any] = []
    with (
        QAMServer(server_id=names[0], **broker.kwargs) as first,
        QAMServer(server_id=names[1], **broker.kwargs) as second,
        QAMServer(server_id=names[2], **broker.kwargs) as third,
        QAMProxy(names[0], **broker.kwargs) as to_first,
        QAMProxy(names[1], timeout=2 * LONG, **broker.kwargs) as to_second,
        QAMProxy(names[2], **broker.kwargs) as to_third,
    ):

        def go_on(proxy: QAMProxy | None) -> None:
            left.append(seen().remaining())
            if proxy is not None:
                proxy.go()

        for server, then in [(first, to_second), (second, to_third), (third, None)]:
            server.register_function(lambda then=then: go_on(then), "go")
            server.start()
        # when
        to_first.set_timeout(LONG).go()
    # then: a request says whole milliseconds, to which it is rounded
    assert 0 < left[2] <= left[1] + 0.001
    assert left[1] <= left[0] + 0.001 <= LONG + 0.001


def test_a_callback_that_a_method_has_begun_outlives_it(
    broker: Broker, server: QAMServer, proxy: QAMProxy, server_id: str
) -> None:
    ended: list[Any] = []
    go_on = threading.Event()
    with (
        QAMServer(server_id=f"{server_id}-inner", **broker.kwargs) as inner,
        QAMProxy(f"{server_id}-inner", **broker.kwargs) as to_inner,
    ):

        @inner.register_function
        def hold() -> Any:
            assert go_on.wait(LONG)
            return seen().remaining()

        inner.start()

        @server.register_function
        def begin() -> str:
            to_inner.callback(lambda left: ended.append((left, current_call()))).hold()
            return "begun"

        server.start()
        # when
        assert proxy.begin() == "begun"
        go_on.set()
        finish(to_inner)
    # then its call has no end, and the callback itself answers no call
    assert ended == [(None, None)]


def test_the_names_are_public() -> None:
    assert qam.current_call.__module__ == qam.CurrentCall.__module__ == "qam"
    assert "current_call" in (qam.CurrentCall.__doc__ or "")
