"""Both directions with deployed peers of the 0.2 series, pickle and JSON."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from qam import QAMMethodNotFoundException, QAMProxy, QAMTimeoutException
from tests.support.peer_0_2 import Client02, Server02
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import serving


@pytest.fixture(params=["pickle", "json"])
def serializer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fail(*args: Any) -> None:
    raise KeyError(*args)


@pytest.fixture
def server_0_2(rabbitmq_node: RabbitMQNode, server_id: str, serializer: str) -> Iterator[Server02]:
    methods = {"add": lambda a, b: a + b, "inst.add": lambda a, b: a + b, "fail": fail}
    server = Server02(rabbitmq_node.url, server_id, serializer, methods)
    yield server
    server.close()


@pytest.fixture
def client_0_2(rabbitmq_node: RabbitMQNode, server_id: str, serializer: str) -> Iterator[Client02]:
    client = Client02(rabbitmq_node.url, server_id, f"client-{server_id}", serializer)
    yield client
    client.close()


def proxy_to(server_id: str, serializer: str, place: dict[str, Any]) -> QAMProxy:
    return QAMProxy(server_id, serializer=serializer, timeout=20, pickle_protocol=2, **place)


class TestProxyToServer02:
    def test_gets_results(
        self, server_0_2: Server02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        with proxy_to(server_id, serializer, place) as proxy:
            assert proxy.add(2, 3) == 5
            assert proxy.inst.add("a", "b") == "ab"

    def test_sends_the_four_fields_and_a_persistent_message(
        self, server_0_2: Server02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        # when
        with proxy_to(server_id, serializer, place) as proxy:
            proxy.add(2, 3)
        # then
        [(properties, body)] = server_0_2.seen
        assert set(body) == {"id", "method_name", "routing_key", "params"}
        assert isinstance(body["id"], int)
        assert 0 <= body["id"] < 2**53
        assert body["method_name"] == "add"
        assert list(body["params"]) == [2, 3]
        assert properties["delivery_mode"] == 2
        assert properties["reply_to"] == body["routing_key"]

    def test_raises_what_the_method_raised(
        self, server_0_2: Server02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        with proxy_to(server_id, serializer, place) as proxy:
            # when
            with pytest.raises(Exception, match="why") as raised:
                proxy.fail("why", 7)
            # then: a JSON server of that age says the args and no more
            assert type(raised.value) is (KeyError if serializer == "pickle" else Exception)
            assert raised.value.args == ("why", 7)

    def test_learns_that_a_method_is_not_found(
        self, server_0_2: Server02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        with (
            proxy_to(server_id, serializer, place) as proxy,
            pytest.raises(QAMMethodNotFoundException, match=r"method not found$"),
        ):
            proxy.missing()

    def test_is_refused_keyword_arguments_instead_of_losing_them(
        self, server_0_2: Server02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        with (
            proxy_to(server_id, serializer, place) as proxy,
            pytest.raises(QAMMethodNotFoundException) as refused,
        ):
            proxy.add(2, b=3)

        hint = "the server is of 0.2.x, which knows no keyword arguments: pass them by position"
        assert hint in str(refused.value)

    def test_finishes_callbacks(
        self, server_0_2: Server02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        results: list[Any] = []
        with proxy_to(server_id, serializer, place) as proxy:
            # when
            uids = [proxy.callback(results.append).add(n, n) for n in range(20)]
            for uid in uids:
                while proxy.get_callback_state(uid) != 2:
                    pass
        # then
        assert sorted(results) == [2 * n for n in range(20)]


class TestClient02ToServer:
    def test_gets_results(
        self, client_0_2: Client02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        with serving(server_id=server_id, serializer=serializer, **place):
            # when the client uses the same ids over and over
            replies = [client_0_2.call("add", n, 1, id=n % 2) for n in range(6)]
        # then
        assert [reply["result"] for reply in replies] == [1, 2, 3, 4, 5, 6]
        assert [reply["id"] for reply in replies] == [0, 1, 0, 1, 0, 1]
        assert all(reply["exception"] is False for reply in replies)
        assert all(reply["internal_exception"] == -1 for reply in replies)

    def test_calls_instances(
        self, client_0_2: Client02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        with serving(server_id=server_id, serializer=serializer, **place):
            assert client_0_2.call("testclass.adder_function", 2, 4)["result"] == 6

    def test_gets_what_a_method_raised(
        self, client_0_2: Client02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        with serving(server_id=server_id, serializer=serializer, **place):
            reply = client_0_2.call("fail", "why", 7)
        assert reply["exception"] is True
        assert reply["internal_exception"] == -1
        if serializer == "pickle":
            assert type(reply["result"]) is ValueError
            assert reply["result"].args == ("why", 7)
        else:
            assert reply["result"] == ["why", 7]

    def test_learns_that_a_method_is_not_found(
        self, client_0_2: Client02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        with serving(server_id=server_id, serializer=serializer, **place):
            reply = client_0_2.call("missing")
        assert reply["exception"] is True
        assert reply["internal_exception"] == 1
        assert "missing" in reply["result"]

    def test_and_a_new_client_share_a_server(
        self, client_0_2: Client02, server_id: str, serializer: str, place: dict[str, Any]
    ) -> None:
        with (
            serving(server_id=server_id, serializer=serializer, **place),
            QAMProxy(server_id, serializer=serializer, timeout=20, **place) as proxy,
        ):
            assert client_0_2.call("add", 1, 2)["result"] == 3
            assert proxy.add(3, 4) == 7


def test_a_late_reply_of_a_0_2_server_answers_no_other_call(
    server_0_2: Server02, server_id: str, serializer: str, place: dict[str, Any]
) -> None:
    # given a call that times out in a slot that the next call uses
    nobody_waits = threading.Event()
    server_0_2.methods["slow"] = lambda: nobody_waits.wait(20) and "late"
    with proxy_to(server_id, serializer, place) as proxy:
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(0.1).slow()
        # when the next call takes that slot, behind the late reply
        nobody_waits.set()
        # then
        assert proxy.add(1, 1) == 2
