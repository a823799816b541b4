"""Calls while a node of the cluster is killed, with quorum queues."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from qam import QAMProxy, QAMServer, QAMServerLostException
from tests.support.cluster import Cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.rabbitmq,
    pytest.mark.timeout(240),
]

QUORUM = {"x-queue-type": "quorum"}


def hosts(cluster: Cluster, first: int) -> list[str]:
    """All nodes, the one with this index before the others."""
    nodes = cluster.nodes[first:] + cluster.nodes[:first]
    return [f"{node.host}:{node.port}" for node in nodes]


class Service:
    """A method that holds, and what ran."""

    def __init__(self) -> None:
        self.runs: Counter[Any] = Counter()
        self.holding, self.go_on = threading.Event(), threading.Event()

    def hold(self, value: Any) -> Any:
        self.runs[value] += 1
        self.holding.set()
        assert self.go_on.wait(120)
        return value


@contextmanager
def killed(cluster: Cluster, index: int) -> Iterator[None]:
    """One node is gone meanwhile, and back after."""
    cluster.kill(index)
    try:
        yield
    finally:
        cluster.restart(index)


@pytest.mark.parametrize(
    ("victim", "others"),
    [("client's node", 1), ("server's node", 0), ("server's node", 1), ("third node", 0)],
)
def test_a_call_gets_its_result_although_a_node_is_killed_inside_the_method(
    cluster: Cluster, server_id: str, victim: str, others: int
) -> None:
    service = Service()
    servers = [
        QAMServer(hosts(cluster, 1), server_id=server_id, queue_arguments=QUORUM, prefetch=4)
        for _ in range(1 + others)
    ]
    for server in servers:
        server.register_function(service.hold)
        server.start()
    outcomes: dict[Any, Any] = {}
    with QAMProxy(server_id, hosts(cluster, 0), queue_arguments=QUORUM, timeout=120) as proxy:

        def call(value: Any) -> int:
            keep = partial(outcomes.__setitem__, value)
            return proxy.callback(keep, keep).hold(value)

        # given calls that run
        for n in range(4):
            call(n)
        while sum(service.runs.values()) < 4:
            time.sleep(0.005)
        # when
        with killed(cluster, ["client's node", "server's node", "third node"].index(victim)):
            # then they are answered while it is away, and so are new ones
            later = call("later")
            service.go_on.set()
            while proxy.get_num_waiting_callbacks():
                time.sleep(0.005)
            assert proxy.get_callback_state(later) == 2
    for server in servers:
        server.close()
    lost = [n for n, outcome in outcomes.items() if isinstance(outcome, QAMServerLostException)]
    # A server of which the other hears nothing for three seconds is taken for dead. How long it
    # takes two nodes to notice that the third is gone, and to choose leaders, is their affair.
    assert not lost or others
    assert outcomes == {n: outcomes[n] if n in lost else n for n in [0, 1, 2, 3, "later"]}
    assert all(service.runs[n] == 1 or n in lost for n in outcomes)
    assert max(service.runs.values()) == 1


def test_a_classic_reply_queue_whose_node_is_down_is_replaced(
    cluster: Cluster, server_id: str
) -> None:
    # given replies in a queue that lives on the node of the client
    service = Service()
    server = QAMServer(hosts(cluster, 1), server_id=server_id, queue_arguments=QUORUM)
    server.register_function(service.hold)
    server.start()
    with QAMProxy(server_id, hosts(cluster, 0), timeout=120) as proxy:
        results: list[Any] = []
        proxy.callback(results.append, results.append).hold("warm")
        assert service.holding.wait(20)
        service.go_on.set()
        while proxy.get_num_waiting_callbacks():
            time.sleep(0.005)
        service.go_on.clear()
        service.holding.clear()
        proxy.callback(results.append, results.append).hold("mine")
        assert service.holding.wait(20)
        # when
        with killed(cluster, 0):
            service.go_on.set()
            while proxy.get_num_waiting_callbacks():
                time.sleep(0.005)
    server.close()
    # then
    assert results == ["warm", "mine"]
    assert service.runs == {"warm": 1, "mine": 1}
