"""Many threads, many calls, many proxies."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qam import QAMProxy
from tests.conftest import Broker
from tests.support.descriptors import open_descriptors
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import serving


def test_sixteen_threads_share_a_proxy_and_get_no_wrong_answer(
    broker: Broker, server_id: str
) -> None:
    def work(thread: int) -> int:
        return sum(
            proxy.add((thread, n), (n, thread)) == (thread, n, n, thread) for n in range(250)
        )

    with (
        serving(server_id=server_id, **broker.kwargs),
        QAMProxy(server_id, timeout=100, **broker.kwargs) as proxy,
        ThreadPoolExecutor(16) as pool,
    ):
        assert sum(pool.map(work, range(16))) == 4_000
        # and no slot was lost
        consumer = proxy.consumer_thread
        assert len(consumer.result_list) <= 16
        assert sorted(consumer.free_index_queue) == list(range(len(consumer.result_list)))


def test_ten_thousand_callbacks_are_each_called_once_by_few_threads(
    broker: Broker, server_id: str
) -> None:
    results: list[int] = []
    all_called = threading.Event()
    most_threads = 0

    def success(result: int) -> None:
        nonlocal most_threads
        most_threads = max(most_threads, threading.active_count())
        results.append(result)
        if len(results) == 10_000:
            all_called.set()

    with (
        serving(server_id=server_id, **broker.kwargs) as service,
        QAMProxy(server_id, timeout=100, **broker.kwargs) as proxy,
    ):
        # given all of them outstanding at once
        held = [proxy.callback(len, len).hold([n]) for n in range(32)]
        for n in range(10_000):
            proxy.callback(success).add(n, 0)
        assert proxy.get_num_waiting_callbacks() == 10_032
        # when
        service.go_on.set()
        assert all_called.wait(100)
        for uid in held:
            while proxy.get_callback_state(uid) != 2:
                pass
    # then
    assert sorted(results) == list(range(10_000))
    assert most_threads < 200


def _queues_of(node: RabbitMQNode, server_id: str) -> list[str]:
    return [name for name in node.queues() if name.startswith(server_id)]


@pytest.mark.rabbitmq
def test_a_hundred_proxies_leave_nothing_behind(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    # One worker: a server may start another whenever the first is not yet back at its queue.
    with serving(server_id=server_id, max_workers=1, **place):

        def use_a_proxy() -> None:
            with QAMProxy(server_id, client_id=server_id, timeout=60, **place) as proxy:
                assert proxy.add(1, 2) == 3
                proxy.callback(len).echo("x")

        use_a_proxy()
        threads, descriptors = threading.active_count(), open_descriptors()
        queues = _queues_of(rabbitmq_node, server_id)
        # when
        for _ in range(100):
            use_a_proxy()
        # then
        assert threading.active_count() == threads
        assert open_descriptors() == descriptors
        assert _queues_of(rabbitmq_node, server_id) == queues
        assert not any(queue.endswith("_client_queue") for queue in queues)


def test_a_hundred_proxies_on_the_embedded_broker_leave_nothing_behind(server_id: str) -> None:
    place = {"hostname": f"memory://{server_id}"}
    # One worker: a server may start another whenever the first is not yet back at its queue.
    with serving(server_id=server_id, max_workers=1, **place):
        before: tuple[int, int] | None = None
        for _ in range(101):
            with QAMProxy(server_id, timeout=60, **place) as proxy:
                assert proxy.add(1, 2) == 3
            before = before or (threading.active_count(), open_descriptors())
        assert before == (threading.active_count(), open_descriptors())


def _voluntary_switches() -> int:
    """How often the threads of this process went to sleep so far."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        status = (task / "status").read_text()
        total += int(status.partition("voluntary_ctxt_switches:")[2].split()[0])
    return total


@pytest.mark.skipif(
    os.name != "posix" or not Path("/proc/self/task").exists(), reason="needs /proc"
)
def test_an_idle_proxy_and_server_sleep(broker: Broker, server_id: str) -> None:
    with (
        serving(server_id=server_id, **broker.kwargs),
        QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy,
    ):
        assert proxy.add(1, 2) == 3
        # when
        before = _voluntary_switches()
        time.sleep(3)
        # then heartbeats, which are due every 2.5 seconds, are all that wakes them
        assert _voluntary_switches() - before < 30
