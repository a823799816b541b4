"""What becomes of calls when a connection, the broker or a server goes away."""

import logging
import socket
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest

from qam import (
    QAMConnectionException,
    QAMProxy,
    QAMSerializationException,
    QAMServerLostException,
    QAMTimeoutException,
)
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import serving
from tests.support.waiting import until

pytestmark = pytest.mark.rabbitmq


def test_connections_that_are_closed_are_opened_again(
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        serving(server_id=server_id, **place),
        QAMProxy(server_id, timeout=30, **place) as proxy,
        caplog.at_level(logging.INFO, "qam"),
    ):
        assert proxy.add(1, 2) == 3
        # when
        rabbitmq_node.close_all_connections("test")
        # then each of the four says so once, and calls work again
        deadline = time.monotonic() + 60
        while caplog.text.count("connected again") < 4:
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.01)
        assert proxy.add(2, 3) == 5
        assert caplog.text.count("connecting again") == 4


def test_a_call_that_runs_while_its_server_loses_the_connection_is_answered_or_lost(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    with (
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        outcomes: list[Any] = []
        uid = proxy.callback(outcomes.append, outcomes.append).hold("mine")
        assert service.holding.wait(20)
        # when
        rabbitmq_node.close_all_connections("test")
        service.go_on.set()
        while proxy.get_callback_state(uid) != 2:
            time.sleep(0.001)
        # then it ran once, and its caller knows one way or the other
        [outcome] = outcomes
        assert outcome == "mine" or isinstance(outcome, QAMServerLostException)
        assert service.runs == [("hold", "mine")]


def test_calls_while_the_broker_is_down_are_sent_when_it_is_back(
    own_node: RabbitMQNode, server_id: str
) -> None:
    place: dict[str, Any] = {"hostname": own_node.host, "port": own_node.port}
    with serving(server_id=server_id, **place), QAMProxy(server_id, **place) as proxy:
        assert proxy.add(1, 2) == 3
        own_node.kill()
        while proxy.publisher_thread.publisher is not None:
            time.sleep(0.001)
        # when calls come meanwhile
        with pytest.raises(QAMTimeoutException) as raised:
            proxy.set_timeout(0.05).add(0, 0)
        results: list[Any] = []
        uids = [proxy.callback(results.append, results.append).add(n, 0) for n in range(20)]
        own_node.restart()
        for uid in uids:
            while proxy.get_callback_state(uid) != 2:
                time.sleep(0.001)
        # then
        assert raised.value.executed == "no"
        assert sorted(results) == list(range(20))


def test_a_request_whose_confirm_is_lost_ends_as_unknown(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    with (
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        # given a connection that dies as soon as something is written
        connection = proxy.publisher_thread.publisher
        assert connection is not None
        write = connection.write

        def write_and_die(messages: Any) -> None:
            write(messages)
            raise QAMConnectionException("cut by the test")

        connection.write = write_and_die  # type: ignore[method-assign]
        # when
        with pytest.raises(QAMConnectionException, match=r"hold\(\) was sent.*cut by") as raised:
            proxy.hold(1)
        service.go_on.set()
        # then
        assert raised.value.executed == "unknown"
        assert proxy.add(2, 3) == 5


def test_a_deleted_reply_queue_is_declared_again(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    with (
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        assert proxy.add(1, 2) == 3
        consumer = proxy.consumer_thread
        first = consumer.consumer
        outcomes: list[Any] = []
        waiting = proxy.callback(outcomes.append, outcomes.append).hold("mine")
        assert service.holding.wait(20)
        # when
        rabbitmq_node.delete_queue(f"{consumer.client_id}_client_queue")
        while consumer.consumer in (None, first):
            time.sleep(0.001)
        # then the next call works, and the one that waited gets its result too
        assert proxy.add(2, 3) == 5
        service.go_on.set()
        while proxy.get_callback_state(waiting) != 2:
            time.sleep(0.001)
    assert outcomes == ["mine"]
    assert service.runs == [(1, 2), ("hold", "mine"), (2, 3)]


def test_a_call_whose_server_process_is_killed_is_lost_and_not_run_again(
    place: dict[str, Any], server_id: str
) -> None:
    # given a server process in the middle of a method
    code = f"""
        import threading, qam
        server = qam.QAMServer(server_id={server_id!r}, **{place!r})
        @server.register_function
        def hold():
            print("holding", flush=True)
            threading.Event().wait()
        server.serve()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    try:
        outcomes: list[Any] = []
        with serving_exists(place, server_id), QAMProxy(server_id, timeout=60, **place) as proxy:
            uid = proxy.callback(outcomes.append, outcomes.append).hold()
            assert process.stdout is not None
            assert process.stdout.readline() == "holding\n"
            # when
            process.kill()
            process.wait()
            with serving(server_id=server_id, **place) as successor:
                while proxy.get_callback_state(uid) != 2:
                    time.sleep(0.001)
                assert proxy.add(1, 2) == 3
        # then
        assert [type(outcome) for outcome in outcomes] == [QAMServerLostException]
        assert outcomes[0].executed == "unknown"
        assert successor.runs == [(1, 2)]
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def serving_exists(place: dict[str, Any], server_id: str) -> Any:
    """Declare the request queue, so that a call waits for the process that is starting."""
    from qam import QAMServer

    return QAMServer(server_id=server_id, **place)


def test_an_alarm_holds_calls_back_until_it_is_over(
    own_node: RabbitMQNode, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    place: dict[str, Any] = {"hostname": own_node.host, "port": own_node.port}
    with (
        serving(server_id=server_id, **place),
        QAMProxy(server_id, **place) as proxy,
        caplog.at_level(logging.INFO, "qam.qam_proxy"),
    ):
        assert proxy.add(1, 2) == 3
        # given an alarm; the broker says so only to who publishes
        with own_node.memory_alarm():
            first = proxy.callback(len, len).echo("met the alarm")
            while not proxy.publisher_thread._blocked:
                time.sleep(0.001)
            # when
            with pytest.raises(QAMTimeoutException) as raised:
                proxy.set_timeout(0.05).add(1, 1)
            # then
            assert raised.value.executed == "no"
            assert "alarm" in caplog.text
        # and when it is over, calls go on
        while proxy.get_callback_state(first) != 2:
            time.sleep(0.001)
        assert proxy.set_timeout(60).add(2, 3) == 5


def test_close_returns_while_the_broker_has_an_alarm(
    own_node: RabbitMQNode, server_id: str
) -> None:
    place: dict[str, Any] = {"hostname": own_node.host, "port": own_node.port}
    with serving(server_id=server_id, **place), own_node.memory_alarm():
        proxy = QAMProxy(server_id, **place)
        errors: list[Exception] = []
        uid = proxy.callback(len, errors.append).echo("met the alarm")
        while not proxy.publisher_thread._blocked:
            time.sleep(0.001)
        # when
        started = time.monotonic()
        proxy.close()
        # then
        assert time.monotonic() - started < 6
        assert proxy.get_callback_state(uid) == 2


def test_a_peer_that_never_answers_ends_the_constructor_within_its_timeout(server_id: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(QAMConnectionException, match=r"no answer within 0\.3 seconds"):
            QAMProxy(server_id, "127.0.0.1", port=silent.getsockname()[1], connect_timeout=0.3)
        assert time.monotonic() - started < 5


def test_a_peer_that_speaks_no_amqp_is_named_as_such(server_id: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(8)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(QAMConnectionException, match="AMQP"):
            QAMProxy(server_id, "127.0.0.1", port=server.getsockname()[1])
        thread.join()


def test_what_the_broker_finds_too_large_is_told_and_holds_up_nobody(
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given a broker with a small limit, and with frames larger than usual
    with (
        rabbitmq_node.settings(max_message_size=1_000_000, frame_max=1_048_576),
        serving(server_id=server_id, **place) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        # a result in one frame of more than 128 KiB is understood
        assert len(proxy.repeat("x", 500_000)) == 500_000
        # when several results are on their way and one is too large
        results: list[Any] = []
        uids = [proxy.callback(results.append, results.append).hold(n) for n in range(5)]
        while len(service.runs) < 5:
            time.sleep(0.001)
        large = proxy.callback(results.append, results.append).repeat("x", 2_000_000)
        service.go_on.set()
        for uid in (*uids, large):
            while proxy.get_callback_state(uid) != 2:
                time.sleep(0.001)
        # then its caller is told, and all others have theirs
        errors = [result for result in results if isinstance(result, Exception)]
        assert [type(error) for error in errors] == [QAMSerializationException]
        assert errors[0].executed == "yes"
        assert sorted(result for result in results if result not in errors) == list(range(5))
        assert proxy.add(1, 2) == 3
        # and a request that is too large fails, and holds up no other
        with pytest.raises(QAMConnectionException):
            proxy.echo("x" * 2_000_000)
        assert proxy.add(2, 3) == 5
    assert "refuses a reply" in caplog.text


def test_why_the_broker_is_not_reached_is_told_once_and_with_the_timeout(
    own_node: RabbitMQNode, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 5: what waits for the broker, and what there is to mend."""
    with QAMProxy(server_id, own_node.host, own_node.port) as proxy:
        # given a broker that went away
        own_node.kill()
        until(lambda: "trying again" in caplog.text)
        # when a call waits for it in vain, for several attempts
        with pytest.raises(QAMTimeoutException) as raised:
            proxy.set_timeout(2).add(1, 2)
        own_node.start()
    # then
    assert "nothing listens there; is the broker running?" in str(raised.value)
    assert raised.value.executed == "no"
    warnings = [
        (each.threadName, each.getMessage())
        for each in caplog.records
        if each.levelno == logging.WARNING
    ]
    assert sorted(warnings) == sorted(set(warnings))
