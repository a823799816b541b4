"""Calls for whose results nobody waits: `send`."""

import threading
from typing import Any

import pytest

from qam import (
    MultiCall,
    QAMClosedException,
    QAMMethodNotFoundException,
    QAMProxy,
    QAMSerializationException,
    QAMServer,
    QAMServerNotFoundException,
    QAMTimeoutException,
    ping,
    send,
)
from tests.conftest import Broker
from tests.support.forwarder import Forwarder
from tests.support.peer_0_2 import Server02
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, serving
from tests.support.waiting import until

LONG = 60.0


@pytest.mark.parametrize("persistent", [True, False])
def test_the_method_runs_once_and_nothing_comes_back(
    broker: Broker, server_id: str, service: Service, persistent: bool
) -> None:
    with QAMProxy(server_id, persistent=persistent, **broker.kwargs) as proxy:
        assert send(proxy.add, 1, b=2) is None  # type: ignore[func-returns-value]
        until(lambda: service.runs == [(1, 2)])
        assert proxy._results.open_calls == 0
        assert proxy.add(3, 4) == 7
        assert service.runs == [(1, 2), (3, 4)]


def test_it_does_not_wait_for_the_method(proxy: QAMProxy, service: Service) -> None:
    send(proxy.hold, "held")
    assert service.holding.wait(LONG)
    assert not service.go_on.is_set()


def test_it_waits_for_a_server_that_comes_later(broker: Broker, server_id: str) -> None:
    service = Service()
    with QAMServer(server_id=server_id, **broker.kwargs) as later:
        later.register_function(service.add)
        with QAMProxy(server_id, timeout=5, **broker.kwargs) as proxy:
            # The timeout is that of the wait for the broker.
            send(proxy.add, 1, 2)
            assert service.runs == []
            later.start()
            until(lambda: service.runs == [(1, 2)])


def test_what_the_method_raises_is_logged_at_the_server(
    proxy: QAMProxy, caplog: pytest.LogCaptureFixture
) -> None:
    send(proxy.fail, "why")
    send(proxy.absent)
    assert proxy.echo(1) == 1
    until(lambda: "absent() was sent one way, and failed: no method 'absent'" in caplog.text)
    assert "ValueError: why" in caplog.text
    assert "could not be delivered" not in caplog.text


def test_an_absent_server_is_told(broker: Broker, server_id: str) -> None:
    with QAMProxy(server_id, **broker.kwargs) as proxy:
        with pytest.raises(QAMServerNotFoundException) as raised:
            send(proxy.add, 1)
        assert raised.value.executed == "no"


def test_what_can_not_be_written_in_time_does_not_run(proxy: QAMProxy, service: Service) -> None:
    proxy.publisher_thread.hold_requests()
    with pytest.raises(QAMTimeoutException) as raised:
        send(proxy.set_timeout(0.01).add, 1, 2)
    assert raised.value.executed == "no"
    proxy.publisher_thread.replies_can_come()
    assert proxy.add(3, 4) == 7
    assert service.runs == [(3, 4)]


def test_what_the_broker_does_not_confirm_may_have_run(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    with (
        Forwarder(rabbitmq_node.host, rabbitmq_node.port) as network,
        serving(server_id=server_id, hostname=rabbitmq_node.host, port=rabbitmq_node.port),
        QAMProxy(server_id, network.host, network.port) as proxy,
    ):
        assert proxy.echo(1) == 1
        network.stall(towards_broker=False)
        with pytest.raises(QAMTimeoutException, match="has not confirmed it") as raised:
            send(proxy.set_timeout(0.05).echo, 1)
        assert raised.value.executed == "unknown"
        network.resume()


def test_a_closed_proxy_and_wrong_arguments_are_told(proxy: QAMProxy) -> None:
    with pytest.raises(TypeError, match=r"as in send\(proxy\.add, 2, 3\)"):
        send(len, [])
    with pytest.raises(QAMSerializationException):
        send(proxy.add, threading.Lock())
    proxy.close()
    with pytest.raises(QAMClosedException):
        send(proxy.add, 1)


def test_it_survives_the_death_of_the_broker_and_runs_once(
    own_node: RabbitMQNode, server_id: str
) -> None:
    # given requests that the broker has confirmed, and a server that is busy
    place: dict[str, Any] = {"hostname": own_node.host, "port": own_node.port}
    with (
        serving(server_id=server_id, max_workers=1, prefetch=5, **place) as service,
        QAMProxy(server_id, timeout=LONG, **place) as proxy,
    ):
        send(proxy.hold)
        assert service.holding.wait(LONG)
        for number in range(20):
            send(proxy.add, number, 0)
        # when
        own_node.kill()
        own_node.start()
        service.go_on.set()
        # then
        until(lambda: len(service.runs) == 21)
        assert proxy.add(20, 0) == 20
        assert sorted(service.runs[1:]) == [(number, 0) for number in range(21)]
        assert service.runs[0] == ("hold", None)


def test_a_server_that_starts_after_the_death_of_the_broker_tells_what_it_can_not_know(
    own_node: RabbitMQNode, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given a request that the broker has confirmed, and no server that runs; a quorum queue would
    # know that no server has had it
    place: dict[str, Any] = {"hostname": own_node.host, "port": own_node.port}
    service, kind = Service(), {"queue_arguments": {"x-queue-type": "classic"}}
    with (
        QAMServer(server_id=server_id, **kind, **place) as server,
        QAMProxy(server_id, **place) as proxy,
    ):
        server.register_function(service.add)
        send(proxy.add, 1, 2)
        # when the broker dies, which then marks all requests as if a server had had them
        own_node.kill()
        own_node.start()
        server.start()
        # then it does not run, as somebody else may have begun it, and that is logged
        until(lambda: "add() was sent one way, and failed: the server that had" in caplog.text)
        assert service.runs == []


def test_a_server_of_0_2_runs_it_and_no_queue_grows(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    ran: list[int] = []
    server = Server02(rabbitmq_node.url, server_id, "pickle", {"note": ran.append})
    try:
        place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
        with QAMProxy(server_id, pickle_protocol=2, metadata={"a": "b"}, **place) as proxy:
            for number in range(5):
                send(proxy.note, number)
            until(lambda: ran == [0, 1, 2, 3, 4])
            assert proxy.set_timeout(LONG).note(5) is None
            queues = rabbitmq_node.queues()
            assert {name: n for name, n in queues.items() if server_id in name and n} == {}
            assert proxy._results.open_calls == 0
            assert 0 < ping(proxy, timeout=LONG) < LONG
            calls = MultiCall(proxy)
            calls.note(1)
            with pytest.raises(QAMMethodNotFoundException):
                calls()
    finally:
        server.close()


def test_a_ping_takes_some_time_and_an_absent_server_is_told(
    broker: Broker, server_id: str, proxy: QAMProxy
) -> None:
    assert 0 < ping(proxy, timeout=LONG) < LONG
    assert 0 < ping(proxy.set_timeout(1e-9), timeout=LONG) < LONG
    with pytest.raises(QAMServerNotFoundException), QAMProxy("absent", **broker.kwargs) as other:
        ping(other)
    with pytest.raises(ValueError, match="timeout"):
        ping(proxy, timeout=0)
    with pytest.raises(TypeError, match="ping needs a proxy"):
        ping("qamserver")
