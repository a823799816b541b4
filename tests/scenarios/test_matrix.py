"""Each of the four connections, each of the ways in which it can fail, under calls."""

import threading
import time
from collections import Counter
from itertools import product
from typing import Any

import pytest

from qam import QAMProxy
from tests.support.forwarder import Forwarder
from tests.support.rabbitmq import RabbitMQNode
from tests.support.routes import CONNECTIONS, Routes
from tests.support.service import Service, make_server
from tests.support.waiting import LONGER_THAN_A_RESTART

pytestmark = pytest.mark.rabbitmq

HEARTBEAT = 1  # seconds, so that silence is noticed soon


class Traffic:
    """Calls that are made all the time, by callbacks and by threads that wait."""

    def __init__(self, proxy: QAMProxy, service: Service) -> None:
        self.proxy, self.service = proxy, service
        self.outcomes: list[tuple[Any, Any]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(3)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LONGER_THAN_A_RESTART + 10)
        while self.proxy.get_num_waiting_callbacks():
            time.sleep(0.001)

    def _call(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            token = f"{thread}-{number}"
            uid = self._call_back(f"callback-{token}")
            try:
                self.outcomes.append((token, self.proxy.add(token, "!")))
            except Exception as error:
                self.outcomes.append((token, error))
            while self.proxy.get_num_waiting_callbacks() > 20 and uid:
                time.sleep(0.001)

    def _call_back(self, token: str) -> Any:
        def note(outcome: Any) -> None:
            self.outcomes.append((token, outcome))

        return self.proxy.callback(note, note).add(token, "!")

    def wait_for_more(self, number: int = 30) -> None:
        """Return when so many more calls have ended."""
        enough = len(self.outcomes) + number
        deadline = time.monotonic() + 60
        while len(self.outcomes) < enough:
            assert time.monotonic() < deadline, "calls do not go on"
            time.sleep(0.001)


@pytest.mark.parametrize(
    ("connection", "fault"),
    [
        *product(CONNECTIONS, ["cut", "stall"]),
        # which takes all four; this one comes back last, and of each side the worse
        ("client's consumer", "restart"),
        ("server's consumer", "restart"),
    ],
)
def test_all_calls_get_their_results(
    own_node: RabbitMQNode, routes: Routes, server_id: str, connection: str, fault: str
) -> None:
    place: dict[str, Any] = {"hostname": own_node.host, "port": own_node.port}
    # given calls all the time, and one connection on a way of its own
    with Forwarder(own_node.host, own_node.port) as way:
        routes.lead(connection, way.host, way.port, heartbeat=HEARTBEAT)
        service = Service()
        with make_server(service, server_id=server_id, **place) as server:
            server.start()
            with QAMProxy(server_id, timeout=LONGER_THAN_A_RESTART, **place) as proxy:
                assert way.connections == 1
                with Traffic(proxy, service) as traffic:
                    traffic.wait_for_more()
                    # when
                    fail(way, fault, own_node)
                    # then calls go on
                    traffic.wait_for_more()
                assert way.connections == 1
    # and each had its own result, and ran once
    assert [(token, got) for token, got in traffic.outcomes if got != f"{token}!"] == []
    assert Counter(service.runs).most_common(1)[0][1] == 1


def fail(way: Forwarder, fault: str, node: RabbitMQNode) -> None:
    if fault == "cut":
        way.cut()
    elif fault == "stall":
        way.stall()
        deadline = time.monotonic() + 60
        before = way.connections
        while way.connections <= before:  # it has given up, and tries again
            assert time.monotonic() < deadline, "the silence was not noticed"
            time.sleep(0.01)
        way.resume()
    else:
        way.refuse()  # it comes back last
        node.restart()
        way.accept()
