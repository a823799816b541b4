"""The faults that other tests have happen: a network that fails, processes that die, a clock."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import amqp
import psutil
import pytest

from qam import QAMProxy
from tests.support.clock import move
from tests.support.descriptors import open_descriptors
from tests.support.forwarder import Forwarder
from tests.support.processes import Entry, ServerProcess, read_journal, runs
from tests.support.rabbitmq import RabbitMQNode, free_ports
from tests.support.tethered import is_running

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds, for what takes milliseconds


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.001)


# --- the forwarder ------------------------------------------------------------


class Ends:
    """The two ends of a connection that passes through the forwarder."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.client, self.broker = client, broker
        for end in (client, broker):
            end.settimeout(PATIENCE)


Connect = Callable[[], Ends]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Stands for the broker."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


@pytest.fixture
def forwarder(listener: socket.socket) -> Iterator[Forwarder]:
    with Forwarder(*listener.getsockname()) as forwarder:
        yield forwarder


@pytest.fixture
def connected(listener: socket.socket, forwarder: Forwarder) -> Iterator[Connect]:
    """Makes connections, and closes them after the test."""
    made: list[Ends] = []

    def connect() -> Ends:
        client = socket.create_connection((forwarder.host, forwarder.port), PATIENCE)
        made.append(Ends(client, listener.accept()[0]))
        return made[-1]

    yield connect
    for ends in made:
        ends.client.close()
        ends.broker.close()


def passes(ends: Ends) -> bool:
    """Whether bytes pass, there and back."""
    ends.client.sendall(b"ping")
    ends.broker.sendall(b"pong")
    return receive(ends.broker, 4) == b"ping" and receive(ends.client, 4) == b"pong"


def receive(end: socket.socket, count: int) -> bytes:
    """So many bytes, or what there is before the end."""
    received = b""
    while len(received) < count and (more := end.recv(count - len(received))):
        received += more
    return received


def is_reset(end: socket.socket) -> bool:
    try:
        return end.recv(1) == b"never"
    except ConnectionResetError:
        return True


def hears_nothing(end: socket.socket) -> bool:
    return select.select([end], [], [], 0.1)[0] == []


def test_what_is_sent_passes_both_ways_and_so_does_the_end(
    forwarder: Forwarder, connected: Connect
) -> None:
    ends = connected()
    assert passes(ends)
    # when the client sends more than fits into the buffers, and then the end
    content = os.urandom(5_000_000)

    def send() -> None:
        ends.client.sendall(content)
        ends.client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    # then it comes as it was, and the other way is still open
    assert receive(ends.broker, len(content)) == content
    assert ends.broker.recv(1) == b""
    sender.join()
    ends.broker.sendall(b"bye")
    assert receive(ends.client, 3) == b"bye"
    # and when the broker ends too, it is over
    assert forwarder.connections == 1
    ends.broker.close()
    assert ends.client.recv(1) == b""
    wait_until(lambda: forwarder.connections == 0, "the connection has ended")


def test_a_cut_resets_both_sides_and_later_connections_pass(
    forwarder: Forwarder, connected: Connect
) -> None:
    first, second = connected(), connected()
    assert forwarder.connections == 2
    # when
    forwarder.cut()
    # then
    assert forwarder.connections == 0
    assert all(is_reset(end) for ends in (first, second) for end in (ends.client, ends.broker))
    assert passes(connected())


def test_a_side_that_resets_its_connection_has_the_other_reset(
    forwarder: Forwarder, connected: Connect
) -> None:
    ends = connected()
    ends.broker.sendall(b"never read")
    wait_until(lambda: select.select([ends.client], [], [], 0)[0], "it has come")
    # when a side closes with something unread
    ends.client.close()
    # then
    assert is_reset(ends.broker)
    wait_until(lambda: forwarder.connections == 0, "the connection has ended")


def test_a_stalled_network_forwards_nothing_and_everything_when_it_resumes(
    forwarder: Forwarder, connected: Connect
) -> None:
    ends = connected()
    # when
    forwarder.stall()
    later = connected()
    for each in (ends, later):
        each.client.sendall(b"there")
        each.broker.sendall(b"back")
    # then
    assert all(hears_nothing(end) for each in (ends, later) for end in (each.client, each.broker))
    assert forwarder.connections == 2
    # and when
    forwarder.resume()
    # then
    for each in (ends, later):
        assert receive(each.broker, 5) == b"there"
        assert receive(each.client, 4) == b"back"


def test_a_network_can_be_stalled_one_way(forwarder: Forwarder, connected: Connect) -> None:
    ends = connected()
    forwarder.stall(towards_client=False)
    ends.client.sendall(b"there")
    ends.broker.sendall(b"back")
    assert receive(ends.client, 4) == b"back"
    assert hears_nothing(ends.broker)
    # a stalled connection can be cut, and what it held is lost
    forwarder.cut()
    assert is_reset(ends.broker)


def test_a_slow_network_takes_its_time(forwarder: Forwarder, connected: Connect) -> None:
    ends = connected()
    forwarder.slow(10_000, towards_client=False)
    # when
    started = time.monotonic()
    ends.client.sendall(bytes(3000))
    ends.broker.sendall(bytes(1_000_000))
    assert len(receive(ends.client, 1_000_000)) == 1_000_000
    assert len(receive(ends.broker, 3000)) == 3000
    # then: the first bytes go at once, the last after those before have taken their time
    assert time.monotonic() - started > 0.2
    # and it can be quick again
    forwarder.resume()
    ends.client.sendall(bytes(1_000_000))
    assert len(receive(ends.broker, 1_000_000)) == 1_000_000


def test_connections_are_refused_until_they_are_accepted_again(
    forwarder: Forwarder, connected: Connect
) -> None:
    ends = connected()
    # when
    forwarder.refuse()
    # then
    with socket.create_connection((forwarder.host, forwarder.port)) as client:
        assert is_reset(client)
    assert passes(ends)
    # and when
    forwarder.accept()
    # then
    assert passes(connected())


def test_who_connects_while_the_broker_is_down_is_reset() -> None:
    [port] = free_ports(1)
    with (
        Forwarder("127.0.0.1", port) as forwarder,
        socket.create_connection((forwarder.host, forwarder.port)) as client,
    ):
        assert is_reset(client)


def test_a_cut_can_come_in_place_of_a_chunk(forwarder: Forwarder, connected: Connect) -> None:
    ends, other = connected(), connected()
    cut = forwarder.cut_when(lambda chunk, towards_broker: towards_broker and b"lose" in chunk)
    ends.broker.sendall(b"lose me not")
    ends.client.sendall(b"keep")
    assert receive(ends.client, 11) == b"lose me not"
    assert receive(ends.broker, 4) == b"keep"
    assert not cut.is_set()
    # when
    ends.client.sendall(b"lose me")
    # then nobody gets it, and all connections are reset
    assert cut.wait(PATIENCE)
    assert all(is_reset(end) for each in (ends, other) for end in (each.client, each.broker))
    # and only the first time
    again = connected()
    again.client.sendall(b"lose me")
    assert receive(again.broker, 7) == b"lose me"


def test_a_cut_can_come_after_a_chunk(forwarder: Forwarder, connected: Connect) -> None:
    ends, other = connected(), connected()
    cut = forwarder.cut_after(lambda chunk, towards_broker: b"last" in chunk)
    # when
    ends.client.sendall(b"the last")
    # then its receiver reads it, and the end; all others are reset
    assert cut.wait(PATIENCE)
    assert receive(ends.broker, 8) == b"the last"
    assert ends.broker.recv(1) == b""
    assert all(is_reset(end) for end in (ends.client, other.client, other.broker))
    assert forwarder.connections == 0
    # what it answers goes nowhere, and does no harm
    ends.broker.sendall(b"answer")
    ends.broker.close()
    assert passes(connected())


def test_a_cut_may_come_as_the_other_side_ends(forwarder: Forwarder, connected: Connect) -> None:
    for answer in (b"", b"answer"):
        ends = connected()
        cut = forwarder.cut_after(lambda chunk, towards_broker: b"last" in chunk)
        # when both happen in one turn
        forwarder.stall()
        ends.client.sendall(b"the last")
        ends.broker.sendall(answer)
        ends.broker.shutdown(socket.SHUT_WR)
        forwarder.resume()
        # then
        assert cut.wait(PATIENCE)
        assert receive(ends.broker, 8) == b"the last"
        assert passes(connected())


def test_a_forwarder_that_is_closed_leaves_nothing(listener: socket.socket) -> None:
    before = set(threading.enumerate()), open_descriptors()
    forwarder = Forwarder(*listener.getsockname())
    with socket.create_connection((forwarder.host, forwarder.port), PATIENCE) as client:
        broker, _ = listener.accept()
        # when
        forwarder.close()
        # then
        with broker:
            assert is_reset(client)
    assert (set(threading.enumerate()), open_descriptors()) == before
    forwarder.close()  # once more does no harm
    with pytest.raises(RuntimeError, match="closed"):
        forwarder.cut()


@contextmanager
def publishing(forwarder: Forwarder, queue: str) -> Iterator[Callable[[str], Any]]:
    """Publishes to a queue through the forwarder, and waits for the confirm."""
    connection = amqp.Connection(f"{forwarder.host}:{forwarder.port}")
    connection.connect()
    channel = connection.channel()
    channel.confirm_select()

    def publish(body: str) -> Any:
        return channel.basic_publish_confirm(amqp.Message(body), routing_key=queue)

    try:
        yield publish
    finally:
        connection.collect()  # as it is: the connection may be dead


@pytest.fixture
def queue(rabbitmq_node: RabbitMQNode, server_id: str) -> Iterator[str]:
    with amqp.Connection(f"{rabbitmq_node.host}:{rabbitmq_node.port}") as connection:
        connection.channel().queue_declare(server_id, auto_delete=False)
        yield server_id
    rabbitmq_node.delete_queue(server_id)


def test_a_message_is_lost_before_the_broker_has_it(
    rabbitmq_node: RabbitMQNode, queue: str
) -> None:
    with Forwarder(rabbitmq_node.host, rabbitmq_node.port) as forwarder:
        cut = forwarder.cut_when(lambda chunk, towards_broker: b"never" in chunk)
        with publishing(forwarder, queue) as publish:
            publish("first")
            with pytest.raises(ConnectionError):
                publish("never")
        assert cut.wait(20)  # set after the cut, which the client may see first
    assert rabbitmq_node.queues()[queue] == 1


def test_a_message_arrives_and_its_confirm_is_lost(rabbitmq_node: RabbitMQNode, queue: str) -> None:
    with Forwarder(rabbitmq_node.host, rabbitmq_node.port) as forwarder:
        forwarder.cut_after(lambda chunk, towards_broker: b"arrives" in chunk)
        with publishing(forwarder, queue) as publish:
            publish("first")
            with pytest.raises(ConnectionError):
                publish("arrives")
        wait_until(lambda: rabbitmq_node.queues()[queue] == 2, "the broker has both")


# --- the node's quick commands ------------------------------------------------


def test_connections_are_closed_with_the_reason_that_was_given(rabbitmq_node: RabbitMQNode) -> None:
    with publishing(rabbitmq_node, "nobody") as publish:
        # when
        rabbitmq_node.close_all_connections('told "so" by a tést')
        # then
        with pytest.raises(amqp.ConnectionForced, match='told "so" by a tést'):
            publish("x")


def test_one_connection_is_closed_and_the_others_go_on(rabbitmq_node: RabbitMQNode) -> None:
    wait_until(lambda: rabbitmq_node.connections() == 0, "the connections of others have ended")
    rabbitmq_node.close_one_connection(7, "nobody is there")
    with publishing(rabbitmq_node, "one") as one, publishing(rabbitmq_node, "other") as other:
        # when
        rabbitmq_node.close_one_connection(8, "one of them")
        # then
        closed = 0
        for publish in (one, other):
            try:
                publish("x")
            except amqp.ConnectionForced:
                closed += 1
        assert closed == 1


def test_consumers_are_counted_and_queues_deleted(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    name = f"{server_id} with \"quotes\" and 'umläuts'"
    with amqp.Connection(f"{rabbitmq_node.host}:{rabbitmq_node.port}") as connection:
        channel = connection.channel()
        channel.queue_declare(name, auto_delete=False)
        assert rabbitmq_node.consumers(name) == 0
        channel.basic_consume(name)
        assert rabbitmq_node.consumers(name) == 1
    # when
    rabbitmq_node.delete_queue(name)
    # then
    assert name not in rabbitmq_node.queues()
    for command in (rabbitmq_node.delete_queue, rabbitmq_node.consumers):
        with pytest.raises(RuntimeError, match="not_found"):
            command(name)


class CannotBeTold(amqp.Connection):
    """A client that knows nothing of consumers that the broker cancels."""

    negotiate_capabilities = {"consumer_cancel_notify": False}  # noqa: RUF012


def test_a_consumer_that_takes_too_long_loses_its_channel(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    quorum = {"x-queue-type": "quorum"}
    with (
        rabbitmq_node.consumer_timeout(0.4),
        CannotBeTold(f"{rabbitmq_node.host}:{rabbitmq_node.port}") as connection,
    ):
        channel = connection.channel()
        channel.queue_declare(server_id, durable=True, auto_delete=False, arguments=quorum)
        channel.basic_consume(server_id, callback=repr)
        channel.basic_publish(amqp.Message("never acknowledged"), routing_key=server_id)
        # when
        with pytest.raises(amqp.PreconditionFailed, match="timed out"):
            wait_for_ever(connection)
    rabbitmq_node.delete_queue(server_id)


def wait_for_ever(connection: amqp.Connection) -> None:
    while True:
        connection.drain_events(timeout=PATIENCE)


# --- server processes ---------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def server(place: dict[str, Any], server_id: str, journal: Path) -> Iterator[ServerProcess]:
    with ServerProcess(server_id, place, journal) as server:
        yield server


@pytest.fixture
def proxy(place: dict[str, Any], server_id: str, server: ServerProcess) -> Iterator[QAMProxy]:
    with QAMProxy(server_id, timeout=60, **place) as proxy:
        yield proxy


def holds(journal: Path, token: str) -> bool:
    """Whether a call is in the middle of its method."""
    return [entry.what for entry in read_journal(journal) if entry.token == token] == ["begin"]


def test_a_server_process_notes_each_run(
    server: ServerProcess, proxy: QAMProxy, journal: Path
) -> None:
    assert read_journal(journal) == []
    # when
    assert proxy.add("1", "one") == "1one"
    assert proxy.nap(0.001, 2) == 2
    assert proxy.nap_again(0.001, 2) == 2
    # then
    calls = [("add", "one"), ("nap", "2"), ("nap_again", "2")]
    assert read_journal(journal) == [
        Entry(server.pid, name, token, what) for name, token in calls for what in ("begin", "end")
    ]
    assert runs(journal) == {"one": 1, "2": 2}


def test_a_server_process_can_be_killed_in_the_middle_of_a_method(
    server: ServerProcess, proxy: QAMProxy, journal: Path
) -> None:
    proxy.callback(len, len).hold("doomed")
    wait_until(lambda: holds(journal, "doomed"), "the method runs")
    # when
    server.kill()
    # then
    assert not server.running
    assert server.wait() == -signal.SIGKILL
    assert holds(journal, "doomed")


def test_a_server_process_that_is_stopped_goes_on_when_it_is_told(
    server: ServerProcess, proxy: QAMProxy, journal: Path
) -> None:
    server.stop()
    results: list[Any] = []
    uid = proxy.callback(results.append, results.append).add(1, 2)
    process = psutil.Process(server.pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "it stands still")
    assert server.running
    # when
    server.resume()
    wait_until(lambda: proxy.get_callback_state(uid) == 2, "the call is answered")
    # then
    assert results == [3]
    assert runs(journal) == {"2": 1}


def test_a_server_process_that_is_terminated_answers_what_it_runs(
    server: ServerProcess, proxy: QAMProxy, journal: Path
) -> None:
    results: list[Any] = []
    uid = proxy.callback(results.append, results.append).hold("last")
    wait_until(lambda: holds(journal, "last"), "the method runs")
    # when
    server.terminate()
    server.release()
    # then
    assert server.wait() == 0
    wait_until(lambda: proxy.get_callback_state(uid) == 2, "the call is answered")
    assert results == ["last"]


def test_a_server_process_that_cannot_start_says_so(
    server_id: str, journal: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    [port] = free_ports(1)
    place = {"hostname": "127.0.0.1", "port": port}
    with pytest.raises(RuntimeError, match="ended as it started, with 1"):
        ServerProcess(server_id, place, journal).__enter__()
    assert "QAMConnectionException" in capfd.readouterr().err


def test_a_server_process_ends_with_the_tests_even_if_it_is_stopped(
    place: dict[str, Any], server_id: str, journal: Path
) -> None:
    # given a process that has started one, and stopped it
    program = f"""
import pathlib, time
from tests.support.processes import ServerProcess
with ServerProcess({server_id!r}, {place!r}, pathlib.Path({str(journal)!r})) as server:
    server.stop()
    print(server.pid, flush=True)
    time.sleep(600)
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner:
        server = psutil.Process(int(owner.stdout.readline()))
        # when
        owner.kill()
    # then
    with suppress(psutil.NoSuchProcess):
        wait_until(lambda: not is_running(server), "the server is gone")


# --- the clock ----------------------------------------------------------------


def test_a_clock_that_is_moved_on_is_ahead_for_one_module_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a module that goes by the clock
    module = ModuleType("example")
    module.time = time  # type: ignore[attr-defined]
    exec("def now(): return time.monotonic()\ndef zone(): return time.tzname", module.__dict__)
    clock = move(monkeypatch, module)
    assert time.monotonic() <= module.now() <= time.monotonic()
    # when
    clock.advance(3600)
    # then
    assert time.monotonic() + 3600 <= module.now() <= time.monotonic() + 3600
    assert module.now() < module.now() + 1 < clock() + 2
    # and everything else about time is as it was
    assert module.zone() == time.tzname
    monkeypatch.undo()
    assert module.now() <= time.monotonic()
