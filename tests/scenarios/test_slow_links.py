"""Large messages on slow networks: as long as bytes come, the peer lives."""

import pytest

from qam import QAMProxy, QAMServer
from qam._broker import rabbitmq
from qam._protocol.entities import request_binding
from tests.support.forwarder import Forwarder
from tests.support.rabbitmq import RabbitMQNode
from tests.support.waiting import until

HEARTBEAT = 1  # seconds; the broker gives up after two without a byte
LONG = 60.0
REQUESTS, SIZE = 10, 200_000
BYTES_PER_SECOND = 500_000  # four seconds for all requests


def test_a_server_that_starts_on_a_backlog_of_large_requests_gets_to_work(
    rabbitmq_node: RabbitMQNode, server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a server on a slow network, and requests that wait in its queue
    monkeypatch.setattr(rabbitmq, "_ANSWER_TIMEOUT", 1.5)
    at, port = rabbitmq_node.host, rabbitmq_node.port
    with (
        Forwarder(at, port) as network,
        QAMServer(network.host, network.port, server_id=server_id, heartbeat=HEARTBEAT) as server,
        QAMProxy(server_id, at, port) as proxy,
    ):
        server.register_function(len)
        results: list[object] = []
        for _ in range(REQUESTS):
            proxy.callback(results.append, results.append).set_timeout(LONG).len(b"x" * SIZE)
        queue = request_binding(server_id).queue
        until(lambda: rabbitmq_node.queues()[queue] == REQUESTS)
        network.slow(BYTES_PER_SECOND)
        # when it starts: the broker's answers stand behind all these requests
        server.start()
        # then it takes them in
        until(lambda: len(results) == REQUESTS)
        assert results == [SIZE] * REQUESTS
