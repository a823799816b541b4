"""Calls of a proxy that is not persistent: what they are, and what becomes of them."""

import inspect
import logging
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from qam import (
    QAMConnectionException,
    QAMException,
    QAMProxy,
    QAMSerializationException,
    QAMServer,
    QAMServerLostException,
    QAMServerNotFoundException,
    QAMTimeoutException,
)
from qam._broker.messages import Delivery, QueueBinding, Route
from qam._broker.waker import Waker
from qam._protocol.entities import reply_binding, request_binding
from qam._serialization.serializers import get_serializer
from qam._server.call import Answer, Call, is_given_back
from qam._server.messages import Messages
from tests.conftest import Broker
from tests.support.forwarder import Forwarder
from tests.support.processes import ServerProcess, read_journal, runs
from tests.support.rabbitmq import RabbitMQNode
from tests.support.reading import read
from tests.support.routes import Routes
from tests.support.service import Service, make_server, serving
from tests.support.strangers import AnsweredByTheTest, Stranger
from tests.support.waiting import LONGER_THAN_A_RESTART, finish, until

LONG = 60.0  # seconds; nothing here takes that long unless it is broken
TRANSIENT, PERSISTENT = 1, 2
MIB = 1024 * 1024


@pytest.fixture
def transient(broker: Broker, server_id: str, service: Service) -> Iterator[QAMProxy]:
    """A proxy of the server of `service` whose calls are transient."""
    with QAMProxy(server_id, timeout=LONG, persistent=False, **broker.kwargs) as proxy:
        yield proxy


class Reconnections:
    """Counts how often proxies, or servers, say that they have a connection again."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        caplog.set_level(logging.INFO, "qam")

    def wait_for(self, number: int, of: str = "proxy") -> None:
        """Return when there were that many."""
        until(lambda: self._count(f"qam.qam_{of}") >= number, self._caplog.text)

    def _count(self, logger: str) -> int:
        records = self._caplog.records
        return sum(each.name == logger and "connected again" in each.msg for each in records)


@pytest.fixture
def reconnections(caplog: pytest.LogCaptureFixture) -> Reconnections:
    return Reconnections(caplog)


def transient_proxy(server_id: str, place: dict[str, Any], **options: Any) -> QAMProxy:
    """A transient proxy; its server is known, whether it serves or not."""
    QAMServer(server_id=server_id, **place)
    return QAMProxy(server_id, **{"timeout": LONG, "persistent": False, **place, **options})


def calls(proxy: QAMProxy, outcomes: list[Any]) -> Any:
    """Makes calls of which the outcomes, whatever they are, are appended to a list."""
    return proxy.callback(outcomes.append, outcomes.append)


def own_id(proxy: QAMProxy) -> str:
    return str(proxy.consumer_thread.client_id)


def reply_queue(proxy: QAMProxy) -> str:
    return f"{own_id(proxy)}_client_queue"


def assert_unknown(outcome: Any) -> None:
    """The call ended with its connection."""
    assert type(outcome) is QAMConnectionException, repr(outcome)
    assert outcome.executed == "unknown"
    assert not outcome.safe_to_retry


class Wiretap:
    """A stranger who gets a copy of each message that is published with some route."""

    def __init__(self, stranger: Stranger, *routes: Route) -> None:
        self._connection = stranger._connection
        self._waker = Waker()
        self._queues = [f"wiretap.{route.exchange}.{route.routing_key}" for route in routes]
        for queue, route in zip(self._queues, routes, strict=True):
            self._connection.declare_exchange(route.exchange)
            self._connection.declare_queue(QueueBinding(queue, *route))
            self._connection.consume(queue, no_ack=True)
        self.seen: list[Delivery] = []

    def next(self) -> Delivery:
        """The next message that it did not return yet, waiting for it."""
        deadline = time.monotonic() + LONG
        while not self.seen:
            assert time.monotonic() < deadline, "nothing was published"
            events = read(self._connection, 0.1, self._waker)
            self.seen += [event for event in events if isinstance(event, Delivery)]
        return self.seen.pop(0)

    def close(self) -> None:
        for queue in self._queues:
            self._connection.delete_queue(queue)
        self._waker.close()


def requests(server_id: str) -> Route:
    return request_binding(server_id).route


def replies(server_id: str, proxy: QAMProxy) -> Route:
    return reply_binding(server_id, own_id(proxy)).route


class TestTheArgument:
    def test_is_keyword_only_and_true_by_default(self) -> None:
        parameter = inspect.signature(QAMProxy).parameters["persistent"]

        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is True

    @pytest.mark.parametrize("value", ["no", None, 0, 1])
    def test_that_is_no_bool_is_named(self, value: Any, server_id: str) -> None:
        with pytest.raises(TypeError, match="persistent must be True or False"):
            QAMProxy(server_id, f"memory://{server_id}", persistent=value)

    def test_is_not_taken_for_another_by_its_position(self, server_id: str) -> None:
        place = ["localhost", 5672, "guest", "guest", "/", None, "pickle", False]
        with pytest.raises(TypeError, match="positional"):
            QAMProxy(server_id, *place, False)  # type: ignore[misc]


class TestWhatTravels:
    @pytest.mark.parametrize(
        ("options", "mode"),
        [({}, PERSISTENT), ({"persistent": True}, PERSISTENT), ({"persistent": False}, TRANSIENT)],
    )
    def test_is_of_the_kind_that_the_proxy_asks_for(
        self,
        broker: Broker,
        server_id: str,
        service: Service,
        stranger: Stranger,
        options: dict[str, bool],
        mode: int,
    ) -> None:
        with QAMProxy(server_id, timeout=LONG, **options, **broker.kwargs) as proxy:
            tap = Wiretap(stranger, requests(server_id), replies(server_id, proxy))
            # when
            assert proxy.add(1, 2) == 3
            # then both its request and the reply
            assert [tap.next().properties["delivery_mode"] for _ in range(2)] == [mode, mode]
            assert tap.seen == []
            tap.close()

    def test_is_of_both_kinds_where_the_server_has_both_kinds_of_clients(
        self,
        server_id: str,
        stranger: Stranger,
        proxy: QAMProxy,
        transient: QAMProxy,
        service: Service,
    ) -> None:
        tap = Wiretap(stranger, replies(server_id, proxy), replies(server_id, transient))
        # given calls of both that run at the same time
        results: list[Any] = []
        for _ in range(3):
            calls(proxy, results).hold(PERSISTENT)
            calls(transient, results).hold(TRANSIENT)
        until(lambda: len(service.runs) == 6)
        # when
        service.go_on.set()
        finish(proxy, transient)
        # then
        assert sorted(results) == [TRANSIENT] * 3 + [PERSISTENT] * 3
        for _ in range(6):
            reply = tap.next()
            result = pickle.loads(reply.body)["result"]
            assert reply.properties["delivery_mode"] == result
        tap.close()

    @pytest.mark.parametrize("exists", [True, False])
    def test_answers_a_method_that_raises_or_is_not_there_in_kind_too(
        self, server_id: str, stranger: Stranger, transient: QAMProxy, exists: bool
    ) -> None:
        tap = Wiretap(stranger, replies(server_id, transient))
        with pytest.raises(Exception, match="broken" if exists else "subtract"):
            transient.fail("broken") if exists else transient.subtract(1, 2)
        assert tap.next().properties["delivery_mode"] == TRANSIENT
        tap.close()

    def test_has_the_time_that_the_call_has(
        self, server_id: str, stranger: Stranger, transient: QAMProxy
    ) -> None:
        tap = Wiretap(stranger, requests(server_id))
        assert transient.set_timeout(50).add(1, 2) == 3
        assert 0 < int(tap.next().properties["expiration"]) <= 50_000
        tap.close()

    @pytest.mark.parametrize("serializer", ["pickle", "json", "msgpack"])
    def test_may_be_a_mebibyte_both_ways(
        self, broker: Broker, server_id: str, serializer: str
    ) -> None:
        options: dict[str, Any] = {"serializer": serializer, **broker.kwargs}
        with (
            serving(server_id=server_id, **options),
            QAMProxy(server_id, timeout=LONG, persistent=False, **options) as proxy,
        ):
            value = "0123456789abcdef" * (MIB // 16)
            for _ in range(3):
                assert proxy.echo(value) == value


class TestAReply:
    """As a server makes it."""

    @pytest.mark.parametrize(
        ("request_properties", "wanted"),
        [
            ({"delivery_mode": TRANSIENT}, (TRANSIENT, False, False)),
            ({"delivery_mode": PERSISTENT}, (PERSISTENT, True, True)),
            ({}, (PERSISTENT, True, True)),
        ],
    )
    def test_to_a_transient_request_is_neither_confirmed_nor_mandatory(
        self, request_properties: dict[str, Any], wanted: tuple[int, bool, bool]
    ) -> None:
        reply = messages_of("server").reply(call_with(**request_properties), Answer("key", b""))

        got = reply.properties["delivery_mode"], reply.confirm, reply.mandatory
        assert got == wanted

    @pytest.mark.parametrize("runs", [None, 2])
    def test_is_not_the_only_thing_that_is_in_kind(self, runs: int | None) -> None:
        call = call_with(delivery_mode=TRANSIENT)
        anew = messages_of("server").request_anew(call, now=0.0, runs=runs)

        assert anew.properties["delivery_mode"] == TRANSIENT
        assert anew.properties["correlation_id"] == "client:1"
        assert anew.confirm  # it has to arrive

    def test_that_no_queue_takes_is_not_kept(
        self, broker: Broker, server_id: str, stranger: Stranger
    ) -> None:
        with make_server(Service(), server_id=server_id, **broker.kwargs) as server:
            server.start()
            # given a client that is gone, and that was no persistent one
            ask_for_nobody(stranger, server_id, TRANSIENT)
            until(lambda: not server._consumer._intake._record.running)
            # and another that is gone, which was
            ask_for_nobody(stranger, server_id, PERSISTENT)
            # then the reply to that one is the only one that waits for it
            until(lambda: server._publisher._later)
            [kept] = server._publisher._later.items()
            assert kept.properties["delivery_mode"] == PERSISTENT
            with QAMProxy(server_id, timeout=LONG, persistent=False, **broker.kwargs) as proxy:
                assert proxy.add(1, 2) == 3


def messages_of(server_id: str) -> Messages:
    return Messages(server_id, get_serializer("pickle", None, ()))


def call_with(**properties: Any) -> Call:
    return Call(Delivery(b"", 1, properties={"correlation_id": "client:1", **properties}), 1)


def ask_for_nobody(stranger: Stranger, server_id: str, delivery_mode: int) -> None:
    """Make a call as a client that is gone before its reply comes."""
    body = {"id": 1, "method_name": "add", "routing_key": "nobody", "params": (1, 2)}
    properties = {
        "content_type": "application/x-python-serialize",
        "content_encoding": "binary",
        "correlation_id": f"nobody.{delivery_mode}:1",
        "delivery_mode": delivery_mode,
    }
    stranger.send(requests(server_id), pickle.dumps(body), properties)


class TestWhoAcknowledges:
    def test_is_not_the_client(self, transient: QAMProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        acknowledged: list[int] = []
        connection: Any = transient.consumer_thread.amqpconn
        monkeypatch.setattr(connection, "acknowledge", lambda tag, **_: acknowledged.append(tag))

        assert [transient.add(n, 0) for n in range(50)] == list(range(50))
        assert acknowledged == []

    @pytest.mark.parametrize("persistent", [True, False])
    def test_is_the_client_only_where_the_broker_waits_for_it(
        self,
        rabbitmq_node: RabbitMQNode,
        place: dict[str, Any],
        server_id: str,
        persistent: bool,
    ) -> None:
        with transient_proxy(server_id, place, persistent=persistent) as proxy:
            listed = rabbitmq_node.ctl("list_consumers", "queue_name", "ack_required")
            [ours] = [line for line in listed.splitlines() if reply_queue(proxy) in line]
            assert ours.split()[-1] == str(persistent).lower()

    def test_is_the_server_but_not_before_it_has_answered(
        self, rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
    ) -> None:
        queue = f"{server_id}_server_queue"
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place) as proxy,
        ):
            results: list[Any] = []
            calls(proxy, results).hold("mine")
            assert service.holding.wait(LONG)
            assert rabbitmq_node.queues()[queue] == 1
            # when
            service.go_on.set()
            finish(proxy)
            # then
            assert results == ["mine"]
            until(lambda: rabbitmq_node.queues()[queue] == 0)


class TestCallsInNumbers:
    def test_of_eight_threads_all_get_their_own_answers(self, transient: QAMProxy) -> None:
        answers: dict[int, list[Any]] = {}

        def call_again_and_again(thread: int) -> None:
            answers[thread] = [transient.add(1000 * thread, n) for n in range(200)]

        threads = [threading.Thread(target=call_again_and_again, args=[n]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {n: list(range(1000 * n, 1000 * n + 200)) for n in range(8)}

    def test_of_callbacks_all_get_their_own_answers(self, transient: QAMProxy) -> None:
        results: list[Any] = []
        for n in range(2000):
            calls(transient, results).add(n, 0)
        finish(transient)
        assert sorted(results) == list(range(2000))

    def test_of_both_kinds_are_answered_by_one_server(
        self, proxy: QAMProxy, transient: QAMProxy
    ) -> None:
        results: dict[QAMProxy, list[Any]] = {proxy: [], transient: []}
        for n in range(500):
            for each in (proxy, transient):
                calls(each, results[each]).add(n, 0)
        finish(proxy, transient)
        assert [sorted(each) for each in results.values()] == [list(range(500))] * 2


class TestAServerIdThatNobodyEverServed:
    def test_is_told_at_once(self, broker: Broker, server_id: str) -> None:
        with QAMProxy(server_id, persistent=False, **broker.kwargs) as proxy:  # no timeout
            with pytest.raises(QAMServerNotFoundException, match=server_id) as raised:
                proxy.add(1, 2)
            assert raised.value.executed == "no"
            assert raised.value.safe_to_retry

    def test_is_told_to_each_of_many(self, broker: Broker, server_id: str) -> None:
        outcomes: list[Any] = []
        with QAMProxy(server_id, persistent=False, **broker.kwargs) as proxy:
            for n in range(100):
                calls(proxy, outcomes).add(n, 0)
            finish(proxy)
        assert [type(outcome) for outcome in outcomes] == [QAMServerNotFoundException] * 100

    def test_is_told_of_a_large_request_too(self, broker: Broker, server_id: str) -> None:
        with (
            QAMProxy(server_id, persistent=False, **broker.kwargs) as proxy,
            pytest.raises(QAMServerNotFoundException),
        ):
            proxy.echo("x" * MIB)

    def test_is_one_no_more_when_it_is_served(self, broker: Broker, server_id: str) -> None:
        with QAMProxy(server_id, timeout=LONG, persistent=False, **broker.kwargs) as proxy:
            with pytest.raises(QAMServerNotFoundException):
                proxy.add(1, 2)
            with serving(server_id=server_id, **broker.kwargs):
                assert proxy.add(1, 2) == 3


class TestADeletedReplyQueue:
    def test_ends_the_calls_in_flight_and_no_other(
        self,
        stranger: Stranger,
        service: Service,
        transient: QAMProxy,
        reconnections: Reconnections,
    ) -> None:
        assert transient.add(1, 2) == 3
        outcomes: list[Any] = []
        for n in range(3):
            calls(transient, outcomes).hold(n)
        until(lambda: len(service.runs) == 4)
        # when
        stranger._connection.delete_queue(reply_queue(transient))
        # then
        finish(transient)
        assert len(outcomes) == 3
        for outcome in outcomes:
            assert_unknown(outcome)
            assert "hold() was sent" in str(outcome)
            assert "reply queue" in str(outcome)
        # and there is a new one for later calls
        reconnections.wait_for(1)
        assert transient.add(2, 3) == 5

    def test_ends_a_call_that_waits_in_its_caller(
        self, stranger: Stranger, service: Service, transient: QAMProxy
    ) -> None:
        def delete() -> None:
            assert service.holding.wait(LONG)
            stranger._connection.delete_queue(reply_queue(transient))

        other = threading.Thread(target=delete)
        other.start()
        with pytest.raises(QAMConnectionException) as raised:
            transient.hold()
        other.join()
        assert_unknown(raised.value)

    @pytest.mark.rabbitmq
    def test_in_an_outage_costs_no_call_that_is_made_then(
        self,
        rabbitmq_node: RabbitMQNode,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
    ) -> None:
        routes.lead("client's consumer", way.host, way.port)
        with (
            serving(server_id=server_id, **place),
            transient_proxy(server_id, place) as proxy,
        ):
            way.refuse()
            way.cut()
            until(lambda: proxy.consumer_thread.amqpconn is None)
            # given
            outcomes: list[Any] = []
            calls(proxy, outcomes).add(2, 3)
            rabbitmq_node.delete_queue(reply_queue(proxy))
            # when
            way.accept()
            finish(proxy)
            # then it was sent when there was a queue for its reply again
            assert outcomes == [5]


def test_replies_of_strangers_are_taken_as_those_of_a_persistent_proxy(
    broker: Broker, server_id: str, stranger: Stranger
) -> None:
    QAMServer(server_id=server_id, **broker.kwargs)
    with QAMProxy(server_id, timeout=LONG, persistent=False, **broker.kwargs) as proxy:
        played = AnsweredByTheTest(proxy, server_id, stranger, "pickle")
        # given replies to calls of nobody
        for call_id in (0, 2**60):
            played.answer(call_id, b"nonsense", {"correlation_id": ""})
        # then
        assert played.works()


def test_a_request_that_a_closing_server_did_not_start_is_run_by_another(
    broker: Broker, server_id: str, stranger: Stranger
) -> None:
    service, successor = Service(), Service()
    options: dict[str, Any] = {"server_id": server_id, "max_workers": 1, **broker.kwargs}
    with (
        make_server(service, prefetch=4, **options) as server,
        QAMProxy(server_id, timeout=LONG, persistent=False, **broker.kwargs) as proxy,
    ):
        server.start()
        outcomes: dict[str, list[Any]] = {"hold": [], "add": []}
        calls(proxy, outcomes["hold"]).hold()
        assert service.holding.wait(LONG)
        calls(proxy, outcomes["add"]).add("not ", "started")
        until(lambda: len(server._consumer._intake._record.running) == 2)
        tap = Wiretap(stranger, requests(server_id))
        # when
        server.close(timeout=0.1)
        # then it is in the queue again, and as transient as before
        given_back = tap.next()
        assert is_given_back(given_back)
        assert given_back.properties["delivery_mode"] == TRANSIENT
        with make_server(successor, **options) as other:
            other.start()
            until(lambda: outcomes["add"])
            assert outcomes["add"] == ["not started"]
            assert successor.runs == [("not ", "started")]
            assert service.runs == [("hold", None)]
            # and the caller of what ran on knows
            finish(proxy)
            assert [type(outcome) for outcome in outcomes["hold"]] == [QAMServerLostException]
            service.go_on.set()
        tap.close()


@pytest.mark.rabbitmq
class TestAKilledServer:
    def test_is_noticed_by_the_next_one(
        self, place: dict[str, Any], server_id: str, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        outcomes: list[Any] = []
        with transient_proxy(server_id, place, timeout=None) as proxy:
            with ServerProcess(server_id, place, journal) as server:
                for n in range(5):
                    calls(proxy, outcomes).hold(n)
                until(lambda: len(read_journal(journal)) == 5)
                # when
                server.kill()
            assert outcomes == []
            with ServerProcess(server_id, place, journal):
                finish(proxy)
                # then
                assert proxy.add("works ", "again") == "works again"
        assert [type(outcome) for outcome in outcomes] == [QAMServerLostException] * 5
        assert {outcome.executed for outcome in outcomes} == {"unknown"}
        assert runs(journal).most_common(1)[0][1] == 1

    def test_has_its_idempotent_methods_run_by_the_next_one(
        self, place: dict[str, Any], server_id: str, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        outcomes: list[Any] = []
        with transient_proxy(server_id, place) as proxy:
            calls(proxy, outcomes).hold_again("token")
            with ServerProcess(server_id, place, journal):
                until(lambda: runs(journal)["token"] == 1)
            with ServerProcess(server_id, place, journal) as successor:
                until(lambda: runs(journal)["token"] == 2)
                successor.release()
                finish(proxy)
        assert outcomes == ["token"]


@pytest.mark.rabbitmq
class TestALostConnectionOfTheProxy:
    @pytest.mark.parametrize("connection", ["client's publisher", "client's consumer"])
    def test_ends_the_calls_in_flight_as_unknown(
        self,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
        connection: str,
        reconnections: Reconnections,
    ) -> None:
        routes.lead(connection, way.host, way.port)
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place) as proxy,
        ):
            assert proxy.add(1, 2) == 3
            outcomes: list[Any] = []
            for n in range(3):
                calls(proxy, outcomes).hold(n)
            until(lambda: len(service.runs) == 4)
            # when
            way.cut()
            # then, while they run
            finish(proxy)
            assert len(outcomes) == 3
            for outcome in outcomes:
                assert_unknown(outcome)
                assert "hold() was sent, but the connection" in str(outcome)
                assert isinstance(outcome.__cause__, QAMConnectionException)
            # and later calls are not concerned, nor by late replies
            reconnections.wait_for(1)
            service.go_on.set()
            assert [proxy.add(n, 0) for n in range(20)] == list(range(20))
            assert len(outcomes) == 3

    @pytest.mark.parametrize("connection", ["client's publisher", "client's consumer"])
    def test_ends_a_call_that_waits_in_its_caller(
        self,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
        connection: str,
    ) -> None:
        routes.lead(connection, way.host, way.port)
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place, timeout=None) as proxy,
        ):

            def cut() -> None:
                assert service.holding.wait(LONG)
                way.cut()

            other = threading.Thread(target=cut)
            other.start()
            with pytest.raises(QAMConnectionException, match=r"hold\(\) was sent") as raised:
                proxy.hold()
            other.join()
            assert_unknown(raised.value)

    @pytest.mark.parametrize("arrives", [False, True])
    def test_with_the_request_in_it_does_not_have_it_sent_again(
        self,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
        arrives: bool,
        reconnections: Reconnections,
    ) -> None:
        routes.lead("client's publisher", way.host, way.port)
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place) as proxy,
        ):
            assert proxy.add("warm", "!") == "warm!"
            (way.cut_after if arrives else way.cut_when)(
                lambda chunk, towards_broker: towards_broker and b"the token" in chunk
            )
            # when
            outcomes: list[Any] = []
            calls(proxy, outcomes).add("the token", "!")
            finish(proxy)
            # then, unless the reply was faster than the end of the connection
            [outcome] = outcomes
            if not arrives or outcome != "the token!":
                assert_unknown(outcome)
            reconnections.wait_for(1)
            assert proxy.add(2, 3) == 5
            if arrives:
                until(lambda: ("the token", "!") in service.runs)
            assert service.runs.count(("the token", "!")) == int(arrives)

    def test_keeps_the_calls_that_were_not_written(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("client's publisher", way.host, way.port)
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place) as proxy,
        ):
            assert proxy.add(1, 2) == 3
            # given no connection
            way.refuse()
            way.cut()
            until(lambda: proxy.publisher_thread.publisher is None)
            results: list[Any] = []
            for n in range(20):
                calls(proxy, results).add(n, 0)
            # when the time of one is up
            with pytest.raises(QAMTimeoutException, match="no connection") as raised:
                proxy.set_timeout(0.05).add("never", "!")
            # then it surely does not run
            assert raised.value.executed == "no"
            assert raised.value.safe_to_retry
            assert len(proxy.publisher_thread.method_queue) >= 20
            assert results == []
            # and the others do, when there is a connection again
            way.accept()
            finish(proxy)
            assert sorted(results, key=str) == sorted(range(20), key=str)
            assert ("never", "!") not in service.runs

    def test_for_replies_keeps_the_calls_that_were_not_written(
        self,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
        reconnections: Reconnections,
    ) -> None:
        routes.lead("client's consumer", way.host, way.port)
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place) as proxy,
        ):
            written: list[Any] = []
            calls(proxy, written).hold("written")
            assert service.holding.wait(LONG)
            # given calls that are held back, as while the broker has an alarm
            proxy.publisher_thread._blocked = True
            results: list[Any] = []
            for n in range(5):
                calls(proxy, results).add(n, 0)
            # when
            way.cut()
            until(lambda: written)
            assert_unknown(written[0])
            reconnections.wait_for(1)
            assert results == []
            proxy.publisher_thread._blocked = False
            proxy.publisher_thread.wake()
            # then
            finish(proxy)
            assert sorted(results) == list(range(5))

    def test_is_as_bad_where_it_just_goes_silent(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("client's consumer", way.host, way.port, heartbeat=1)
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place, timeout=None) as proxy,
        ):
            outcomes: list[Any] = []
            calls(proxy, outcomes).hold()
            assert service.holding.wait(LONG)
            # when
            way.stall()
            # then
            finish(proxy)
            [outcome] = outcomes
            assert_unknown(outcome)

    def test_that_the_broker_does_not_know_of_has_later_calls_wait(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("client's consumer", way.host, way.port)
        with (
            serving(server_id=server_id, **place),
            transient_proxy(server_id, place) as proxy,
        ):
            assert proxy.add(1, 2) == 3
            # given a consumer that the broker still believes in, and no other yet
            way.stall()
            routes.lead("client's consumer", "127.0.0.1", 1)
            lost: Any = proxy.consumer_thread.amqpconn
            lost._transport.sock.shutdown(socket.SHUT_RDWR)
            until(lambda: proxy.consumer_thread.amqpconn is None)
            # when a call is made meanwhile, whose reply the broker would give to that one
            outcomes: list[Any] = []
            calls(proxy, outcomes).add(2, 3)
            assert len(proxy.publisher_thread.method_queue) == 1
            routes.lead("client's consumer", **place_of(place))
            finish(proxy)
            # then it was not sent before
            assert outcomes == [5]

    def test_for_replies_says_no_where_the_time_is_up_before_it_is_back(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("client's consumer", way.host, way.port)
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place) as proxy,
        ):
            way.refuse()
            way.cut()
            until(lambda: proxy.consumer_thread.amqpconn is None)
            with pytest.raises(QAMTimeoutException, match="no connection") as raised:
                proxy.set_timeout(0.2).add(2, 3)
            assert raised.value.executed == "no"
            assert service.runs == []

    def test_as_it_opens_keeps_no_call_waiting_for_ever(
        self,
        rabbitmq_node: RabbitMQNode,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
    ) -> None:
        routes.lead("client's consumer", way.host, way.port)
        with (
            serving(server_id=server_id, **place),
            transient_proxy(server_id, place, timeout=20) as proxy,
        ):
            assert proxy.add(1, 2) == 3
            way.refuse()
            way.cut()
            until(lambda: proxy.consumer_thread.amqpconn is None)
            # given a call that waits for the next connection
            outcomes: list[Any] = []
            calls(proxy, outcomes).add(2, 3)
            # when that one is lost with the first things that it delivers
            cut = way.cut_when(
                lambda chunk, towards_broker: not towards_broker and CONSUME_OK in chunk
            )
            way.accept()
            assert cut.wait(LONG)
            finish(proxy)
            # then it ends
            [outcome] = outcomes
            if outcome != 5:
                assert_unknown(outcome)


CONSUME_OK = b"\x00\x3c\x00\x15"
CHANNEL_OPEN = b"\x00\x14\x00\x0a"


def place_of(place: dict[str, Any]) -> dict[str, Any]:
    return {"host": place["hostname"], "port": place["port"]}


@pytest.mark.rabbitmq
class TestAllConnectionsLost:
    def test_cost_a_persistent_proxy_nothing_and_a_transient_one_what_runs(
        self,
        rabbitmq_node: RabbitMQNode,
        place: dict[str, Any],
        server_id: str,
        reconnections: Reconnections,
    ) -> None:
        with ExitStack() as stack:
            service = stack.enter_context(serving(server_id=server_id, **place))
            persistent = stack.enter_context(QAMProxy(server_id, timeout=LONG, **place))
            transient = stack.enter_context(transient_proxy(server_id, place))
            assert persistent.add(1, 2) == transient.add(1, 2) == 3
            kept: list[Any] = []
            lost: list[Any] = []
            calls(persistent, kept).hold("persistent")
            calls(transient, lost).hold("transient")
            until(lambda: len(service.runs) == 4)
            # when
            rabbitmq_node.close_all_connections("test")
            # then the one ends while it runs
            finish(transient)
            assert len(lost) == 1
            assert_unknown(lost[0])
            # and the other gets its result
            reconnections.wait_for(4)
            reconnections.wait_for(2, of="server")
            assert kept == []
            service.go_on.set()
            finish(persistent)
            assert kept == ["persistent"]
            assert persistent.add(2, 3) == transient.add(2, 3) == 5
            assert sorted(service.runs, key=str).count(("hold", "transient")) == 1
            assert len(lost) == 1

    def test_by_a_broker_that_is_killed_end_what_runs_and_keep_what_was_not_written(
        self, own_node: RabbitMQNode, server_id: str
    ) -> None:
        place: dict[str, Any] = {"hostname": own_node.host, "port": own_node.port}
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place, timeout=LONGER_THAN_A_RESTART) as proxy,
        ):
            outcomes: list[Any] = []
            calls(proxy, outcomes).hold("mine")
            assert service.holding.wait(LONG)
            # when
            own_node.kill()
            finish(proxy)
            assert len(outcomes) == 1
            assert_unknown(outcomes[0])
            threads = (proxy.publisher_thread, proxy.consumer_thread)
            until(lambda: not any(each._connection for each in threads))
            results: list[Any] = []
            for n in range(10):
                calls(proxy, results).add(n, 0)
            own_node.restart()
            # then
            finish(proxy)
            assert sorted(results, key=str) == list(range(10))


@pytest.mark.rabbitmq
class TestALostConnectionOfTheServer:
    def test_has_the_replies_sent_again_that_were_written_to_it(
        self,
        rabbitmq_node: RabbitMQNode,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
    ) -> None:
        routes.lead("server's publisher", way.host, way.port)
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place) as proxy,
        ):
            assert proxy.add("warm", "!") == "warm!"
            # given replies that never arrive, although their requests are acknowledged
            way.stall()
            results: list[Any] = []
            for n in range(20):
                calls(proxy, results).add(n, 0)
            until(lambda: len(service.runs) == 21)
            until(lambda: rabbitmq_node.queues()[f"{server_id}_server_queue"] == 0)
            assert results == []
            # when
            way.cut()
            way.resume()
            # then
            finish(proxy)
            assert sorted(results) == list(range(20))
            assert len(service.runs) == 21

    def test_has_them_sent_again_until_one_lasts(
        self,
        rabbitmq_node: RabbitMQNode,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
    ) -> None:
        routes.lead("server's publisher", way.host, way.port)
        with (
            serving(server_id=server_id, **place) as service,
            transient_proxy(server_id, place) as proxy,
        ):
            assert proxy.add("warm", "!") == "warm!"
            # when three connections are lost with the same reply
            results: list[Any] = []
            for n in range(3):
                cut = way.cut_when(
                    lambda chunk, towards_broker: towards_broker and b"the token!" in chunk
                )
                if n == 0:
                    calls(proxy, results).add("the token", "!")
                assert cut.wait(LONG)
            # then
            finish(proxy)
            assert results == ["the token!"]
            assert service.runs.count(("the token", "!")) == 1

    def test_does_no_harm_where_the_replies_had_arrived(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("server's publisher", way.host, way.port)
        service = Service()
        with make_server(service, server_id=server_id, **place) as server:
            server.start()
            with transient_proxy(server_id, place) as proxy:
                assert [proxy.add(n, 0) for n in range(20)] == list(range(20))
                lost = server._publisher._connection
                # when
                way.cut()
                until(lambda: server._publisher._connection not in (None, lost))
                # then
                assert [proxy.add(n, 1) for n in range(20)] == list(range(1, 21))
                assert len(service.runs) == 40

    def test_for_requests_has_none_run_twice(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("server's consumer", way.host, way.port)
        service = Service()
        with make_server(service, server_id=server_id, **place) as server:
            server.start()
            with transient_proxy(server_id, place) as proxy:
                results: list[Any] = []
                calls(proxy, results).hold("mine")
                assert service.holding.wait(LONG)
                lost = server._consumer._connection
                # when
                way.cut()
                until(lambda: server._consumer._connection not in (None, lost))
                service.go_on.set()
                finish(proxy)
                # then
                assert results == ["mine"]
                assert service.runs == [("hold", "mine")]
                assert proxy.add(2, 3) == 5

    def test_again_as_it_opens_its_channels_costs_no_reply_of_either_kind(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("server's publisher", way.host, way.port)
        with ExitStack() as stack:
            _, service = held_server(stack, server_id, place)
            persistent = stack.enter_context(QAMProxy(server_id, timeout=20, **place))
            transient = stack.enter_context(transient_proxy(server_id, place, timeout=20))
            results: list[Any] = []
            calls(persistent, results).hold(PERSISTENT)
            calls(transient, results).hold(TRANSIENT)
            until(lambda: len(service.runs) == 2)
            # given a connection that is lost, and lost again while it opens
            cut = way.cut_when(
                lambda chunk, towards_broker: towards_broker and CHANNEL_OPEN in chunk
            )
            way.cut()
            service.go_on.set()
            # when
            assert cut.wait(LONG)
            # then
            finish(persistent, transient)
            assert sorted(results, key=str) == [TRANSIENT, PERSISTENT]


def held_server(
    stack: ExitStack, server_id: str, place: dict[str, Any]
) -> tuple[QAMServer, Service]:
    """A server that serves, and its service, whose held methods end with the test."""
    service = Service()
    server = stack.enter_context(make_server(service, server_id=server_id, **place))
    server.start()
    stack.callback(service.go_on.set)
    return server, service


class held_back:  # noqa: N801
    """Meanwhile a server writes no reply, as while the broker has an alarm; then all at once."""

    def __init__(self, server: QAMServer) -> None:
        self._publisher = server._publisher

    def __enter__(self) -> None:
        self._publisher._blocked = True

    def __exit__(self, *exc_info: object) -> None:
        self._publisher._blocked = False
        self._publisher.wake()


@pytest.fixture
def narrow_node(rabbitmq_node: RabbitMQNode) -> Iterator[RabbitMQNode]:
    """The node, which takes small messages only."""
    with rabbitmq_node.settings(max_message_size=1_000_000):
        yield rabbitmq_node


@pytest.mark.rabbitmq
class TestAMessageThatTheBrokerFindsTooLarge:
    def test_ends_its_call_if_it_is_a_request(
        self, narrow_node: RabbitMQNode, server_id: str
    ) -> None:
        place: dict[str, Any] = {"hostname": narrow_node.host, "port": narrow_node.port}
        with (
            serving(server_id=server_id, **place),
            transient_proxy(server_id, place, timeout=20) as proxy,
        ):
            with pytest.raises(QAMConnectionException) as raised:
                proxy.echo("x" * 2_000_000)
            assert_unknown(raised.value)
            assert proxy.add(2, 3) == 5

    def test_is_told_to_its_caller_if_it_is_a_reply(
        self, narrow_node: RabbitMQNode, server_id: str
    ) -> None:
        place: dict[str, Any] = {"hostname": narrow_node.host, "port": narrow_node.port}
        with (
            serving(server_id=server_id, **place),
            transient_proxy(server_id, place, timeout=20) as proxy,
        ):
            with pytest.raises(QAMException) as raised:
                proxy.repeat("x", 2_000_000)
            assert not isinstance(raised.value, QAMTimeoutException)
            assert raised.value.executed != "no"
            assert proxy.add(2, 3) == 5

    def test_takes_no_reply_to_others_with_it(
        self, narrow_node: RabbitMQNode, server_id: str
    ) -> None:
        place: dict[str, Any] = {"hostname": narrow_node.host, "port": narrow_node.port}
        with ExitStack() as stack:
            server, service = held_server(stack, server_id, place)
            greedy = stack.enter_context(transient_proxy(server_id, place, timeout=20))
            transient = stack.enter_context(transient_proxy(server_id, place, timeout=20))
            results: list[Any] = []
            calls(transient, results).hold("small")
            assert service.holding.wait(LONG)
            # when a small reply is written behind a large one
            refused: list[Any] = []
            with held_back(server):
                calls(greedy, refused).repeat("x", 2_000_000)
                until(lambda: len(server._publisher.result_queue) == 1)
                service.go_on.set()
                until(lambda: len(server._publisher.result_queue) == 2)
            finish(greedy, transient)
            # then
            assert results == ["small"]

    def test_is_not_taken_for_that_of_a_persistent_client(
        self, narrow_node: RabbitMQNode, server_id: str
    ) -> None:
        place: dict[str, Any] = {"hostname": narrow_node.host, "port": narrow_node.port}
        with ExitStack() as stack:
            server, service = held_server(stack, server_id, place)
            greedy = stack.enter_context(transient_proxy(server_id, place, timeout=20))
            persistent = stack.enter_context(QAMProxy(server_id, timeout=20, **place))
            results: list[Any] = []
            calls(persistent, results).hold("small")
            assert service.holding.wait(LONG)
            # when a small persistent reply is written together with a large transient one
            refused: list[Any] = []
            with held_back(server):
                calls(greedy, refused).repeat("x", 2_000_000)
                until(lambda: len(server._publisher.result_queue) == 1)
                service.go_on.set()
                until(lambda: len(server._publisher.result_queue) == 2)
            finish(persistent, greedy)
            # then
            assert not any(isinstance(each, QAMSerializationException) for each in results)
            assert results == ["small"]


@pytest.mark.rabbitmq
@pytest.mark.parametrize("persistent", [True, False])
def test_a_reply_that_is_on_a_slow_way_when_its_server_closes_arrives(
    place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes, persistent: bool
) -> None:
    routes.lead("server's publisher", way.host, way.port)
    with ExitStack() as stack:
        server, service = held_server(stack, server_id, place)
        proxy = stack.enter_context(
            transient_proxy(server_id, place, timeout=20, persistent=persistent)
        )
        value = "x" * 12_000_000
        results: list[Any] = []
        calls(proxy, results).hold(value)
        assert service.holding.wait(LONG)
        # given a way that takes four seconds for it
        way.slow(3_000_000, towards_client=False)
        service.go_on.set()
        # when
        server.close(timeout=20)
        # then
        finish(proxy)
        assert [result == value for result in results] == [True], f"{results[0]!r:.200}"


def test_close_ends_the_calls_of_a_transient_proxy_too(
    broker: Broker, server_id: str, service: Service
) -> None:
    outcomes: list[Any] = []
    with QAMProxy(server_id, persistent=False, **broker.kwargs) as proxy:
        calls(proxy, outcomes).hold()
        assert service.holding.wait(LONG)
    assert [outcome.executed for outcome in outcomes] == ["unknown"]
