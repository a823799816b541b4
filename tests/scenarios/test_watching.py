"""Watching it work: the stations that a call passes, in the log; and the counts in the reprs."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qam import QAMProxy, QAMServer, QAMServerNotFoundException, QAMTimeoutException
from qam._broker.connection_thread import ConnectionThread
from qam._common.logs import flush
from qam._common.stations import Stations
from qam._protocol.entities import request_binding
from qam._protocol.properties import RESENT
from tests.conftest import Broker
from tests.scenarios.test_fork import in_a_child
from tests.support.forwarder import Forwarder
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, make_server, serving
from tests.support.strangers import Stranger
from tests.support.waiting import finish, until
from tests.support.watched_calls import CLIENT, SERVER, WatchedCalls, watching

RUN_AND_ANSWERED = ["received", "started", "ended", "replied", "acknowledged"]
ANSWERED_AGAIN = ["received", "replied", "acknowledged"]
# What comes while it is busy waits at the server, and not at the broker.
ONE_WORKER: Any = {"max_workers": 1, "prefetch": 10}


@pytest.fixture
def server(broker: Broker, server_id: str) -> Any:
    """A server that serves `server_id` meanwhile."""
    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:
        server.start()
        yield server


@pytest.fixture
def client(broker: Broker, server_id: str, server: QAMServer) -> Any:
    """A proxy of `server`."""
    with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
        yield proxy


def assert_is_the_way_of_a_good_call(stations: list[str], end: str = "ended with a result") -> None:
    """The broker's confirm may come before the reply, and after it."""
    assert sorted(stations) == sorted(["queued", "written", "confirmed", "received", end])
    assert stations.index("written") < stations.index("confirmed")
    without = [station for station in stations if station != "confirmed"]
    assert without == ["queued", "written", "received", end]


def ways(calls: WatchedCalls, side: str, length: int, number: int = 1) -> dict[Any, list[str]]:
    """The stations of *number* calls, once each has passed so many on one side."""

    def all_there() -> bool:
        lengths = [len(way) for way in calls.stations(side).values()]
        return len(lengths) >= number and min(lengths) >= length

    until(all_there, f"{calls.stations(side)}")
    return calls.stations(side)


# --- each station is told once, in order -------------------------------------------------


def test_a_sync_call_tells_each_station_once_and_in_order(
    client: QAMProxy, server: QAMServer
) -> None:
    with watching() as calls:
        assert client.add(1, 2) == 3
        here, there = ways(calls, CLIENT, 5), ways(calls, SERVER, 5)

    [(id, way)] = here.items()
    assert_is_the_way_of_a_good_call(way)
    assert there == {id: RUN_AND_ANSWERED}
    # and then nothing is remembered
    assert client.publisher_thread.stations.remembered == 0
    assert server._settings.stations.remembered == 0


def test_a_callback_tells_them_too(client: QAMProxy) -> None:
    results: list[Any] = []
    with watching() as calls:
        client.callback(results.append).add(1, 2)
        finish(client)
        here, there = ways(calls, CLIENT, 5), ways(calls, SERVER, 5)

    [(id, way)] = here.items()
    assert_is_the_way_of_a_good_call(way)
    assert there == {id: RUN_AND_ANSWERED}


@pytest.mark.parametrize("is_lone", [True, False])
def test_whoever_writes_request_and_reply_tells_it(
    client: QAMProxy, server: QAMServer, monkeypatch: pytest.MonkeyPatch, is_lone: bool
) -> None:
    # given calls that only their callers write, or only the owners of the connections
    borrowed: list[str] = []
    borrow = ConnectionThread._borrow

    def noted(owner: ConnectionThread, use: Callable[..., bool], rest: bool = False) -> bool:
        done = is_lone and borrow(owner, use, rest)
        if done:
            borrowed.append(owner.name)
        return done

    monkeypatch.setattr(ConnectionThread, "_borrow", noted)
    lone = {client.publisher_thread.name, server._publisher.name} if is_lone else set()

    def call_is_written_so() -> bool:
        borrowed.clear()
        with watching() as calls:
            client.add(1, 2)
            here, there = ways(calls, CLIENT, 5), ways(calls, SERVER, 5)
        [way], [way_there] = here.values(), there.values()
        assert_is_the_way_of_a_good_call(way)
        assert way_there == RUN_AND_ANSWERED
        return set(borrowed) == lone

    # Now and then a connection is in use, and its owner writes in any case.
    until(call_is_written_so)


def test_of_many_calls_at_once_each_tells_them(client: QAMProxy) -> None:
    with watching() as calls:
        for number in range(50):
            client.callback(lambda result: None).add(number, 1)
        finish(client)
        here, there = ways(calls, CLIENT, 5, 50), ways(calls, SERVER, 5, 50)

    assert here.keys() == there.keys()
    for way in here.values():
        assert_is_the_way_of_a_good_call(way)
    assert all(way == RUN_AND_ANSWERED for way in there.values())


def test_a_reply_that_is_repeated_from_the_record_is_told_without_a_run(
    client: QAMProxy, stranger: Stranger, server_id: str
) -> None:
    # given a call that was answered, and acknowledged
    requests: list[Any] = []
    write = client.publisher_thread._on_write
    client.publisher_thread._on_write = lambda messages: (  # type: ignore[method-assign]
        requests.extend(messages),
        write(messages),
    )
    with watching() as calls:
        client.add(1, 2)
        ways(calls, CLIENT, 5), ways(calls, SERVER, 5)
        # when its request comes once more
        [request] = requests
        properties = {**request.properties, "headers": {RESENT: 1}}
        stranger.send(request_binding(server_id).route, request.body, properties)
        # then
        there, here = ways(calls, SERVER, 8), ways(calls, CLIENT, 6)

    [way] = there.values()
    assert way == RUN_AND_ANSWERED + ANSWERED_AGAIN
    [way] = here.values()
    assert_is_the_way_of_a_good_call(way[:-1])
    assert way[-1] == "received"
    assert client.publisher_thread.stations.remembered == 0


def test_a_call_that_the_broker_does_not_keep_is_never_confirmed(
    broker: Broker, server_id: str, server: QAMServer
) -> None:
    with (
        QAMProxy(server_id, timeout=60, persistent=False, **broker.kwargs) as proxy,
        watching() as calls,
    ):
        proxy.add(1, 2)
        here, there = ways(calls, CLIENT, 4), ways(calls, SERVER, 5)

        assert list(here.values()) == [["queued", "written", "received", "ended with a result"]]
        assert list(there.values()) == [RUN_AND_ANSWERED]
        assert proxy.publisher_thread.stations.remembered == 0


def test_a_call_that_raises_says_so_at_its_end(client: QAMProxy) -> None:
    with watching() as calls:
        with pytest.raises(ValueError, match="why"):
            client.fail("why")
        [way] = ways(calls, CLIENT, 5).values()

    assert_is_the_way_of_a_good_call(way, "ended by an exception from the server")


def test_the_lines_name_the_call_and_its_method_and_the_seconds(client: QAMProxy) -> None:
    with watching() as calls:
        client.testclass.adder_function(1, 2)
        [id] = ways(calls, CLIENT, 5)
        ways(calls, SERVER, 5)

    assert id is not None
    assert id.startswith(client.client_id)
    flush(60)
    lines = {(record.name, record.qam_station): record.getMessage() for record in calls.in_order()}
    of_method = f"call {id} of testclass.adder_function()"
    assert lines[CLIENT, "queued"] == f"{of_method}: queued"
    assert lines[CLIENT, "received"].startswith(f"{of_method}: received +0.")
    assert lines[SERVER, "received"] == f"call {id}: received"
    assert lines[SERVER, "started"].startswith(f"{of_method}: started +0.")
    assert lines[SERVER, "acknowledged"].startswith(f"{of_method}: acknowledged +0.")


# --- calls that do not end well ---------------------------------------------------------------


def test_a_call_that_no_server_takes_ends_where_it_lies(broker: Broker, server_id: str) -> None:
    with (
        make_server(Service(), server_id=server_id, **broker.kwargs),  # it does not serve
        QAMProxy(server_id, **broker.kwargs) as proxy,
        watching() as calls,
    ):
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(0.5).add(1, 2)
        [way] = ways(calls, CLIENT, 4).values()

    assert sorted(way) == sorted(
        ["queued", "written", "confirmed", "ended by a QAMTimeoutException"]
    )
    assert way[:2] == ["queued", "written"]


def test_a_call_to_a_server_that_never_was_is_returned(broker: Broker, server_id: str) -> None:
    with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy, watching() as calls:
        with pytest.raises(QAMServerNotFoundException):
            proxy.add(1, 2)
        [way] = ways(calls, CLIENT, 4).values()

    assert way == [
        "queued",
        "written",
        "returned, since no queue takes it",
        "ended by a QAMServerNotFoundException",
    ]


def test_a_request_whose_caller_has_stopped_waiting_is_told_not_to_start(
    broker: Broker, server_id: str
) -> None:
    service = Service()
    with (
        make_server(service, server_id=server_id, **ONE_WORKER, **broker.kwargs) as server,
        QAMProxy(server_id, **broker.kwargs) as proxy,
        watching() as calls,
    ):
        # given a server whose only worker is busy, and a call that waits there
        server.start()
        proxy.callback(lambda result: None).hold()
        assert service.holding.wait(60)
        # when its caller stops to wait, and the server knows that
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(0.3).add(1, 2)
        until(lambda: len(server._calls) == 1)
        [(_, call)] = server._calls._jobs
        until(lambda: (call.time_left(time.monotonic()) or 0) < 0)
        service.go_on.set()
        # then
        there = ways(calls, SERVER, 3, 2)

    not_started = "not started, since its caller waits no more"
    assert ["received", not_started, "acknowledged"] in there.values()


# --- while DEBUG is off, and under locks ---------------------------------------------------------


def test_nothing_is_noted_while_debug_is_off(
    client: QAMProxy, server: QAMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[Any] = []
    monkeypatch.setattr(Stations, "note", lambda *args, **kwargs: noted.append(args))

    with watching(level=logging.INFO) as calls:
        assert client.add(1, 2) == 3
        client.callback(lambda result: None).add(1, 2)
        with pytest.raises(ValueError, match="why"):
            client.fail("why")
        finish(client)
        server.close()
        client.close()

    assert calls.records == []
    assert noted == []
    for stations in (client.publisher_thread.stations, server._settings.stations):
        assert stations.remembered == 0
        assert not stations.has_unlogged


def test_no_lock_is_held_while_a_line_is_logged(client: QAMProxy, server: QAMServer) -> None:
    # given who logs
    held: list[str] = []
    owners: list[ConnectionThread] = [client.publisher_thread, client.consumer_thread]
    owners += [server._publisher, server._consumer]

    def look() -> None:
        held.extend(owner.name for owner in owners if owner.is_in_the_middle)

    with watching(meanwhile=look) as calls:
        # when calls are made, alone and together
        for number in range(5):
            client.add(number, 1)
        for number in range(20):
            client.callback(lambda result: None).add(number, 1)
        finish(client)
        ways(calls, CLIENT, 5, 25), ways(calls, SERVER, 5, 25)

    # then
    assert held == []


def test_a_finalizer_in_the_middle_of_something_logs_nothing_there(client: QAMProxy) -> None:
    # given a thread in the middle of something, and a call that is made there
    with watching() as calls:
        with client.publisher_thread.results._lock:
            client.callback(lambda result: None).add(1, 2)
            here = [record.threadName for record in calls.records if record.name == CLIENT]
            assert threading.current_thread().name not in here
        # then another thread logs it
        finish(client)
        [way] = ways(calls, CLIENT, 5).values()

    assert_is_the_way_of_a_good_call(way)


# --- reprs ---------------------------------------------------------------------------------------


def test_reprs_count_what_is_at_hand(broker: Broker, server_id: str) -> None:
    service = Service()
    with (
        make_server(service, server_id=server_id, **ONE_WORKER, **broker.kwargs) as server,
        QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy,
    ):
        assert "calls" not in repr(server)
        server.start()
        # given nothing
        until(lambda: "connected; calls: 0 running, 0 queued>" in repr(server), repr(server))
        assert "connected; calls: 0 open, 0 queued>" in repr(proxy)
        # when one call runs, and two wait at the server
        proxy.callback(lambda result: None).hold()
        assert service.holding.wait(60)
        for _ in range(2):
            proxy.callback(lambda result: None).add(1, 2)
        # then
        until(lambda: "connected; calls: 3 open, 0 queued>" in repr(proxy), repr(proxy))
        until(lambda: "connected; calls: 1 running, 2 queued>" in repr(server), repr(server))
        # and when all are answered
        service.go_on.set()
        finish(proxy)
        assert "connected; calls: 0 open, 0 queued>" in repr(proxy)
        until(lambda: "connected; calls: 0 running, 0 queued>" in repr(server), repr(server))


def test_a_server_that_closes_shows_what_it_waits_for(broker: Broker, server_id: str) -> None:
    service = Service()
    with (
        make_server(service, server_id=server_id, **broker.kwargs) as server,
        QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy,
    ):
        server.start()
        proxy.callback(lambda result: None).hold()
        assert service.holding.wait(60)

        closing = threading.Thread(target=server.close)
        closing.start()
        until(lambda: "<closing QAMServer" in repr(server), repr(server))
        assert "calls: 1 running, 0 queued>" in repr(server)
        service.go_on.set()
        closing.join(60)

        assert "<closed QAMServer" in repr(server)
        assert "calls" not in repr(server)


def test_the_repr_of_a_closed_proxy_counts_nothing(client: QAMProxy) -> None:
    client.close()

    assert "<closed QAMProxy" in repr(client)
    assert "calls" not in repr(client)
    assert "connected" not in repr(client)


@pytest.mark.rabbitmq
def test_reprs_say_when_there_is_no_connection(server_id: str, way: Forwarder) -> None:
    with (
        serving(server_id=server_id, hostname=way.host, port=way.port),
        QAMServer(way.host, way.port, server_id=server_id) as server,
        QAMProxy(server_id, way.host, way.port, timeout=60) as proxy,
    ):
        server.start()
        assert ", connected;" in repr(proxy)
        assert ", connected;" in repr(server)
        # when the broker is gone
        way.refuse()
        way.cut()
        until(lambda: ", not connected; calls: 0 open" in repr(proxy), repr(proxy))
        until(lambda: ", not connected; calls: 0 running" in repr(server), repr(server))
        until(lambda: not proxy.publisher_thread.is_connected)  # and not only its other thread
        # then calls are queued, and one that was given up is not counted any more
        proxy.callback(lambda result: None, lambda error: None).add(1, 2)
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(0.1).add(1, 2)
        assert ", not connected; calls: 1 open, 1 queued>" in repr(proxy)


@pytest.mark.parametrize("kind", [QAMProxy, QAMServer])
def test_one_that_is_not_made_yet_has_a_repr(kind: type) -> None:
    assert repr(kind.__new__(kind)) == f"<{kind.__name__} that is not made yet>"


def test_one_that_could_not_be_made_has_a_repr() -> None:
    shown: list[str] = []

    class Proxy(QAMProxy):
        def __init__(self) -> None:
            try:
                super().__init__("server", "memory://x", max_queued="many")  # type: ignore[arg-type]
            finally:
                shown.append(repr(self))

    with pytest.raises(TypeError, match="max_queued"):
        Proxy()
    assert shown == ["<QAMProxy that is not made yet>"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_in_a_forked_child_both_are_closed(
    client: QAMProxy, server: QAMServer, tmp_path: Path
) -> None:
    shown = tmp_path / "shown"

    assert in_a_child(lambda: shown.write_text(f"{client!r}\n{server!r}")) == 0

    proxy_shown, server_shown = shown.read_text().split("\n")
    assert proxy_shown.startswith("<closed QAMProxy of ")
    assert server_shown.startswith("<closed QAMServer ")
    assert "calls" not in proxy_shown + server_shown


def test_no_repr_waits_for_a_lock(client: QAMProxy, server: QAMServer) -> None:
    # given somebody who holds every lock that could be asked for
    # (first the connections, whose owners take the other locks while they use them)
    locks = [client.publisher_thread._loan.in_use, client.consumer_thread._loan.in_use]
    locks += [server._publisher._loan.in_use, server._consumer._loan.in_use]
    locks += [client.publisher_thread.results._lock, client.publisher_thread._queue._lock]
    locks += [server._calls._lock, server._life._lock]
    shown: list[str] = []
    asking = threading.Thread(target=lambda: shown.extend([repr(client), repr(server)]))
    for lock in locks:
        lock.acquire()
    # when another thread asks
    try:
        asking.start()
        asking.join(30)
        # then
        assert len(shown) == 2
    finally:
        for lock in locks:
            lock.release()
        asking.join()


def test_no_repr_has_a_password(rabbitmq_node: RabbitMQNode, server_id: str) -> None:
    node = rabbitmq_node
    place = f"amqp://{node.username}:{node.password}@{node.host}:{node.port}"
    with make_server(Service(), server_id=server_id, hostname=place) as server:
        server.start()
        with QAMProxy(server_id, place) as proxy:
            for shown in (repr(proxy), repr(server)):
                assert f"{node.host}:{node.port}" in shown
                assert node.password not in shown
