"""A request that ends the server which builds it ends one, or as many as may run its method."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from qam import QAMProxy, QAMServerLostException
from qam._protocol.replies import SERVER_LOST
from tests.support.peer_0_2 import Client02
from tests.support.poison import STATUS, PoisonousConstructor, PoisonousState
from tests.support.processes import ServerProcess, runs
from tests.support.rabbitmq import RabbitMQNode
from tests.support.waiting import until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]

#: How many servers a poison ends, by the method that it is for.
ENDS = {"add": 1, "add_again": 3}
TRUSTED = ["tests.support.poison"]


def deaths(start: Callable[[], ServerProcess], told: Callable[[], Any]) -> int:
    """Start one server after the other until one tells the caller; return how many died."""
    died = 0
    while True:
        with start() as server:
            until(lambda server=server: told() or not server.running)  # type: ignore[misc]
            if server.running:
                server.terminate()  # it acknowledges what it has answered
                assert server.wait() == 0
                return died
            assert server.wait() == STATUS
        died += 1
        assert died < 10, "it ends every server"


INSIDE_APPLY = {"b": 1}  # what is called by keyword travels inside system.apply


@pytest.mark.parametrize(
    ("poison", "kwargs", "method"),
    [
        (PoisonousState, {}, "add"),
        (PoisonousState, INSIDE_APPLY, "add_again"),
        (PoisonousConstructor, {}, "add_again"),
        (PoisonousConstructor, INSIDE_APPLY, "add"),
    ],
)
def test_a_poison_ends_no_more_servers_than_may_run_its_method(
    poison: type,
    kwargs: dict[str, int],
    method: str,
    place: dict[str, Any],
    server_id: str,
    tmp_path: Path,
) -> None:
    journal = tmp_path / "journal"

    def start() -> ServerProcess:
        return ServerProcess(server_id, place, journal, trusted=TRUSTED)

    with start():  # it declares the queue
        pass
    with QAMProxy(server_id, timeout=150, **place) as proxy:
        outcomes: list[Any] = []
        args = () if kwargs else (1,)
        # when
        call = proxy.callback(outcomes.append, outcomes.append)
        getattr(call, method)(poison(), *args, **kwargs)
        # then
        assert deaths(start, lambda: outcomes) == ENDS[method]
        assert [type(outcome) for outcome in outcomes] == [QAMServerLostException]
        with start() as server:
            assert proxy.add(1, 2) == 3
            assert server.running
    assert runs(journal) == {"2": 1}


@pytest.mark.parametrize(("name", "method"), [("plain", "add_again"), ("system.apply", "add")])
def test_a_poison_without_a_correlation_id_ends_no_more_either(
    name: str,
    method: str,
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    tmp_path: Path,
) -> None:
    journal = tmp_path / "journal"

    def start() -> ServerProcess:
        return ServerProcess(server_id, place, journal, trusted=TRUSTED)

    client_id = f"client-{server_id}"
    with closing(Client02(rabbitmq_node.url, server_id, client_id, "pickle")) as client:
        replies = f"{client_id}_client_queue"
        with start():  # it declares the queue
            pass
        # when
        if name == "plain":
            client.send(method, PoisonousState(), 1)
        else:
            client.send("system.apply", method, (PoisonousState(), 1), {})
        # then
        assert deaths(start, lambda: rabbitmq_node.queues()[replies]) == ENDS[method]
        assert client.receive()["internal_exception"] == SERVER_LOST
        with start() as server:
            assert client.call("add", 1, 2)["result"] == 3
            assert server.running
    assert runs(journal) == {"2": 1}


@pytest.mark.parametrize("method", ENDS)
def test_of_servers_that_serve_together_no_more_die(
    method: str, place: dict[str, Any], server_id: str, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    with ExitStack() as stack:
        servers = [
            stack.enter_context(ServerProcess(server_id, place, journal, trusted=TRUSTED))
            for _ in range(5)
        ]
        proxy = stack.enter_context(QAMProxy(server_id, timeout=150, **place))
        # when
        with pytest.raises(QAMServerLostException):
            getattr(proxy, method)(PoisonousState(), 1)
        # then
        assert proxy.add(1, 2) == 3
        ended = [server for server in servers if not server.running]
        assert [server.wait() for server in ended] == [STATUS] * ENDS[method]
    assert runs(journal) == {"2": 1}
