"""A broker that is killed, and servers that are killed, under load."""

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from qam import QAMProxy, QAMServer, QAMServerLostException
from tests.support.descriptors import open_descriptors
from tests.support.processes import ServerProcess, runs
from tests.support.rabbitmq import RabbitMQNode
from tests.support.waiting import LONGER_THAN_A_RESTART

pytestmark = pytest.mark.rabbitmq

THREADS, CALLBACKS, TIMEOUT = 8, 500, LONGER_THAN_A_RESTART


@pytest.fixture
def place(own_node: RabbitMQNode) -> dict[str, Any]:
    return {"hostname": own_node.host, "port": own_node.port}


class Load:
    """Threads that call and wait, and callbacks that are outstanding."""

    def __init__(self, proxy: QAMProxy, call: Callable[[Any, str], Any]) -> None:
        self.proxy, self._call = proxy, call
        self.outcomes: dict[str, Any] = {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(THREADS)]

    def __enter__(self) -> "Load":
        for number in range(CALLBACKS):
            token = f"callback-{number}"
            note = self._note(token)
            self._call(self.proxy.callback(note, note), token)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 10)
        self.hung = [thread for thread in self._threads if thread.is_alive()]

    def _note(self, token: str) -> Callable[[Any], None]:
        return lambda outcome: self.outcomes.__setitem__(token, outcome)

    def _work(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            token = f"sync-{thread}-{number}"
            number += 1
            try:
                self.outcomes[token] = self._call(self.proxy, token)
            except Exception as error:
                self.outcomes[token] = error

    def wait_for_callbacks(self) -> None:
        deadline = time.monotonic() + TIMEOUT + 10
        while self.proxy.get_num_waiting_callbacks():
            assert time.monotonic() < deadline, "callbacks hang"
            time.sleep(0.005)

    def wait_for_more(self, number: int) -> None:
        enough = len(self.outcomes) + number
        while len(self.outcomes) < enough:
            time.sleep(0.005)

    @property
    def failures(self) -> dict[str, Any]:
        """The outcomes that are not the call's own result."""
        return {token: got for token, got in self.outcomes.items() if got != f"{token}!"}


class Runs:
    """The method that is called, and how often it ran for each call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counted: Counter[str] = Counter()

    def work(self, token: str) -> str:
        with self._lock:
            self.counted[token] += 1
        time.sleep(0.02)
        return f"{token}!"


@contextmanager
def servers(number: int, runs: Runs, **options: Any) -> Iterator[list[QAMServer]]:
    with ExitStack() as stack:
        made = [stack.enter_context(QAMServer(**options)) for _ in range(number)]
        for server in made:
            server.register_function(runs.work)
            server.start()
        yield made


@pytest.mark.parametrize("number_of_servers", [1, 3])
def test_a_killed_broker_costs_no_call_its_result(
    own_node: RabbitMQNode, place: dict[str, Any], server_id: str, number_of_servers: int
) -> None:
    counted = Runs()
    with (
        servers(number_of_servers, counted, server_id=server_id, **place),
        QAMProxy(server_id, timeout=TIMEOUT, **place) as proxy,
        # given
        Load(proxy, lambda caller, token: caller.work(token)) as load,
    ):
        load.wait_for_more(50)
        # when
        own_node.restart()
        # then calls go on, and all have their results
        load.wait_for_more(50)
        load.wait_for_callbacks()
    assert load.hung == []
    assert load.failures == {}
    assert len(load.outcomes) >= CALLBACKS
    assert counted.counted.most_common(1)[0][1] == 1
    assert counted.counted.keys() == load.outcomes.keys()


def test_what_a_living_server_ran_is_answered_by_it(
    own_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    # given three servers that all run something
    go_on, holding = threading.Event(), Counter[str]()
    with ExitStack() as stack:
        for name in "abc":
            server = stack.enter_context(QAMServer(server_id=server_id, prefetch=4, **place))

            def hold(token: str, name: str = name) -> str:
                holding[name] += 1
                assert go_on.wait(TIMEOUT)
                return f"{token} by {name}"

            server.register_function(hold)
            server.start()
        with QAMProxy(server_id, timeout=TIMEOUT, **place) as proxy:
            results: list[Any] = []
            for n in range(12):
                proxy.callback(results.append, results.append).hold(f"{n}")
            while sum(holding.values()) < 12:
                time.sleep(0.002)
            # when the broker delivers all of it again, to whom it likes
            own_node.close_all_connections("by a test")
            while own_node.consumers(f"{server_id}_server_queue") < 3:
                time.sleep(0.01)
            go_on.set()
            while proxy.get_num_waiting_callbacks():
                time.sleep(0.002)
    # then
    by = Counter(result.rpartition(" ")[2] for result in results)
    assert by == holding
    assert len({result.partition(" ")[0] for result in results}) == 12


def test_five_killed_servers_hang_nothing_and_run_nothing_twice(
    place: dict[str, Any], server_id: str, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    QAMServer(server_id=server_id, **place)

    def start(stack: ExitStack) -> ServerProcess:
        return stack.enter_context(ServerProcess(server_id, place, journal))

    with ExitStack() as stack, QAMProxy(server_id, timeout=TIMEOUT, **place) as proxy:
        # given two servers under load
        running = [start(stack), start(stack)]
        with Load(proxy, lambda caller, token: caller.nap(0.02, token)) as load:
            for _ in range(5):
                load.wait_for_more(40)
                # when
                running.pop(0).kill()
                running.append(start(stack))
            load.wait_for_more(40)
            load.wait_for_callbacks()
    # then all calls ended before their timeouts, and say the truth
    lost = {token: got for token, got in load.outcomes.items() if got != token}
    assert load.hung == []
    assert {type(error) for error in lost.values()} <= {QAMServerLostException}
    assert {error.executed for error in lost.values()} <= {"unknown"}
    counted = runs(journal)
    assert counted.most_common(1)[0][1] == 1
    assert counted.keys() >= load.outcomes.keys() - lost.keys()


def resources(node: RabbitMQNode, server_id: str) -> dict[str, Any]:
    gc.collect()
    return {
        "threads": sorted(
            thread.name for thread in threading.enumerate() if "Execute" not in thread.name
        ),
        "descriptors": open_descriptors(),
        "queues": sorted(name for name in node.queues() if name.startswith(server_id)),
        "connections": node.connections(),
    }


@pytest.mark.parametrize("fault", ["cut", "restart", "alarm", "reply queue", "server killed"])
def test_after_a_fault_all_is_what_it_was(
    own_node: RabbitMQNode, place: dict[str, Any], server_id: str, tmp_path: Path, fault: str
) -> None:
    counted = Runs()
    with (
        servers(1, counted, server_id=server_id, **place),
        QAMProxy(server_id, client_id=server_id, timeout=TIMEOUT, **place) as proxy,
    ):
        run_calls(proxy)
        before, memory = resources(own_node, server_id), psutil.Process().memory_info().rss
        # when
        for _ in range(3 if fault in ("cut", "reply queue") else 1):
            cause(fault, own_node, proxy, place, tmp_path)
            run_calls(proxy)
        # then; the broker may take a moment to notice the ends of connections and queues
        deadline = time.monotonic() + 20
        while (after := resources(own_node, server_id)) != before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert after == before
        assert psutil.Process().memory_info().rss - memory < 32 * 1024 * 1024


def run_calls(proxy: QAMProxy) -> None:
    results: list[Any] = []
    for n in range(100):
        proxy.callback(results.append, results.append).work(str(n))
    while proxy.get_num_waiting_callbacks():
        time.sleep(0.002)
    assert sorted(map(str, results)) == sorted(f"{n}!" for n in range(100))


def cause(
    fault: str, node: RabbitMQNode, proxy: QAMProxy, place: dict[str, Any], folder: Path
) -> None:
    if fault == "cut":
        node.close_all_connections("by a test")
    elif fault == "restart":
        node.restart()
    elif fault == "alarm":
        with node.memory_alarm():
            uid = proxy.callback(len, len).work("met the alarm")
            while not proxy.publisher_thread._blocked:
                time.sleep(0.001)
        while proxy.get_callback_state(uid) != 2:
            time.sleep(0.001)
    elif fault == "reply queue":
        first = proxy.consumer_thread.consumer
        node.delete_queue(f"{proxy.consumer_thread.client_id}_client_queue")
        while proxy.consumer_thread.consumer in (None, first):
            time.sleep(0.001)
    else:
        queue = f"{proxy._server_id}_server_queue"
        with ServerProcess(proxy._server_id, place, folder / "journal") as server:
            while node.consumers(queue) < 2:
                time.sleep(0.01)
            server.kill()
        while node.consumers(queue) > 1:
            time.sleep(0.01)
