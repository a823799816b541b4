"""A server: what it offers, how it starts, works and ends."""

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future
from typing import Any

import amqp
import kombu
import pytest

from qam import (
    AMQPCredentials,
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMProxy,
    QAMSerializationException,
    QAMServer,
    QAMServerLostException,
    RemoteException,
)
from qam._broker.fates import Fate
from qam._broker.reconnection import Reconnection
from qam._server.settings import MAX_IDLE_WORKERS
from tests.conftest import Broker
from tests.support.interrupts import interrupted_at
from tests.support.peer_0_2 import dumps, entities, publish
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, make_server, serving
from tests.support.waiting import finish, until


def test_functions_can_be_registered_in_each_way(broker: Broker, server_id: str) -> None:
    with QAMServer(server_id=server_id, **broker.kwargs) as server:

        @server.register_function
        def plain() -> str:
            return "plain"

        @server.register_function(name="renamed")
        def original() -> str:
            return "renamed"

        @server.register_function()
        def bracketed() -> str:
            return "bracketed"

        server.register_function(lambda: "third", name="third")
        assert plain() == "plain"
        server.start()
        # also while it serves
        server.register_function(lambda: "late", "late")
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            names = ["plain", "renamed", "bracketed", "third", "late"]
            assert [proxy[name]() for name in names] == names


def test_what_cant_be_offered_is_refused(broker: Broker, server_id: str) -> None:
    with QAMServer(server_id=server_id, **broker.kwargs) as server:
        for name in ("_private", "a._b", "no name", "", "1st", "system", "system.apply"):
            with pytest.raises(ValueError, match="name"):
                server.register_function(print, name)
            with pytest.raises(ValueError, match="name"):
                server.register_class(object(), name)
        with pytest.raises(ValueError, match="name"):
            server.register_function(lambda: 1)
        with pytest.raises(TypeError, match="method"):
            server.register_function("print")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="method must be callable, not None"):
            server.register_function(None)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="name"):
            server.register_class(object(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": "3"}, TypeError),
        ({"prefetch": 0}, ValueError),
        ({"prefetch": 65_536}, ValueError),
        ({"prefetch": True}, TypeError),
        ({"serializer": "yaml"}, ValueError),
        ({"server_id": ""}, ValueError),
        ({"connect_timeout": 0}, ValueError),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], error: type[Exception]) -> None:
    [name] = wrong
    with pytest.raises(error, match=name):
        QAMServer(**({"hostname": "memory://wrong"} | wrong))


def test_a_queue_that_is_there_with_other_arguments_is_named(
    place: dict[str, Any], server_id: str
) -> None:
    with QAMServer(server_id=server_id, **place):
        arguments = {"x-max-length": 5}
        with pytest.raises(QAMConnectionException, match=r"_server_queue .* queue_arg") as raised:
            QAMServer(server_id=server_id, queue_arguments=arguments, **place)
    assert raised.value.executed == "no"


def test_its_repr_says_what_it_is(broker: Broker, server_id: str) -> None:
    server = QAMServer(server_id=server_id, **broker.kwargs)
    assert "new QAMServer" in repr(server)
    server.close()
    assert "closed QAMServer" in repr(server)
    assert server_id in repr(server)


# --- starting and ending --------------------------------------------------------------


def test_close_before_serve_makes_serve_return_at_once(broker: Broker, server_id: str) -> None:
    server = QAMServer(server_id=server_id, **broker.kwargs)
    server.close()
    server.close()
    server.serve()
    with pytest.raises(QAMClosedException):
        server.start()


def test_a_server_serves_once(broker: Broker, server_id: str) -> None:
    with QAMServer(server_id=server_id, **broker.kwargs) as server:
        server.start()
        with pytest.raises(RuntimeError, match="already"):
            server.serve()
        with pytest.raises(RuntimeError, match="already"):
            server.start()


def test_serve_blocks_until_close(broker: Broker, server_id: str) -> None:
    # given
    server = make_server(Service(), server_id=server_id, **broker.kwargs)
    thread = threading.Thread(target=server.serve)
    thread.start()
    with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
        assert proxy.add(1, 2) == 3
    assert thread.is_alive()
    # when
    server.close()
    # then
    thread.join(20)
    assert not thread.is_alive()


def test_close_answers_what_is_at_hand(broker: Broker, server_id: str) -> None:
    # given a method that runs, and another request behind it
    service = Service()
    server = make_server(service, server_id=server_id, max_workers=1, prefetch=2, **broker.kwargs)
    server.start()
    results: list[Any] = []
    with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
        uids = [proxy.callback(results.append).hold(1)]
        assert service.holding.wait(20)
        uids.append(proxy.callback(results.append).add(1, 1))
        while not server._calls.waiting_since():
            pass
        # when
        closing = threading.Thread(target=server.close)
        closing.start()
        service.go_on.set()
        closing.join(20)
        # then
        for uid in uids:
            while proxy.get_callback_state(uid) != 2:
                pass
    assert results == [1, 2]


@pytest.mark.rabbitmq
def left_of(server_id: str, node: RabbitMQNode) -> dict[str, int]:
    """The queues of a server, but that of its presence, which the broker deletes ten seconds on."""
    expiring = f"{server_id}_server_presence_queue"
    queues = node.queues().items()
    return {name: n for name, n in queues if name.startswith(server_id) and name != expiring}


def test_after_both_are_closed_the_request_queue_is_all_that_remains(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    place = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    server = make_server(Service(), server_id=server_id, **place)
    server.start()
    with QAMProxy(server_id, client_id=server_id, timeout=60, **place) as proxy:
        assert proxy.add(1, 2) == 3
    # when
    server.close()
    # then nothing waits in it, nobody reads it, and what was acknowledged is gone
    assert left_of(server_id, rabbitmq_node) == {f"{server_id}_server_queue": 0}
    assert rabbitmq_node.consumers(f"{server_id}_server_queue") == 0


def test_close_gives_back_what_it_had_no_time_to_start(broker: Broker, server_id: str) -> None:
    # given a server whose only worker is busy for ever
    busy, other = Service(), Service()
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    server = make_server(busy, max_workers=1, prefetch=2, **kwargs)
    server.start()
    results: list[Any] = []
    errors: list[Any] = []
    with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
        held = proxy.callback(results.append, errors.append).hold(1)
        assert busy.holding.wait(20)
        waiting = proxy.callback(results.append, errors.append).add(20, 1)
        while not server._calls.waiting_since():
            pass
        # when
        server.close(timeout=0.05)
        # then another server runs what was not started, and what ran is lost
        with make_server(other, **kwargs) as successor:
            successor.start()
            for uid in (held, waiting):
                while proxy.get_callback_state(uid) != 2:
                    pass
    busy.go_on.set()
    for worker in server._workers:
        worker.join(20)
    assert results == [21]
    assert [type(error) for error in errors] == [QAMServerLostException]
    assert busy.runs == [("hold", 1)]
    assert other.runs == [(20, 1)]


def test_a_method_may_close_its_server(broker: Broker, server_id: str) -> None:
    server = QAMServer(server_id=server_id, **broker.kwargs)
    server.register_function(lambda: server.close() or "closing", name="shut_down")
    thread = threading.Thread(target=server.serve)
    thread.start()
    with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
        assert proxy.shut_down() == "closing"
    thread.join(20)
    assert not thread.is_alive()


def test_ctrl_c_closes_the_server_and_is_raised_again(broker: Broker, server_id: str) -> None:
    # given a server in the main thread, with a method that runs
    service = Service()
    server = make_server(service, server_id=server_id, **broker.kwargs)
    results: list[Any] = []
    main_thread = threading.get_ident()

    def interrupt() -> None:
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            uid = proxy.callback(results.append, results.append).hold("answered")
            assert service.holding.wait(20)
            signal.pthread_kill(main_thread, signal.SIGINT)
            service.go_on.set()
            while proxy.get_callback_state(uid) != 2:
                pass

    thread = threading.Thread(target=interrupt)
    thread.start()
    # when
    with pytest.raises(KeyboardInterrupt):
        server.serve()
    # then
    thread.join(20)
    assert results == ["answered"]


@pytest.mark.parametrize("moment", ["connected", "taking"])
def test_ctrl_c_as_it_starts_leaves_no_request_that_was_taken_unanswered(
    broker: Broker, server_id: str, moment: str
) -> None:
    # given a request that waits for the server
    service = Service()
    server = make_server(service, server_id=server_id, **broker.kwargs)
    consumer: Any = server._consumer
    results: list[Any] = []

    def strike() -> None:
        assert service.holding.wait(20)
        raise KeyboardInterrupt

    class Opened(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            super().result(timeout)
            strike()

    class Taking(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            super().wait(timeout)
            strike()
            return True

    if moment == "connected":
        consumer._opened = Opened()
    else:
        consumer.taking = Taking()

    def answer_once_it_stops() -> None:
        until(lambda: consumer.kill or consumer._closing.begun)
        service.go_on.set()

    answering = threading.Thread(target=answer_once_it_stops)
    answering.start()
    with QAMProxy(server_id, timeout=20, **broker.kwargs) as proxy:
        proxy.callback(results.append, results.append).hold("answered")
        # when
        with pytest.raises(KeyboardInterrupt):
            server.serve()
        # then
        until(lambda: results)
    answering.join(20)
    assert results == ["answered"]


#: What runs in the thread that starts a server, of which a step may be the last one.
STARTING = ("/qam_server.py", "/life.py", "/worker_pool.py", "/stop_signals.py")


def test_ctrl_c_at_any_moment_of_its_start_leaves_no_server_that_closing_waits_for(
    server_id: str,
) -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        # given
        server = make_server(Service(), server_id=server_id, hostname=f"memory://{server_id}")
        # when
        struck.append(interrupted_at(len(struck) + 1, server.start, *STARTING))
        server.close()
        # then
        assert repr(server).startswith("<closed")
    assert {"QAMServer.start", "Life.begin", "QAMServer._start_threads"} < set(struck)


def test_ctrl_c_at_any_moment_of_serve_ends_the_server(server_id: str) -> None:
    struck: list[str] = []
    while not struck or struck[-1] != "Life.wait":
        # given
        server = make_server(Service(), server_id=server_id, hostname=f"memory://{server_id}")
        # when
        serve = server.serve
        struck.append(interrupted_at(len(struck) + 1, serve, *STARTING))
        # then
        assert not server._life.has_threads
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        server.close()
        assert repr(server).startswith("<closed")
    assert {"QAMServer.serve", "Life.begin", "closing_on"} < set(struck)


def test_close_answers_what_runs_also_where_another_server_got_its_request(
    place: dict[str, Any], server_id: str
) -> None:
    # given a method that runs, whose request the broker has delivered to another server
    service = Service()
    results: list[Any] = []
    with (
        make_server(service, server_id=server_id, **place) as server,
        make_server(Service(), server_id=server_id, **place) as other,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        consumer: Any = server._consumer
        requests = consumer._request_queue
        server.start()
        proxy.callback(results.append, results.append).hold("answered")
        assert service.holding.wait(20)
        other.start()
        consumer._connection._transport.sock.shutdown(socket.SHUT_RDWR)
        until(lambda: consumer._intake.connection_number == 2 and requests.is_consumed)
        until(lambda: other._consumer._siblings.held == 1)
        # when
        closing = threading.Thread(target=server.close)
        closing.start()
        until(lambda: consumer._closing.begun and not requests.is_consumed)
        consumer.join(1.0)  # it waits for the method; if it did not, it would be over by now
        assert consumer.is_alive()
        service.go_on.set()
        # then
        closing.join(20)
        until(lambda: results)
    assert results == ["answered"]


@pytest.mark.parametrize(
    ("stop_on", "error"),
    [
        (signal.SIGTERM, TypeError),
        ("SIGTERM", TypeError),
        (["SIGTERM"], ValueError),
        ([signal.SIGTERM, signal.SIGKILL], ValueError),
        ([12345], ValueError),
    ],
    ids=str,
)
def test_what_is_no_signal_is_named_and_the_server_can_still_be_started(
    stop_on: Any, error: type[Exception], server_id: str
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with QAMServer("memory://signals", server_id=server_id) as server:
        with pytest.raises(error, match="stop_on"):
            server.serve(stop_on=stop_on)
        assert signal.getsignal(signal.SIGTERM) is before
        server.start()


def test_an_inner_thread_that_dies_ends_the_server(broker: Broker, server_id: str) -> None:
    # given
    server = make_server(Service(), server_id=server_id, **broker.kwargs)
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve()
        except QAMClosedException as error:
            errors.append(error)

    see_to = server._publisher._on_fate

    def broken(fate: Fate, messages: Any, *more: Any) -> Any:
        if fate is Fate.CONFIRMED and any(message.is_reply for message in messages):
            raise AssertionError("planted")
        return see_to(fate, messages, *more)

    server._publisher._on_fate = broken  # type: ignore[method-assign]
    thread = threading.Thread(target=serve)
    thread.start()
    # when the first reply is confirmed
    with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
        assert proxy.add(1, 2) == 3
    thread.join(20)
    # then
    assert not thread.is_alive()
    assert isinstance(errors[0].__cause__, AssertionError)


def test_a_log_filter_that_raises_leaves_no_server_that_could_not_start_half_closed(
    server_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    server = make_server(Service(), server_id=server_id, hostname=f"memory://{server_id}")

    def cannot_start() -> None:
        raise RuntimeError("can't start new thread")

    def fail(record: logging.LogRecord) -> bool:
        raise ValueError("raised by the filter")

    monkeypatch.setattr(server._workers, "start_worker", cannot_start)
    caplog.set_level(logging.INFO, "qam.qam_server")
    monkeypatch.setattr(logging.getLogger("qam.qam_server"), "filters", [fail])

    # when
    with pytest.raises(ValueError, match="raised by the filter"):
        server.start()

    # then
    assert repr(server).startswith("<closed QAMServer")


# --- work ------------------------------------------------------------------------------


def test_each_request_has_its_thread_where_no_number_is_set(broker: Broker, server_id: str) -> None:
    many = 100
    meeting, results = threading.Barrier(many), list[Any]()
    options: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with (
        QAMServer(max_workers=None, **options) as server,
        QAMProxy(timeout=60, **options) as proxy,
    ):
        server.register_function(lambda: meeting.wait(60) >= 0, "meet")
        server.register_function(lambda: None, "quick")
        server.start()
        for _ in range(many):
            proxy.callback(results.append, results.append).meet()
        finish(proxy)
        assert results == [True] * many
        # then those that are done later end, as long as enough have nothing to do
        for _ in range(many):
            proxy.quick()
        until(lambda: len(server._workers) <= MAX_IDLE_WORKERS + 1)


def test_methods_run_at_once_up_to_max_workers(broker: Broker, server_id: str) -> None:
    # given methods that only go on when three of them run
    together = threading.Barrier(3)
    with make_server(Service(), server_id=server_id, max_workers=3, **broker.kwargs) as server:
        server.register_function(lambda: together.wait(30) >= 0, name="meet")
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            uids = [proxy.callback(print).meet() for _ in range(9)]
            for uid in uids:
                while proxy.get_callback_state(uid) != 2:
                    pass
        assert len(server._workers) == 3


def test_a_method_may_call_its_own_server(broker: Broker, server_id: str) -> None:
    with (
        make_server(Service(), server_id=server_id, **broker.kwargs) as server,
        QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy,
    ):
        server.register_function(lambda n: proxy.add(n, 1) + 1, name="nested")
        server.register_function(lambda: proxy.missing(), name="nested_missing")
        server.start()
        assert proxy.nested(1) == 3
        # what the nested call raised is not mistaken for the answer to the outer one
        with pytest.raises(Exception, match="missing") as raised:
            proxy.nested_missing()
        assert type(raised.value).__name__ == "RemoteException"


def test_a_long_method_leaves_what_waits_to_another_server(broker: Broker, server_id: str) -> None:
    # given a busy server that may hold one request, and a second server
    first, second = Service(), Service()
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with make_server(first, max_workers=1, **kwargs) as server:
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            held = proxy.callback(len, len).hold("first")
            assert first.holding.wait(20)
            with make_server(second, max_workers=1, **kwargs) as other:
                other.start()
                # when
                assert [proxy.add(n, 1) for n in range(5)] == [1, 2, 3, 4, 5]
            # then
            first.go_on.set()
            while proxy.get_callback_state(held) != 2:
                pass
    assert len(second.runs) == 5


def test_requests_that_a_busy_server_holds_are_run_by_an_idle_one(
    place: dict[str, Any], server_id: str
) -> None:
    busy, idle = Service(), Service()
    results: list[Any] = []
    with (
        make_server(busy, server_id=server_id, max_workers=1, prefetch=8, **place) as server,
        make_server(idle, server_id=server_id, **place) as other,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        # given a server with a long method, and requests behind that
        server.start()
        proxy.callback(results.append, results.append).hold("held")
        assert busy.holding.wait(20)
        for number in range(5):
            proxy.callback(results.append, results.append).add(number)
        until(lambda: len(server._consumer._intake.at_hand) == 6)
        # when another one comes
        other.start()
        # then that one runs them
        until(lambda: len(results) == 5)
        assert sorted(results) == list(range(5))
        assert busy.runs == [("hold", "held")]
        busy.go_on.set()
        until(lambda: len(results) == 6)


def test_short_methods_are_prefetched_in_larger_numbers(broker: Broker, server_id: str) -> None:
    with make_server(Service(), server_id=server_id, max_workers=2, **broker.kwargs) as server:
        server.start()
        assert server._consumer._request_queue.consumer_prefetch == 2
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            # when it has learned that its methods are short
            while server._consumer._request_queue.consumer_prefetch == 2:
                assert proxy.add(1, 1) == 2
            # then none is lost at the change
            assert [proxy.add(n, 1) for n in range(50)] == list(range(1, 51))
        assert server._consumer._request_queue.consumer_prefetch == 256


@pytest.mark.rabbitmq
def test_requests_are_acknowledged_only_when_answered(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    # given
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    with (
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        uid = proxy.callback(print).hold()
        assert service.holding.wait(20)
        # then it is still the broker's
        assert rabbitmq_node.queues()[f"{server_id}_server_queue"] == 1
        # when
        service.go_on.set()
        while proxy.get_callback_state(uid) != 2:
            pass
    assert rabbitmq_node.queues()[f"{server_id}_server_queue"] == 0


@pytest.mark.rabbitmq
class TestMalformedRequests:
    @pytest.fixture
    def channel(self, rabbitmq_node: RabbitMQNode) -> Any:
        with kombu.Connection(rabbitmq_node.url) as connection:
            yield connection.channel()

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"garbage",
            dumps("no dict", "pickle"),
            dumps({"id": 1}, "pickle"),
            dumps({"id": 1, "method_name": 3, "routing_key": "x", "params": []}, "pickle"),
            dumps({"id": 1, "method_name": "add", "routing_key": "x", "params": 5}, "pickle"),
        ],
        ids=repr,
    )
    def test_are_dropped_once_and_the_server_lives_on(
        self,
        rabbitmq_node: RabbitMQNode,
        server_id: str,
        channel: Any,
        body: bytes,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
        requests, _ = entities(server_id, "x")
        with (
            caplog.at_level(logging.WARNING, "qam.qam_server"),
            serving(server_id=server_id, **place),
            QAMProxy(server_id, timeout=60, **place) as proxy,
        ):
            # when
            publish(channel, requests.exchange.name, requests.routing_key, body, "pickle")
            # then
            assert proxy.add(1, 2) == 3
        assert "dropped" in caplog.text
        assert rabbitmq_node.queues()[f"{server_id}_server_queue"] == 0

    def test_are_told_to_callers_that_say_where_to(
        self, rabbitmq_node: RabbitMQNode, server_id: str
    ) -> None:
        place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
        with (
            serving(server_id=server_id, **place),
            QAMProxy(server_id, timeout=60, **place) as proxy,
        ):
            requests = proxy.publisher_thread._requests
            requests.encode = lambda *args: b"garbage"  # type: ignore[method-assign]
            with pytest.raises(QAMSerializationException) as raised:
                proxy.add(1, 2)
            assert raised.value.executed == "no"

    @pytest.mark.parametrize(
        "properties",
        [
            {"correlation_id": b"\xff\xfe", "reply_to": "x"},
            {"correlation_id": "x", "reply_to": b"\xff"},
            {"correlation_id": "x" * 255, "reply_to": "y" * 255},
            {"content_type": b"\xff"},
            {"expiration": "99999"},
            {"application_headers": {"when": 2**62, "deep": {"a": [[[[{}]]]]}}},
            {"message_id": b"\xc3\x28", "timestamp": 2**63},
            {"application_headers": {b"\xff": b"\xff"}},
        ],
        ids=repr,
    )
    def test_with_odd_properties_harm_nobody(
        self, rabbitmq_node: RabbitMQNode, server_id: str, channel: Any, properties: dict[str, Any]
    ) -> None:
        place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
        requests, replies = entities(server_id, "x")
        with (
            serving(server_id=server_id, **place),
            QAMProxy(server_id, timeout=60, **place) as proxy,
        ):
            consumer, publisher = proxy.consumer_thread.amqpconn, proxy.publisher_thread.publisher
            reply_key = f"{proxy.consumer_thread.client_id}_client_routing_key"
            for body in (b"garbage", dumps({"id": [1], "result": 1, "exception": 0}, "pickle")):
                message = amqp.Message(
                    body, **({"content_type": "application/x-python-serialize"} | properties)
                )
                # when
                channel.basic_publish(message, requests.exchange.name, requests.routing_key)
                channel.basic_publish(message, replies.exchange.name, reply_key)
            # then
            assert proxy.add(1, 2) == 3
            assert proxy.consumer_thread.amqpconn is consumer
            assert proxy.publisher_thread.publisher is publisher

    def test_with_a_routing_key_that_amqp_does_not_know_harm_nobody(
        self, rabbitmq_node: RabbitMQNode, server_id: str, channel: Any
    ) -> None:
        place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
        requests, _ = entities(server_id, "x")
        with (
            serving(server_id=server_id, **place),
            QAMProxy(server_id, timeout=60, **place) as proxy,
        ):
            for routing_key in ("x" * 256, "\ud800", "", "nobody"):
                body = {"id": 1, "method_name": "add", "routing_key": routing_key, "params": [1]}
                publish(
                    channel,
                    requests.exchange.name,
                    requests.routing_key,
                    pickle.dumps(body),
                    "pickle",
                )
            assert proxy.add(1, 2) == 3


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_an_exception_that_misbehaves_is_told_as_far_as_it_goes(
    broker: Broker, server_id: str, serializer: str
) -> None:
    class NoRepr:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    class Misbehaving(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        def __reduce__(self) -> Any:
            raise RuntimeError("no reduce")

    def misbehave() -> None:
        raise Misbehaving(NoRepr(), 1)

    kwargs: dict[str, Any] = {"serializer": serializer, **broker.kwargs}
    with make_server(Service(), server_id=server_id, **kwargs) as server:
        server.register_function(misbehave)
        server.start()
        with QAMProxy(server_id, timeout=60, **kwargs) as proxy:
            with pytest.raises(RemoteException) as raised:
                proxy.misbehave()
            assert raised.value.type_name.endswith("Misbehaving")
            assert proxy.add(1, 2) == 3


def test_a_bug_in_answering_is_told_to_the_caller_and_costs_no_worker(
    broker: Broker, server_id: str
) -> None:
    with make_server(Service(), server_id=server_id, max_workers=1, **broker.kwargs) as server:
        server._methods.resolve = {}.__getitem__  # type: ignore[method-assign,assignment]
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            for _ in range(2):
                with pytest.raises(QAMException) as raised:
                    proxy.add(1, 2)
                assert raised.value.executed == "unknown"


def test_a_server_whose_broker_went_away_before_it_served_says_so(server_id: str) -> None:
    # given
    server = QAMServer(f"memory://{server_id}", server_id=server_id)
    gone = Reconnection(AMQPCredentials("127.0.0.1", 1).endpoints())
    server._publisher._reconnection = server._consumer._reconnection = gone
    # when
    with pytest.raises(QAMConnectionException, match="nothing listens"):
        server.start()
    # then
    assert "closed QAMServer" in repr(server)
    with pytest.raises(RuntimeError, match="make a new one"):
        server.serve()


def test_an_unreachable_broker_is_named(server_id: str) -> None:
    with pytest.raises(QAMConnectionException, match=r"127\.0\.0\.1:1"):
        QAMServer("127.0.0.1", 1, server_id=server_id)


# --- processes --------------------------------------------------------------------------


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=os.getcwd(),
        check=False,
    )


@pytest.mark.rabbitmq
def test_the_interpreter_ends_quietly_with_a_live_proxy_and_server(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    place = f"hostname='{rabbitmq_node.host}', port={rabbitmq_node.port}"
    done = run_python(f"""
        import qam
        server = qam.QAMServer(server_id='{server_id}', {place})
        server.register_function(pow)
        server.start()
        proxy = qam.QAMProxy('{server_id}', client_id='{server_id}', {place})
        print(proxy.pow(2, 5))
        proxy.callback(print, repr).pow(2, 6)
    """)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("32")
    assert list(left_of(server_id, rabbitmq_node)) == [f"{server_id}_server_queue"]


# Python 3.12.0 and 3.12.1 do this; here each Python does.
NO_THREADS_AFTER_THE_MAIN_ONE = """
        import threading
        start = threading.Thread.start
        def start_in_time(thread):
            if not threading.main_thread().is_alive():
                raise RuntimeError("can't create new thread at interpreter shutdown")
            start(thread)
        threading.Thread.start = start_in_time
"""


def test_calls_go_on_where_no_thread_can_be_started_after_the_end_of_the_main_one() -> None:
    done = run_python(f"""
        {NO_THREADS_AFTER_THE_MAIN_ONE}
        import qam
        server = qam.QAMServer("memory://end", server_id="end")
        server.register_function(pow)
        server.start()
        proxy = qam.QAMProxy("end", "memory://end", timeout=30)
        executed = threading.Event()

        def go_on():
            threading.main_thread().join()
            print(proxy.pow(2, 5))
            proxy.callback(print).pow(2, 6)
            proxy.callback(lambda result: executed.set()).pow(2, 7)
            print(executed.wait(30))

        threading.Thread(target=go_on).start()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["32", "64", "True"]


def test_a_callback_at_the_end_is_executed_where_no_thread_can_be_started_then() -> None:
    done = run_python(f"""
        {NO_THREADS_AFTER_THE_MAIN_ONE}
        import qam
        server = qam.QAMServer("memory://end", server_id="end")
        server.register_function(threading.main_thread().join, "wait")
        server.start()
        proxy = qam.QAMProxy("end", "memory://end", timeout=30)
        # the outcome is there when the main thread has ended: the result, or that all is closed
        proxy.callback(print, lambda error: print(type(error).__name__)).wait()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("None\n", "QAMClosedException\n")


def test_importing_the_package_starts_nothing_and_adds_no_log_handler() -> None:
    done = run_python("""
        import logging, threading
        import qam
        assert threading.active_count() == 1
        assert not logging.getLogger('qam').handlers
        assert not logging.getLogger('qam.qam_proxy').handlers
        from kombu.serialization import registry
        assert registry._disabled_content_types >= {'application/x-python-serialize'}
    """)
    assert (done.returncode, done.stderr) == (0, "")
