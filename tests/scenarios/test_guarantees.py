"""What a call promises when something fails: the scenarios that have no better place."""

import itertools
import signal
import socket
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import amqp
import pytest

from qam import (
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMProxy,
    QAMServer,
    QAMServerLostException,
    QAMTimeoutException,
)
from qam._server import execute_method_thread
from tests.conftest import Broker
from tests.support.clock import move
from tests.support.forwarder import Forwarder
from tests.support.peer_0_2 import Server02
from tests.support.processes import ServerProcess, read_journal, runs
from tests.support.rabbitmq import RabbitMQNode
from tests.support.routes import Routes
from tests.support.service import Service, make_server, serving
from tests.support.waiting import LONGER_THAN_A_RESTART, finish, until

pytestmark = pytest.mark.rabbitmq


def is_request(chunk: bytes, towards_broker: bool) -> bool:
    return towards_broker and b"the token" in chunk


class TestRequestsThatAreNotConfirmed:
    """Row 6."""

    @pytest.mark.parametrize("arrives", [False, True])
    def test_are_sent_again_and_run_once(
        self,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
        arrives: bool,
    ) -> None:
        routes.lead("client's publisher", way.host, way.port)
        with (
            serving(server_id=server_id, **place) as service,
            QAMProxy(server_id, timeout=60, **place) as proxy,
        ):
            assert proxy.add("warm", "!") == "warm!"
            # given a connection that dies with the request, or with its confirm
            cut = (way.cut_after if arrives else way.cut_when)(is_request)
            # when
            result = proxy.add("the token", "!")
            # then
            assert result == "the token!"
            assert cut.is_set()
            assert Counter(service.runs)["the token", "!"] == 1

    @pytest.mark.parametrize("arrives", [False, True])
    def test_are_unknown_with_a_server_of_the_0_2_series(
        self,
        rabbitmq_node: RabbitMQNode,
        place: dict[str, Any],
        server_id: str,
        way: Forwarder,
        routes: Routes,
        arrives: bool,
    ) -> None:
        routes.lead("client's publisher", way.host, way.port)
        ran: list[str] = []
        noticed = threading.Event()

        def note(text: str) -> None:
            ran.append(text)
            if text == "the token":  # whose reply would end the call as well
                assert noticed.wait(20)

        old = Server02(rabbitmq_node.url, server_id, "pickle", {"note": note})
        try:
            with QAMProxy(server_id, timeout=60, pickle_protocol=2, **place) as proxy:
                proxy.note("warm")
                (way.cut_after if arrives else way.cut_when)(is_request)
                # when
                with pytest.raises(QAMConnectionException, match=r"note\(\) was sent") as raised:
                    proxy.note("the token")
                noticed.set()
                # then
                assert raised.value.executed == "unknown"
                assert not raised.value.safe_to_retry
                proxy.note("later")
            assert ran == ["warm", *["the token"] * arrives, "later"]
        finally:
            old.close()

    def test_are_lost_if_no_record_reaches_back_so_far(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("client's publisher", way.host, way.port)
        with QAMProxy_of(server_id, place) as proxy:
            with serving(server_id=server_id, **place):
                assert proxy.add("warm", "!") == "warm!"
                # given a request that went with its connection
                way.refuse()
                cut = way.cut_when(is_request)
                outcomes: list[Any] = []
                proxy.callback(outcomes.append, outcomes.append).add("the token", "!")
                assert cut.wait(20)
            # when another server has taken the place of the one that might know it
            with serving(server_id=server_id, **place) as successor:
                way.accept()
                finish(proxy)
                # then
                assert [type(outcome) for outcome in outcomes] == [QAMServerLostException]
                assert outcomes[0].executed == "unknown"
                assert successor.runs == []
                assert proxy.add(2, 3) == 5

    def test_are_unknown_for_ever_also_while_they_wait_to_be_sent_again(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("client's publisher", way.host, way.port)
        with (
            serving(server_id=server_id, **place),
            QAMProxy(server_id, timeout=60, **place) as proxy,
        ):
            assert proxy.add("warm", "!") == "warm!"
            way.refuse()
            way.cut_when(is_request)
            # when
            with pytest.raises(QAMTimeoutException, match="no connection to the broker") as raised:
                proxy.set_timeout(0.5).add("the token", "!")
            # then
            assert raised.value.executed == "unknown"
            way.accept()
            assert proxy.add(2, 3) == 5


def QAMProxy_of(server_id: str, place: dict[str, Any]) -> QAMProxy:  # noqa: N802
    """A proxy of a server that is known already."""
    QAMServer(server_id=server_id, **place)
    return QAMProxy(server_id, timeout=60, **place)


class TestAKilledBroker:
    """Row 7."""

    def test_loses_no_request_that_waited_and_runs_none_twice(
        self, own_node: RabbitMQNode, server_id: str
    ) -> None:
        node = own_node
        place: dict[str, Any] = {"hostname": node.host, "port": node.port}
        service = Service()
        with make_server(
            service, server_id=server_id, max_workers=1, prefetch=1, **place
        ) as server:
            server.start()
            with QAMProxy(server_id, timeout=LONGER_THAN_A_RESTART, **place) as proxy:
                # given one that runs, and others of which none was started
                results: list[Any] = []
                for n in range(6):
                    proxy.callback(results.append, results.append).hold(n)
                assert service.holding.wait(20)
                until(lambda: node.queues()[f"{server_id}_server_queue"] == 6)
                # when
                node.restart()
                service.go_on.set()
                finish(proxy)
                # then
                assert sorted(results, key=str) == list(range(6))
                assert sorted(n for _, n in service.runs) == list(range(6))

    def test_loses_no_reply_that_waited(
        self, own_node: RabbitMQNode, server_id: str, routes: Routes
    ) -> None:
        node = own_node
        with Forwarder(node.host, node.port) as way:
            place: dict[str, Any] = {"hostname": node.host, "port": node.port}
            routes.lead("client's consumer", way.host, way.port)
            with (
                serving(server_id=server_id, **place) as service,
                QAMProxy(server_id, timeout=LONGER_THAN_A_RESTART, **place) as proxy,
            ):
                # given a reply that lies in the queue of a client that can't be reached
                way.refuse()
                way.cut()
                results: list[Any] = []
                proxy.callback(results.append, results.append).add(1, 2)
                queue = f"{proxy.consumer_thread.client_id}_client_queue"
                until(lambda: node.queues()[queue] == 1)
                # when
                node.restart()
                way.accept()
                finish(proxy)
                # then
                assert results == [3]
                assert service.runs == [(1, 2)]


class TestAKilledServer:
    """Row 9."""

    def test_has_its_idempotent_methods_run_again_three_times_in_all(
        self, place: dict[str, Any], server_id: str, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        with QAMProxy_of(server_id, place) as proxy:
            outcomes: list[Any] = []
            proxy.callback(outcomes.append, outcomes.append).hold_again("token")
            # when three servers die in the middle
            for times in (1, 2, 3):
                with ServerProcess(server_id, place, journal):
                    until(lambda times=times: runs(journal)["token"] == times)  # type: ignore[misc]
            # then the fourth does not begin
            with ServerProcess(server_id, place, journal):
                finish(proxy)
                assert proxy.add(1, 2) == 3
        assert [type(outcome) for outcome in outcomes] == [QAMServerLostException]
        assert runs(journal)["token"] == 3

    def test_is_told_without_its_callers_waiting_for_their_timeouts(
        self, place: dict[str, Any], server_id: str, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        with QAMProxy_of(server_id, place) as proxy:
            outcomes: list[Any] = []
            with ServerProcess(server_id, place, journal) as server:
                for n in range(5):
                    proxy.callback(outcomes.append, outcomes.append).hold(n)
                until(lambda: len(read_journal(journal)) == 5)
                server.kill()
            with ServerProcess(server_id, place, journal):
                finish(proxy)
        assert [type(outcome) for outcome in outcomes] == [QAMServerLostException] * 5
        assert {outcome.executed for outcome in outcomes} == {"unknown"}
        assert runs(journal).most_common(1)[0][1] == 1

    @pytest.mark.parametrize("is_killed", [True, False])
    def test_is_told_although_another_one_had_a_copy_of_the_request(
        self,
        rabbitmq_node: RabbitMQNode,
        place: dict[str, Any],
        server_id: str,
        tmp_path: Path,
        is_killed: bool,
    ) -> None:
        journal = tmp_path / "journal"
        outcomes: list[Any] = []
        with (
            Forwarder(rabbitmq_node.host, rabbitmq_node.port) as network,
            QAMProxy_of(server_id, place) as proxy,
            ServerProcess(
                server_id, {"hostname": network.host, "port": network.port}, journal
            ) as server,
        ):
            proxy.callback(outcomes.append, outcomes.append).hold("token")
            until(lambda: runs(journal)["token"])
            with make_server(Service(), server_id=server_id, **place) as other:
                other.start()
                # given that the broker delivers the request to another server, which keeps it
                network.cut()
                until(lambda: other._consumer._siblings.held)
                # when
                if is_killed:
                    server.kill()
                else:
                    server.release()
                finish(proxy)
                # then
                until(
                    lambda: other._consumer._intake.is_idle and not other._consumer._siblings.held
                )
        outcome = "QAMServerLostException" if is_killed else "str"
        assert [type(each).__name__ for each in outcomes] == [outcome]
        assert runs(journal)["token"] == 1

    def test_that_stands_still_for_a_while_runs_nothing_twice(
        self, place: dict[str, Any], server_id: str, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        options = {"heartbeat": 1, "max_workers": 1, "prefetch": 4}
        with (
            QAMProxy_of(server_id, place) as proxy,
            ServerProcess(server_id, place, journal, **options) as stopped,
        ):
            outcomes: list[Any] = []
            for n in range(4):
                proxy.callback(outcomes.append, outcomes.append).nap(0.5, n)
            until(lambda: read_journal(journal))
            # when the broker has given it up, and another has judged what it had
            stopped.stop()
            with ServerProcess(server_id, place, journal):
                finish(proxy)
                stopped.resume()
                assert proxy.add(1, 2) == 3
        # then
        assert len(outcomes) == 4
        assert all(isinstance(o, (int, QAMServerLostException)) for o in outcomes)
        assert runs(journal).most_common(1)[0][1] == 1


class TestAServerThatCloses:
    """Row 10."""

    def test_on_sigterm_answers_what_runs_and_leaves_the_rest_to_others(
        self, place: dict[str, Any], server_id: str, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        with QAMProxy_of(server_id, place) as proxy:
            results: list[Any] = []
            with ServerProcess(server_id, place, journal, max_workers=1, prefetch=1) as server:
                for n in range(3):
                    proxy.callback(results.append, results.append).nap(0.5, n)
                until(lambda: read_journal(journal))
                # when it is told to in the middle of the first
                server.terminate()
                assert server.wait() == 0
            # then that one was answered, and nothing was lost
            assert runs(journal)["0"] == 1
            until(lambda: 0 in results)
            with ServerProcess(server_id, place, journal):
                finish(proxy)
        assert sorted(results) == [0, 1, 2]
        assert runs(journal) == {"0": 1, "1": 1, "2": 1}

    def test_on_a_signal_that_it_was_told(self, place: dict[str, Any], server_id: str) -> None:
        before = signal.getsignal(signal.SIGUSR2)
        server = make_server(Service(), server_id=server_id, **place)

        def call_and_signal() -> None:
            with QAMProxy(server_id, timeout=60, **place) as proxy:
                assert proxy.add(1, 2) == 3
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)

        thread = threading.Thread(target=call_and_signal)
        thread.start()
        server.serve(stop_on=[signal.SIGUSR2])
        thread.join()
        assert signal.getsignal(signal.SIGUSR2) is before

    def test_takes_signals_in_the_main_thread_only(
        self, place: dict[str, Any], server_id: str
    ) -> None:
        server = make_server(Service(), server_id=server_id, **place)
        errors: list[ValueError] = []

        def serve() -> None:
            try:
                server.serve(stop_on=[signal.SIGTERM])
            except ValueError as error:
                errors.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        assert "main thread" in str(errors[0])


def test_a_request_that_lay_with_the_server_too_long_is_not_started(
    place: dict[str, Any], server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 4: the server counts the time that a request lies with it."""
    service = Service()
    with make_server(service, server_id=server_id, max_workers=1, prefetch=2, **place) as server:
        server.start()
        with QAMProxy(server_id, **place) as proxy:
            # given one that lies with the server behind another
            results: list[Any] = []
            proxy.callback(results.append).set_timeout(60).hold("first")
            assert service.holding.wait(20)
            proxy.callback(results.append, len).set_timeout(60).hold("second")
            until(lambda: len(server._consumer._intake._record.running) == 2)
            # when its time is up on the clock of the server
            clock = move(monkeypatch, execute_method_thread)
            clock.advance(61)
            service.go_on.set()
            until(lambda: not server._consumer._intake._record.running)
            until(lambda: results)
    # then
    assert results == ["first"]
    assert service.runs == [("hold", "first")]


class TestATimeout:
    """Row 14: says what the call was waiting for."""

    def test_without_a_connection(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("client's publisher", way.host, way.port)
        with QAMProxy_of(server_id, place) as proxy:
            way.refuse()
            way.cut()
            until(lambda: proxy.publisher_thread.publisher is None)
            with pytest.raises(QAMTimeoutException, match=r"add\(\).* 0\.05 s.*no connect") as no:
                proxy.set_timeout(0.05).add(1, 2)
            assert no.value.executed == "no"

    def test_without_a_confirm(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("client's publisher", way.host, way.port)
        with QAMProxy_of(server_id, place) as proxy:
            way.stall()
            with pytest.raises(QAMTimeoutException, match="not confirmed") as unknown:
                proxy.set_timeout(0.2).add(1, 2)
            assert unknown.value.executed == "unknown"
            way.resume()

    def test_without_a_server(self, place: dict[str, Any], server_id: str) -> None:
        with QAMProxy_of(server_id, place) as proxy:
            with pytest.raises(QAMTimeoutException, match="queued or running") as unknown:
                proxy.set_timeout(0.5).add(1, 2)
            assert unknown.value.executed == "unknown"


@pytest.mark.parametrize("connection", ["client's publisher", "client's consumer"])
def test_close_returns_in_time_when_the_broker_is_silent(
    place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes, connection: str
) -> None:
    """Row 15."""
    routes.lead(connection, way.host, way.port)
    outcomes: list[Any] = []
    with serving(server_id=server_id, **place) as service:
        proxy = QAMProxy(server_id, **place)
        uid = proxy.callback(outcomes.append, outcomes.append).hold()
        assert service.holding.wait(20)
        way.stall()
        # when
        started = time.monotonic()
        proxy.close()
        # then
        assert time.monotonic() - started < 6
        assert proxy.get_callback_state(uid) == 2
        assert [type(outcome) for outcome in outcomes] == [QAMClosedException]
        way.resume()


def test_a_method_that_outlasts_the_brokers_patience_is_answered(
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Row 21; since RabbitMQ 4.3 only quorum queues take a request away."""
    quorum = {"x-queue-type": "quorum"}
    with (
        rabbitmq_node.consumer_timeout(0.5),
        serving(server_id=server_id, queue_arguments=quorum, **place) as service,
        QAMProxy(server_id, timeout=120, **place) as proxy,
    ):
        results: list[Any] = []
        proxy.callback(results.append, results.append).hold("long")
        assert service.holding.wait(20)
        # when the broker has taken it away, with channel or consumer, and delivered it again
        until(lambda: "PRECONDITION_FAILED" in caplog.text or "was cancelled" in caplog.text)
        until(lambda: rabbitmq_node.queues()[f"{server_id}_server_queue"] == 0)
        assert proxy.add(1, 2) == 3
        service.go_on.set()
        finish(proxy)
        # then
        assert results == ["long"]
        assert service.runs == [("hold", "long"), (1, 2)]


def test_a_request_that_is_refused_for_itself_fails_and_takes_no_other_with_it(
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Row 22."""
    with (
        rabbitmq_node.settings(max_message_size=1_000_000),
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        assert proxy.add("warm", "!") == "warm!"
        # when it is written together with others
        outcomes: dict[Any, Any] = {}
        with proxy.publisher_thread._queue._lock:
            for n in range(20):
                value = "x" * 2_000_000 if n == 10 else str(n)
                note = [outcomes.__setitem__, n]
                proxy.callback(
                    lambda result, note=note: note[0](note[1], result),
                    lambda error, note=note: note[0](note[1], error),
                ).add(value, "!")
        finish(proxy)
        # then
        refused = outcomes.pop(10)
        assert isinstance(refused, QAMConnectionException)
        assert "2000" in str(refused)
        assert refused.executed != "yes"
        assert outcomes == {n: f"{n}!" for n in range(20) if n != 10}
        # lost with all the others, and then alone
        assert caplog.text.count("connecting again") == 2
        assert Counter(service.runs).most_common(1)[0][1] == 1
        assert proxy.add(1, 2) == 3


def small(kind: str) -> dict[str, Any]:
    """The arguments of a queue that takes two requests, and of quorum a few more."""
    return {"x-queue-type": kind, "x-max-length": 2, "x-overflow": "reject-publish"}


@pytest.mark.parametrize("kind", ["classic", "quorum"])
class TestRequestsThatTheBrokerDoesNotTake:
    def test_are_sent_again_until_it_does(
        self, place: dict[str, Any], server_id: str, kind: str
    ) -> None:
        service = Service()
        with make_server(
            service,
            server_id=server_id,
            max_workers=1,
            prefetch=1,
            queue_arguments=small(kind),
            **place,
        ) as server:
            server.start()
            with QAMProxy(server_id, timeout=60, **place) as proxy:
                assert proxy.add("warm", "!") == "warm!"
                results: list[Any] = []
                numbers = itertools.count()

                def one_more_is_refused() -> bool:
                    proxy.callback(results.append, results.append).hold(next(numbers))
                    return bool(proxy.publisher_thread._later)

                # given a queue that is full, while the server has its hands full
                until(one_more_is_refused)
                # when
                service.go_on.set()
                finish(proxy)
                # then
                assert sorted(results) == list(range(next(numbers)))
                assert Counter(service.runs).most_common(1)[0][1] == 1

    def test_are_unknown_where_the_server_is_not_known(
        self, place: dict[str, Any], server_id: str, kind: str
    ) -> None:
        QAMServer(server_id=server_id, queue_arguments=small(kind), **place)
        with QAMProxy(server_id, timeout=60, **place) as proxy:
            errors: list[QAMException] = []

            def one_more_is_refused() -> bool:
                proxy.callback(len, errors.append).add(1, 2)  # type: ignore[arg-type]
                return bool(errors)

            until(one_more_is_refused)
            assert {error.executed for error in errors} == {"unknown"}
            assert "the broker refused the request" in str(errors[0])


class TestABoundForWhatWaits:
    def test_has_a_caller_wait_for_room(
        self, place: dict[str, Any], server_id: str, way: Forwarder, routes: Routes
    ) -> None:
        routes.lead("client's publisher", way.host, way.port)
        with (
            serving(server_id=server_id, **place),
            QAMProxy(server_id, timeout=60, max_queued=2, **place) as proxy,
        ):
            # given a full queue
            way.refuse()
            way.cut()
            until(lambda: proxy.publisher_thread.publisher is None)
            results: list[Any] = []
            for n in range(2):
                proxy.callback(results.append, results.append).add(n, 0)
            # when nothing moves
            with pytest.raises(QAMTimeoutException) as raised:
                proxy.set_timeout(0.1).add("never", "")
            # then
            assert raised.value.executed == "no"
            # and a callback fails at once
            errors: list[QAMException] = []
            uid = proxy.callback(len, errors.append).add(1, 2)  # type: ignore[arg-type]
            until(lambda: proxy.get_callback_state(uid) == 2)
            assert "max_queued=2" in str(errors[0])
            assert errors[0].executed == "no"
            # and when there is room again, who waits goes on
            callers = [threading.Thread(target=lambda: results.append(proxy.add(5, 5)))]
            callers[0].start()
            way.accept()
            callers[0].join()
            finish(proxy)
            assert sorted(results) == [0, 1, 10]

    def test_does_not_keep_a_caller_when_the_proxy_closes(
        self, broker: Broker, server_id: str
    ) -> None:
        QAMServer(server_id=server_id, **broker.kwargs)
        proxy = QAMProxy(server_id, max_queued=1, **broker.kwargs)
        proxy.publisher_thread._blocked = True
        proxy.callback(len, len).add(1, 2)  # type: ignore[arg-type]
        errors: list[Exception] = []

        def call() -> None:
            try:
                proxy.add(3, 4)
            except QAMClosedException as error:
                errors.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        until(lambda: len(proxy.publisher_thread.results._calls) == 2)
        proxy.close()
        caller.join(20)
        assert len(errors) == 1


class TestSeveralHosts:
    def test_the_first_that_answers_is_taken(self, place: dict[str, Any], server_id: str) -> None:
        hosts = ["127.0.0.1:1", f"{place['hostname']}:{place['port']}"]
        with (
            serving(server_id=server_id, hostname=hosts),
            QAMProxy(server_id, hosts, timeout=60) as proxy,
        ):
            assert proxy.add(1, 2) == 3

    def test_when_one_is_lost_the_next_is_tried(
        self, rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
    ) -> None:
        with (
            serving(server_id=server_id, **place),
            Forwarder(rabbitmq_node.host, rabbitmq_node.port) as one,
            Forwarder(rabbitmq_node.host, rabbitmq_node.port) as other,
            QAMProxy(
                server_id,
                [f"amqp://{one.host}:{one.port}", f"amqp://{other.host}:{other.port}"],
                timeout=60,
            ) as proxy,
        ):
            assert proxy.add(1, 2) == 3
            assert (one.connections, other.connections) == (2, 0)
            one.refuse()
            one.cut()
            assert proxy.add(2, 3) == 5
            until(lambda: other.connections == 2)
            other.cut()
            other.refuse()
            one.accept()
            assert proxy.add(3, 4) == 7

    def test_that_none_answers_is_told(self, server_id: str) -> None:
        with pytest.raises(QAMConnectionException, match="nothing listens"):
            QAMProxy(server_id, ["127.0.0.1:1", "127.0.0.1:2"], connect_timeout=2)


def test_a_reply_whose_client_comes_back_arrives(
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    way: Forwarder,
    routes: Routes,
) -> None:
    """Row 8, with the reply queue gone for a while."""
    routes.lead("client's consumer", way.host, way.port)
    with (
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        assert proxy.add("warm", "!") == "warm!"
        results: list[Any] = []
        proxy.callback(results.append, results.append).hold("mine")
        assert service.holding.wait(20)
        # when the reply finds no queue
        way.refuse()
        way.cut()
        rabbitmq_node.delete_queue(f"{proxy.consumer_thread.client_id}_client_queue")
        service.go_on.set()
        until(lambda: not service_is_busy(rabbitmq_node, server_id))
        way.accept()
        finish(proxy)
        # then
        assert results == ["mine"]
        assert service.runs == [("warm", "!"), ("hold", "mine")]


def test_a_reply_that_is_deleted_with_its_queue_is_asked_for_again(
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    way: Forwarder,
    routes: Routes,
) -> None:
    """Row 8, where only the server's record has the answer."""
    routes.lead("client's consumer", way.host, way.port)
    with (
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        assert proxy.add("warm", "!") == "warm!"
        # given a reply that lies in the queue of a client that can't be reached
        queue = f"{proxy.consumer_thread.client_id}_client_queue"
        until(lambda: rabbitmq_node.queues()[queue] == 0)  # the first one is acknowledged
        way.refuse()
        way.cut()
        results: list[Any] = []
        proxy.callback(results.append, results.append).add("mine", "!")
        until(lambda: rabbitmq_node.queues()[queue] == 1)
        until(lambda: not service_is_busy(rabbitmq_node, server_id))
        # when
        rabbitmq_node.delete_queue(queue)
        way.accept()
        finish(proxy)
        # then
        assert results == ["mine!"]
        assert service.runs == [("warm", "!"), ("mine", "!")]


def service_is_busy(node: RabbitMQNode, server_id: str) -> bool:
    return node.queues()[f"{server_id}_server_queue"] > 0


def test_a_reply_queue_that_expired_in_an_outage_is_noticed(
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    way: Forwarder,
    routes: Routes,
) -> None:
    """Row 8, at the reconnection, with a server that keeps no record."""
    routes.lead("client's consumer", way.host, way.port)
    go_on = threading.Event()
    old = Server02(rabbitmq_node.url, server_id, "pickle", {"hold": lambda: go_on.wait(60)})
    try:
        with QAMProxy(server_id, timeout=60, pickle_protocol=2, **place) as proxy:
            errors: list[Any] = []
            proxy.callback(len, errors.append).hold()
            until(lambda: old.seen)
            way.refuse()
            way.cut()
            until(lambda: proxy.consumer_thread.amqpconn is None)
            rabbitmq_node.delete_queue(f"{proxy.consumer_thread.client_id}_client_queue")
            # when
            way.accept()
            finish(proxy)
            # then
            assert [type(error) for error in errors] == [QAMConnectionException]
            assert errors[0].executed == "unknown"
            assert "reply queue was deleted" in str(errors[0])
            go_on.set()
    finally:
        go_on.set()
        old.close()


class TestCopiesOfARequest:
    """Row 6: whatever comes of them, it runs once."""

    @pytest.mark.parametrize("marks", [(True, False), (False, True), (True, True), (False, False)])
    def test_that_come_at_once_run_once_and_are_answered(
        self, place: dict[str, Any], server_id: str, marks: tuple[bool, bool]
    ) -> None:
        with (
            serving(server_id=server_id, **place) as service,
            QAMProxy(server_id, timeout=60, **place) as proxy,
        ):
            assert proxy.add("warm", "!") == "warm!"
            publisher = proxy.publisher_thread
            # when the same request is written twice, the first time perhaps as the second
            with publisher._loan.in_use, publisher._queue._lock:
                results: list[Any] = []
                publisher._blocked = True
                proxy.callback(results.append, results.append).add("the token", "!")
                publisher._blocked = False
                [call] = publisher.method_queue
                copy = replace(call)
                publisher.method_queue.append(copy)
                for each, marked in zip((call, copy), marks, strict=True):
                    each.times_written, each.written_at = int(marked), time.monotonic()
            finish(proxy)
            until(lambda: Counter(service.runs)["the token", "!"] == 1)
            # then
            assert proxy.add(1, 2) == 3
            assert results == ["the token!"]
            assert Counter(service.runs)["the token", "!"] == 1


def test_confirms_that_come_with_the_end_of_a_connection_count(
    place: dict[str, Any], server_id: str
) -> None:
    service = Service()
    with make_server(service, server_id=server_id, max_workers=2, prefetch=2, **place) as server:
        server.start()
        with QAMProxy(server_id, timeout=60, **place) as proxy:
            assert proxy.add(1, 2) == 3
            # given a connection that ends with the confirm of a reply
            connection = server._publisher._connection
            assert connection is not None
            read = connection.read

            def read_and_die() -> Any:
                events = read()
                if events:
                    connection._events = events  # type: ignore[attr-defined]
                    raise QAMConnectionException("ended by the test")
                return events

            connection.read = read_and_die  # type: ignore[method-assign]
            # when
            assert proxy.add(2, 3) == 5
            # then its request is settled all the same
            until(lambda: not server._consumer._intake._record.running)
            until(lambda: not server._consumer._intake._deliveries)
            assert [proxy.add(n, 0) for n in range(5)] == list(range(5))


def test_a_queue_that_nobody_may_consume_is_not_tried_without_a_pause(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    with make_server(Service(), server_id=server_id, **place) as server:
        # given a connection that is of no use whenever it is opened
        def refuse(connection: Any) -> None:
            tries.append(time.monotonic())
            raise QAMConnectionException("refused by the test")

        tries: list[float] = []
        server._consumer._write = refuse  # type: ignore[method-assign]
        thread = threading.Thread(target=server.start)
        thread.start()
        until(lambda: len(tries) >= 6)
        # then each pause is longer, up to a second
        assert tries[5] - tries[0] > 0.05 * (2 + 4 + 8)
        server._consumer.ask_to_stop()
        thread.join()


def test_the_ghost_of_a_lost_connection_hears_nothing_of_the_siblings(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    with make_server(Service(), server_id=server_id, **place) as server:
        server.start()
        with QAMProxy(server_id, timeout=60, **place) as proxy:
            assert proxy.add(1, 2) == 3
            # given a consumer of its queue that the broker still believes in
            queue = server._consumer._siblings_queue.name
            ghost = amqp.Connection(f"{rabbitmq_node.host}:{rabbitmq_node.port}")
            ghost.connect()
            ghost.channel().basic_consume(queue, no_ack=True)
            # when the server loses its connection
            lost: Any = server._consumer._connection
            lost._transport.sock.shutdown(socket.SHUT_RDWR)
            until(lambda: server._consumer._connection not in (None, lost))
            # then it hears its own hello all the same
            until(lambda: server._consumer._siblings.announced)
            assert proxy.add(2, 3) == 5
            ghost.close()
