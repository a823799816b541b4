import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import amqp
import psutil
import pytest

from tests.support.rabbitmq import RabbitMQNode, free_ports
from tests.support.tethered import is_running
from tests.support.waiting import until

PERSISTENT = 2  # delivery_mode
ROOT = Path(__file__).parents[2]


def connect(node: RabbitMQNode) -> amqp.Connection:
    return amqp.Connection(f"{node.host}:{node.port}", node.username, node.password)


def running_descendants() -> set[psutil.Process]:
    """What runs because of these tests.

    Each minute a node starts an Erlang VM for a moment, to see to it that there is an epmd.
    """
    return {p for p in psutil.Process().children(recursive=True) if is_running(p)}


def wait_until_gone(process: psutil.Process, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while is_running(process):
        assert time.monotonic() < deadline, f"still running: {process}"
        time.sleep(0.01)


@pytest.fixture
def queue(rabbitmq_node: RabbitMQNode, server_id: str) -> Iterator[str]:
    """A queue on the session's node, with one message."""
    with connect(rabbitmq_node) as connection:
        channel = connection.channel()
        channel.confirm_select()
        channel.queue_declare(server_id, auto_delete=False)
        channel.basic_publish_confirm(amqp.Message("body"), routing_key=server_id)
        yield server_id
        channel.queue_delete(server_id)


def test_queues_tells_the_messages_in_each(rabbitmq_node: RabbitMQNode, queue: str) -> None:
    assert rabbitmq_node.queues()[queue] == 1


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_queues_counts_at_once_what_is_ready_and_what_is_not_acknowledged(
    rabbitmq_node: RabbitMQNode, server_id: str, kind: str
) -> None:
    with connect(rabbitmq_node) as connection:
        channel = connection.channel()
        channel.confirm_select()
        arguments = {"x-queue-type": kind}
        channel.queue_declare(server_id, durable=True, auto_delete=False, arguments=arguments)
        for body in ("held", "ready"):
            channel.basic_publish_confirm(amqp.Message(body), routing_key=server_id)
        channel.basic_get(server_id)
        # then
        assert rabbitmq_node.queues()[server_id] == 2
        channel.queue_delete(server_id)


def test_arguments_are_what_a_queue_was_declared_with(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    with connect(rabbitmq_node) as connection:
        channel = connection.channel()
        arguments = {"x-queue-type": "classic", "x-expires": 60_000}
        channel.queue_declare(server_id, auto_delete=False, arguments=arguments)
        # then
        assert rabbitmq_node.arguments(server_id)["x-expires"] == "60000"
        channel.queue_delete(server_id)


def test_exchanges_are_all_there_are(rabbitmq_node: RabbitMQNode, server_id: str) -> None:
    with connect(rabbitmq_node) as connection:
        connection.channel().exchange_declare(server_id, "direct", auto_delete=False)

    assert {server_id, "amq.direct"} <= rabbitmq_node.exchanges()
    rabbitmq_node.delete_exchange(server_id)
    assert server_id not in rabbitmq_node.exchanges()


def test_a_policy_holds_meanwhile(rabbitmq_node: RabbitMQNode, queue: str) -> None:
    with rabbitmq_node.policy(f"^{queue}$", "queues", '{"max-length":0}'):
        assert "max-length" in rabbitmq_node.ctl("list_policies")

    assert queue not in rabbitmq_node.ctl("list_policies")


def test_ctl_runs_rabbitmqctl_on_this_node(rabbitmq_node: RabbitMQNode, queue: str) -> None:
    assert f"{queue}\t1" in rabbitmq_node.ctl("list_queues", "name", "messages")


def test_ctl_raises_what_rabbitmqctl_says(rabbitmq_node: RabbitMQNode) -> None:
    with pytest.raises(RuntimeError, match="nobody"):
        rabbitmq_node.ctl("set_user_tags", "nobody", "management")


def test_connections_counts_the_open_ones(rabbitmq_node: RabbitMQNode) -> None:
    before = rabbitmq_node.connections()

    with connect(rabbitmq_node):
        during = rabbitmq_node.connections()

    assert during == before + 1


@pytest.mark.usefixtures("rabbitmq_node")
def test_it_can_be_reached_from_this_machine_only() -> None:
    addresses = {
        connection.laddr.ip
        for process in running_descendants()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }

    assert "127.0.0.1" in addresses
    assert addresses <= {"127.0.0.1", "::1"}


@pytest.mark.rabbitmq
def test_a_durable_message_survives_kill_and_restart_and_nothing_survives_stop() -> None:
    before = running_descendants()
    with RabbitMQNode(config={"channel_max": "77"}) as node:
        # given
        with connect(node) as connection:
            assert connection.channel_max == 77
            channel = connection.channel()
            channel.confirm_select()
            channel.queue_declare("durable", durable=True, auto_delete=False)
            message = amqp.Message("kept", delivery_mode=PERSISTENT)
            channel.basic_publish_confirm(message, routing_key="durable")

        # when
        node.kill()
        assert not node.running
        node.restart()

        # then
        with connect(node) as connection:
            assert connection.channel().basic_get("durable", no_ack=True).body == "kept"
        folder = Path(json.loads(node.ctl("status", "--formatter", "json"))["data_directory"])
        assert folder.exists()
        assert node._epmd is not None
        assert node._node is not None
        started = [*node._epmd.processes(), *node._node.processes()]
        assert {"epmd", "beam.smp"} <= {process.name() for process in started}

    assert not [process for process in started if is_running(process)]
    until(lambda: running_descendants() <= before)
    assert not folder.exists()
    node.stop()  # once more does no harm


@pytest.mark.rabbitmq
def test_a_node_that_cannot_start_says_why_and_leaves_nothing() -> None:
    before = running_descendants()

    with pytest.raises(RuntimeError, match="no_such_setting"):
        RabbitMQNode(config={"no_such_setting": "1"}).start()

    until(lambda: running_descendants() <= before)


def test_what_was_started_ends_when_the_test_process_is_killed(tmp_path: Path) -> None:
    # given
    program = """
import os, pathlib, sys, time
from tests.support.tethered import TetheredProcess
log = pathlib.Path(sys.argv[1])
sleeper = TetheredProcess(["sleep", "600"], env=os.environ, output=log)
while len(sleeper.processes()) < 2:
    time.sleep(0.01)
print(sleeper.processes()[1].pid, flush=True)
time.sleep(600)
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "log"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    with owner:
        sleeper = psutil.Process(int(owner.stdout.readline()))
        assert is_running(sleeper)

        # when
        os.kill(owner.pid, signal.SIGKILL)

    # then
    wait_until_gone(sleeper)


def test_free_ports_are_different_and_no_ports_of_outgoing_connections() -> None:
    ports = free_ports(5)

    assert len(set(ports)) == 5
    assert max(ports) < 32768


def test_a_free_port_is_given_to_nobody_else_but_can_be_used() -> None:
    [port] = free_ports(1)
    # when
    code = f"from tests.support.rabbitmq import _reserve; print(_reserve({port}))"
    told = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    # then
    assert told == "False\n"
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="CPUs can't be chosen here")
def test_it_runs_on_one_cpu_or_on_all(rabbitmq_node: RabbitMQNode) -> None:
    def cpus(node: RabbitMQNode) -> set[int]:
        assert node._node is not None
        return set.union(*(os.sched_getaffinity(each.pid) for each in node._node.processes()))

    assert len(cpus(rabbitmq_node)) == 1
    with RabbitMQNode(on_all_cpus=True) as node:
        assert cpus(node) == os.sched_getaffinity(0)
