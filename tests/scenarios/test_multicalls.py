"""Several calls in one request: `MultiCall`."""

import xmlrpc.client
from typing import Any

import pytest

from qam import (
    MultiCall,
    QAMMethodNotFoundException,
    QAMProxy,
    QAMSerializationException,
    QAMServer,
    QAMTimeoutException,
    RemoteException,
    with_options,
)
from tests.conftest import Broker
from tests.support.service import Service


def test_each_call_has_its_result(proxy: QAMProxy, service: Service) -> None:
    # given
    calls = MultiCall(proxy)
    calls.add(7, 3)
    calls.add(7, b=4)
    calls.testclass.adder_function(1, 2)
    # when
    results = calls()
    # then
    assert tuple(results) == (10, 11, 3)
    assert len(results) == 3
    assert results[-1] == 3
    assert list(results[:2]) == [10, 11]
    assert service.runs == [(7, 3), (7, 4)], "in order"
    first, second, third = calls()
    assert (first, second, third) == (10, 11, 3), "it can be used again"


@pytest.mark.parametrize("serializer", ["pickle", "json", "msgpack"])
def test_each_failure_is_raised_when_it_is_reached(
    broker: Broker, server_id: str, serializer: str
) -> None:
    class Own(Exception):
        pass

    def fail() -> None:
        raise Own("why")

    with QAMServer(server_id=server_id, serializer=serializer, **broker.kwargs) as server:
        server.register_function(fail)
        server.register_function(lambda: object(), "unsendable")
        server.register_function(lambda: "text", "good")
        server.start()
        with QAMProxy(server_id, serializer=serializer, **broker.kwargs) as proxy:
            calls = MultiCall(proxy)
            for name in ("good", "fail", "absent", "unsendable", "good"):
                calls[name]()
            results = calls()
            assert results[0] == results[4] == "text"
            with pytest.raises(RemoteException, match="why"):
                results[1]
            with pytest.raises(QAMMethodNotFoundException, match="absent"):
                results[2]
            with pytest.raises(QAMSerializationException):
                results[3]
            with pytest.raises(RemoteException):
                list(results)


def test_none_are_not_sent(server_id: str) -> None:
    with QAMProxy(server_id, f"memory://{server_id}") as proxy:
        assert list(MultiCall(proxy)()) == []


def test_there_is_a_bound(proxy: QAMProxy) -> None:
    calls = MultiCall(proxy)
    for number in range(1000):
        calls.echo(number)
    assert list(calls()) == list(range(1000))
    calls.echo(1000)
    with pytest.raises(ValueError, match="at most 1000 calls, not 1001"):
        calls()


@pytest.mark.parametrize(
    "params",
    [
        (["echo"] * 1001, [[[1], {}]] * 1001),
        (["echo"], []),
        (["system.multicall"], [[[[], []], {}]]),
        (["system.apply"], [[["echo", [], {}], {}]]),
        ([5], [[[1], {}]]),
        (["echo"], [[1]]),
        ("echo", "x"),
    ],
    ids=["too many", "lengths", "nested", "apply", "no name", "no arguments", "no lists"],
)
def test_a_server_refuses_what_is_no_list_of_calls(proxy: QAMProxy, params: Any) -> None:
    with pytest.raises(QAMSerializationException, match=r"system\.multicall") as raised:
        proxy["system.multicall"](*params)
    assert raised.value.executed == "no"


def test_results_that_are_too_large_together_are_told(server_id: str) -> None:
    url = f"memory://{server_id}"
    with QAMServer(url, server_id=server_id, max_message_bytes=10_000) as server:
        server.register_function(lambda: "x" * 4000, "large")
        server.start()
        with QAMProxy(server_id, url) as proxy:
            calls = MultiCall(proxy)
            for _ in range(3):
                calls.large()
            with pytest.raises(QAMSerializationException, match="max_message_bytes=10000") as told:
                calls()
    assert told.value.executed == "yes"


def test_what_is_not_begun_in_time_does_not_run(proxy: QAMProxy, service: Service) -> None:
    calls = MultiCall(proxy.set_timeout(0.05))
    calls.nap(0.2)
    calls.add(1, 2)
    with pytest.raises(QAMTimeoutException):
        calls()
    assert proxy.nap(0.2) == 0.2
    assert service.runs == []


def test_the_examples_of_xmlrpc_print_the_same(
    proxy: QAMProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    # The calls of its documentation, and of its docstring.
    multicall = MultiCall(proxy)
    multicall.add(7, 3)
    multicall.add(7, -3)
    result = multicall()
    print("7+3=%d, 7-3=%d" % tuple(result))  # noqa: UP031
    multi = MultiCall(proxy)
    multi.add(2, 3)
    multi.echo("Guido")
    add_result, address = multi()
    print(add_result, address)
    for response in multi():
        print(response)
    assert capsys.readouterr().out == "7+3=10, 7-3=4\n5 Guido\n5\nGuido\n"
    assert set(dir(xmlrpc.client.MultiCall)) & {"__call__", "__getattr__"} <= set(dir(MultiCall))


def test_a_multicall_takes_the_options_of_its_target(proxy: QAMProxy) -> None:
    calls = MultiCall(with_options(proxy, timeout=1e-9))
    calls.hold()
    with pytest.raises(QAMTimeoutException):
        calls()
    with pytest.raises(TypeError, match="MultiCall needs a proxy"):
        MultiCall(proxy.callback(print))
    with pytest.raises(TypeError, match="MultiCall needs a proxy"):
        MultiCall(calls)
    assert repr(calls).startswith("<MultiCall of 1 calls on <open QAMProxy")
    assert repr(MultiCall(proxy)()) == "<results of 0 calls>"
