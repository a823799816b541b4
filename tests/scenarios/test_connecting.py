"""How long it takes to connect, and to give up: as long as was said, and once for all."""

import gc
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from qam import QAMConnectionException, QAMProxy, QAMServer, qam_proxy
from qam._broker import rabbitmq, transport
from qam._common.deadline import Deadline
from tests.support.forwarder import Forwarder
from tests.support.rabbitmq import RabbitMQNode


@pytest.fixture
def network(rabbitmq_node: RabbitMQNode) -> Iterator[Forwarder]:
    with Forwarder(rabbitmq_node.host, rabbitmq_node.port) as network:
        yield network


def own_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("qam")]


@pytest.mark.parametrize(
    "make",
    [
        lambda network, id: QAMProxy(id, network.host, network.port, connect_timeout=1),
        lambda network, id: QAMServer(network.host, network.port, server_id=id, connect_timeout=1),
    ],
)
def test_a_broker_that_goes_silent_after_the_handshake_costs_no_more_than_was_said(
    network: Forwarder,
    server_id: str,
    make: Callable[[Forwarder, str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a broker that answers nothing any more once entities are declared
    monkeypatch.setattr(rabbitmq, "_ANSWER_TIMEOUT", 1000.0)
    before = own_threads()

    def go_silent(chunk: bytes, towards_broker: bool) -> bool:
        if towards_broker and b"_exchange" in chunk:
            network.stall()
        return False

    network.cut_when(go_silent)
    # when
    with pytest.raises(QAMConnectionException, match="no answer within 1 seconds") as raised:
        make(network, server_id)
    # then no thread goes on to wait
    assert own_threads() == before
    assert raised.value.executed == "no"


class NetworkWithADeadHost(socket.socket):
    """Packets to the dead host are dropped, which is told when the time for it is up."""

    dead_address = ("192.0.2.1", 5672)
    granted: ClassVar[list[float | None]] = []

    def connect(self, address: Any) -> None:
        if address != self.dead_address:
            return super().connect(address)
        self.granted.append(self.gettimeout())
        raise TimeoutError("timed out")


def test_a_host_with_several_addresses_is_reached_by_the_one_that_answers(
    rabbitmq_node: RabbitMQNode, server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a name that stands for an address that drops packets, and for the broker's
    network = NetworkWithADeadHost
    addresses = [network.dead_address, (rabbitmq_node.host, rabbitmq_node.port)]

    def resolve(host: str, port: int, timeout: float | None) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(transport, "_resolve", resolve)
    monkeypatch.setattr(network, "granted", [])
    monkeypatch.setattr(socket, "socket", network)
    # when
    with QAMProxy(server_id, "broker.example", 1, connect_timeout=60) as proxy:
        # then the dead one has left the other its half of the time
        assert ", connected" in repr(proxy)
    assert len(network.granted) == 2, "each of the two connections asked it once"
    assert all(0 < (seconds or 0.0) <= 30 for seconds in network.granted)


def test_proxies_that_are_left_open_end_together(
    server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given proxies that nobody closes
    proxies = [QAMProxy(server_id, f"memory://{server_id}") for _ in range(4)]
    all_begun, deadlines = [], set[Deadline]()
    finish = QAMProxy._finish_closing

    def note(proxy: QAMProxy, deadline: Deadline) -> None:
        all_begun.append(all(each.closed for each in proxies))
        deadlines.add(deadline)
        finish(proxy, deadline)

    monkeypatch.setattr(QAMProxy, "_finish_closing", note)
    monkeypatch.setattr(qam_proxy, "_open_proxies", set(proxies))
    # when the interpreter ends
    qam_proxy._close_open_proxies()
    # then none waits for the end of another before it begins, and they share the time
    assert all_begun == [True] * 4
    assert len(deadlines) == 1


def test_closed_proxies_are_freed(server_id: str) -> None:
    finalizers = len(weakref.finalize._registry)  # type: ignore[attr-defined]
    references = []
    for _ in range(5):
        with QAMProxy(server_id, f"memory://{server_id}") as proxy:
            references.append(weakref.ref(proxy))
    del proxy
    gc.collect()
    assert [each() for each in references] == [None] * 5
    assert len(weakref.finalize._registry) == finalizers  # type: ignore[attr-defined]


def test_keyword_arguments_may_have_any_name(server_id: str) -> None:
    url = f"memory://{server_id}"
    with QAMServer(url, server_id=server_id) as server, QAMProxy(server_id, url) as proxy:
        server.register_function(dict, "keywords")
        server.start()
        assert proxy.keywords(self=1, args=2) == {"self": 1, "args": 2}
        assert proxy.set_timeout(60)("keywords", method_name=1) == {"method_name": 1}
        results: list[Any] = []
        uid = proxy.callback(results.append)("keywords", self=1, method_name=2)
        while proxy.get_callback_state(uid) != 2:
            pass
        assert results == [{"self": 1, "method_name": 2}]
