"""A server that closes while its network or its broker fails: what runs is waited for, and told."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from qam import QAMProxy, QAMServer, QAMServerLostException
from tests.support.forwarder import Forwarder
from tests.support.peer_0_2 import Client02
from tests.support.rabbitmq import RabbitMQNode
from tests.support.waiting import until

LONG = 60.0


class Held:
    """A method that runs until the test lets it go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.runs = 0
        self.ended = False

    def __call__(self, value: Any) -> Any:
        self.runs += 1
        self.begun.set()
        assert self.go_on.wait(LONG)
        self.ended = True
        return value


@contextmanager
def serving_held(
    network: Forwarder, server_id: str, **options: Any
) -> Iterator[tuple[QAMServer, Held]]:
    held = Held()
    with QAMServer(network.host, network.port, server_id=server_id) as server:
        server.register_function(lambda value: held(value), "held", **options)
        server.start()
        try:
            yield server, held
        finally:
            held.go_on.set()


@pytest.fixture
def network(rabbitmq_node: RabbitMQNode) -> Iterator[Forwarder]:
    with Forwarder(rabbitmq_node.host, rabbitmq_node.port) as network:
        yield network


@pytest.fixture
def proxy(rabbitmq_node: RabbitMQNode, server_id: str) -> Iterator[QAMProxy]:
    with QAMProxy(server_id, rabbitmq_node.host, rabbitmq_node.port, timeout=LONG) as proxy:
        yield proxy


class Closing:
    """Closes a server, in a thread of its own."""

    def __init__(self, server: QAMServer, timeout: float) -> None:
        self._thread = threading.Thread(target=server.close, args=(timeout,))
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        self._thread.join(LONG)
        assert self.over


def reconnected(server: QAMServer) -> bool:
    return ", connected" in repr(server)


def test_a_method_is_waited_for_whose_delivery_went_with_its_connection(
    network: Forwarder, server_id: str, proxy: QAMProxy
) -> None:
    outcomes: list[Any] = []
    with serving_held(network, server_id) as (server, held):
        # given a method that runs, and a short loss of the connections
        proxy.callback(outcomes.append, outcomes.append).held("done")
        assert held.begun.wait(LONG)
        before = server._consumer._intake.connection_number
        network.cut()
        until(lambda: server._consumer._intake.connection_number > before and reconnected(server))
        # when
        end = Closing(server, LONG)
        # then it is not left alone
        time.sleep(0.2)  # ample for a server that has nothing to wait for
        assert not end.over
        held.go_on.set()
        end.wait()
        until(lambda: outcomes)
    assert outcomes == ["done"]
    assert held.runs == 1


def test_of_an_old_client_too(
    network: Forwarder, rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    client = Client02(rabbitmq_node.url, server_id, f"{server_id}-old", "pickle")
    with closing(client), serving_held(network, server_id) as (server, held):
        client.send("held", "done")
        assert held.begun.wait(LONG)
        before = server._consumer._intake.connection_number
        network.cut()
        until(lambda: server._consumer._intake.connection_number > before and reconnected(server))
        end = Closing(server, LONG)
        time.sleep(0.2)  # ample for a server that has nothing to wait for
        assert not end.over
        held.go_on.set()
        end.wait()
        assert client.receive()["result"] == "done"


def test_a_server_whose_broker_is_away_as_it_closes_ends_its_methods_and_answers_in_time(
    network: Forwarder, server_id: str, proxy: QAMProxy
) -> None:
    outcomes: list[Any] = []
    with serving_held(network, server_id) as (server, held):
        proxy.callback(outcomes.append, outcomes.append).held("done")
        assert held.begun.wait(LONG)
        # given a broker that can't be reached
        network.refuse()
        network.cut()
        until(lambda: not reconnected(server))
        # when the server closes, and the method ends meanwhile
        end = Closing(server, LONG)
        held.go_on.set()
        until(lambda: held.ended)
        assert not end.over
        # then its reply arrives, once the broker is back
        network.accept()
        end.wait()
        until(lambda: outcomes)
    assert outcomes == ["done"]


def test_a_server_that_has_nothing_to_do_closes_at_once_while_its_broker_is_away(
    network: Forwarder, server_id: str
) -> None:
    with serving_held(network, server_id) as (server, _):
        network.refuse()
        network.cut()
        until(lambda: not reconnected(server))
        began = time.monotonic()
        Closing(server, LONG).wait()
        assert time.monotonic() - began < LONG / 2


@pytest.mark.parametrize("broker_is_away", [False, True])
def test_a_method_that_takes_too_long_is_named_and_its_caller_told(
    network: Forwarder,
    server_id: str,
    proxy: QAMProxy,
    broker_is_away: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes: list[Any] = []
    with serving_held(network, server_id) as (server, held):
        proxy.callback(outcomes.append, outcomes.append).held("done")
        assert held.begun.wait(LONG)
        if broker_is_away:
            network.refuse()
            network.cut()
            until(lambda: not reconnected(server))
        # when
        Closing(server, 0.2).wait()
        # then
        assert "held() still runs, and the server closes" in caplog.text
        if not broker_is_away:
            until(lambda: outcomes)
            [error] = outcomes
            assert isinstance(error, QAMServerLostException)
            assert error.executed == "unknown"
            assert "held()" in str(error)


def test_one_that_may_run_again_is_run_by_another_server(
    network: Forwarder, server_id: str, proxy: QAMProxy
) -> None:
    outcomes: list[Any] = []
    with serving_held(network, server_id, idempotent=True) as (server, held):
        proxy.callback(outcomes.append, outcomes.append).held("done")
        assert held.begun.wait(LONG)
        with serving_held(network, server_id, idempotent=True) as (_, other):
            other.go_on.set()
            # when
            Closing(server, 0.2).wait()
            # then
            until(lambda: outcomes)
            assert outcomes == ["done"]
            assert other.runs == 1
