"""What reaches a log: printable, in lines of a bounded length, and no password."""

import logging
import pickle
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from qam import AMQPCredentials, QAMConnectionException, QAMProxy, QAMServer
from qam._broker.messages import Route
from qam._common.logs import get_logger, printable_traceback
from qam._protocol.entities import reply_exchange, request_binding
from tests.conftest import Broker
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, make_server, serving
from tests.support.strangers import AnsweredByTheTest, Stranger

HOSTILE = "x\n2026-01-01 00:00:00 ERROR forged\x1b[31m\x00\r\u2028" + "y" * 2000
PICKLE = {"content_type": "application/x-python-serialize"}


class OddError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """All lines that were logged at any level, as a file would have them, once the test is over."""
    logged: list[str] = []
    formatter = logging.Formatter("%(levelname)s %(message)s")
    with caplog.at_level(logging.DEBUG):
        yield logged
    for record in caplog.get_records("call"):
        if record.name.startswith("qam"):
            logged += formatter.format(record).split("\n")
    assert logged, "nothing was logged: nothing is shown by this test"
    for line in logged:
        assert line.isprintable(), line
        assert len(line) < 1500, line
        # a line that looks like a record's first is one of ours
        assert line.startswith(("DEBUG ", "INFO ", "WARNING ", "ERROR ", "    ")), line


def test_a_record_is_made_printable_and_keeps_its_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = get_logger("qam.test")
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        raised = error
        log.exception("a text %s, an error %s, a number %d", HOSTILE, error, 3)

    [record] = caplog.records
    text = logging.Formatter("%(message)s").format(record)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "\\x1b[31m" in text
    assert "a number 3" in text
    assert "test_logs.py" in text
    assert record.exc_info is not None
    assert record.exc_info[1] is raised


def test_an_exception_without_a_text_has_a_traceback_too() -> None:
    assert "OddError" in printable_traceback(OddError())


def test_hostile_names_and_texts_in_requests_are_logged_printable(
    broker: Broker, server_id: str, stranger: Stranger, lines: list[str]
) -> None:
    to_server = request_binding(server_id).route
    valid = {"id": 1, "method_name": HOSTILE, "routing_key": "nobody", "params": ()}

    def raise_it(text: str) -> None:
        raise RuntimeError(text)

    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with make_server(Service(), **kwargs) as server:
        server.register_function(raise_it)
        server.start()
        with QAMProxy(timeout=60, **kwargs) as proxy:
            requests: list[tuple[Any, dict[str, Any]]] = [
                (pickle.dumps(valid), PICKLE),
                (pickle.dumps(valid | {"id": HOSTILE, "params": HOSTILE}), PICKLE),
                (pickle.dumps(valid), {"content_type": "a\n\x1b[31m"}),
                (f"c{HOSTILE[:1]}\x1b[31m\nz\x07\n.".encode(), PICKLE),
                (pickle.dumps(valid | {"routing_key": "b\n\x1b[31m"}), PICKLE),
                (b"\x80\x04" + HOSTILE.encode(), PICKLE | {"correlation_id": "a\n\x1b"}),
            ]
            for body, properties in requests:
                stranger.send(to_server, body, properties)
            assert proxy.add(1, 2) == 3
            with pytest.raises(RuntimeError, match="forged"):
                proxy.raise_it(HOSTILE)
            with pytest.raises(Exception, match="no method"):
                proxy[HOSTILE.replace(".", "")]()


def test_hostile_names_and_texts_in_replies_are_logged_printable(
    broker: Broker, server_id: str, stranger: Stranger, lines: list[str]
) -> None:
    def raise_again(error: Any) -> None:
        raise error

    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with make_server(Service(), **kwargs), QAMProxy(**kwargs) as proxy:
        peer = AnsweredByTheTest(proxy, server_id, stranger, "pickle")
        failed = {"exception": True, "internal_exception": -1, "exception_text": HOSTILE}
        failed |= {"exception_type": HOSTILE, "traceback": HOSTILE, "result": ValueError(HOSTILE)}
        named = b"\x80\x02}X\x06\x00\x00\x00resultca\x1b[31m\nb\x07\n)Rs."
        for body in (pickle.dumps(failed), named, pickle.dumps(failed | {"exception": "yes"})):
            for error_function in (None, raise_again):
                uid = proxy.callback(len, error_function).add(1, 2)
                slot = proxy.callback_observer_thread.get_callback_item(uid)["id"]
                call_id = proxy.consumer_thread.result_list[slot]["call"].call_id
                peer.answer(call_id, body, PICKLE | {"correlation_id": ""})
                while proxy.get_callback_state(uid) != 2:
                    time.sleep(0.001)
        # and of a 0.2.x server, whose body says which call it answers
        key = f"{proxy.consumer_thread.client_id}_client_routing_key"
        for id in (HOSTILE, {"a": [HOSTILE]}, [1]):
            stranger.send(Route(reply_exchange(server_id), key), pickle.dumps({"id": id}), PICKLE)
        assert peer.works()


# --- passwords --------------------------------------------------------------------------


def everything_said_by(error: BaseException | None) -> str:
    """The texts of *error*, and of what led to it."""
    text = ""
    while error is not None:
        text += f"{error!r} {error}\n"
        error = error.__cause__ or error.__context__
    return text


@pytest.mark.parametrize(
    "hostname",
    [
        b"amqp://me:s3cret@host",
        "me:s3cret@host",
        "amqp:/me:s3cret@host",
        "amqp://me:12/s3cret@host",
        "amqp://me:s3/cret@host/",
        "amqp://me:s3cret@host:port/",
        "amqp://me:s3cret@host/?x=1",
        "http://me:s3cret@host/",
    ],
)
def test_a_hostname_that_is_wrong_does_not_show_the_password_in_it(hostname: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        AMQPCredentials(hostname).resolved()
    assert "cret" not in everything_said_by(refused.value)
    if isinstance(hostname, str) and "://" in hostname:
        assert "cret" not in repr(AMQPCredentials(hostname))
        assert "cret" not in str(AMQPCredentials(hostname))


@pytest.mark.parametrize("option", [[("password", "s3cret")], "s3cret", {"keyfile": "k"}])
def test_a_tls_option_that_is_wrong_does_not_show_the_password_in_it(option: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        AMQPCredentials(ssl=option).resolved()
    assert "s3cret" not in everything_said_by(refused.value)


@pytest.mark.rabbitmq
def test_no_password_is_logged_or_shown_from_the_first_connection_to_the_last(
    rabbitmq_node: RabbitMQNode, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    user, password = f"user-{uuid.uuid4().hex}", "s3cret"
    rabbitmq_node.add_user(user, password)
    rabbitmq_node.permit(user, ".*", ".*", ".*")
    address = f"{rabbitmq_node.host}:{rabbitmq_node.port}"
    kwargs: dict[str, Any] = {"hostname": f"amqp://{user}:{password}@{address}//"}
    try:
        with caplog.at_level(logging.DEBUG), serving(server_id=server_id, **kwargs):
            with QAMProxy(server_id, timeout=60, **kwargs) as proxy:
                assert proxy.add(1, 2) == 3
                threads = [proxy.consumer_thread, proxy.publisher_thread]
                shown = [repr(each) for each in (proxy, proxy.amqp_credentials, *threads)]
                # when the connections are lost and opened again
                rabbitmq_node.close_all_connections("test")
                while caplog.text.count("connected again") < 4:
                    time.sleep(0.01)
            # and when the password is wrong
            wrong = kwargs["hostname"].replace(password, "s3cret-no-more")
            with pytest.raises(QAMConnectionException) as refused:
                QAMServer(wrong, server_id=server_id)
    finally:
        rabbitmq_node.delete_user(user)
    assert password not in "".join(shown)
    assert password not in everything_said_by(refused.value)
    assert password not in caplog.text
