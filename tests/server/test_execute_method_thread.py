"""The thread that runs methods, with a publisher that keeps what it is given."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from qam._broker.messages import Delivery
from qam._common.job_queue import JobQueue
from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from qam._protocol.entities import reply_routing_key
from qam._protocol.properties import GIVEN_BACK, RUNS
from qam._protocol.replies import (
    METHOD_NOT_FOUND,
    REQUEST_UNREADABLE,
    RESULT_NOT_SERIALIZABLE,
    SERVER_FAILED,
    SERVER_LOST,
)
from qam._serialization.serializers import get_serializer
from qam._server.call import Call
from qam._server.execute_method_thread import ExecuteMethodThread
from qam._server.mailboxes import SettledCalls
from qam._server.messages import Message, Messages
from qam._server.method_registry import MethodRegistry
from qam._server.settings import ServerSettings

log = get_logger("qam.qam_server")

REPLY_TO = reply_routing_key("client")
SETTINGS = ServerSettings("server", get_serializer("json"), max_message_bytes=2000)


class Publisher:
    """Keeps the replies, and how they came."""

    def __init__(self) -> None:
        self.lone: list[Message] = []
        self.queued: list[Message] = []

    def send_lone(self, reply: Message) -> None:
        self.lone.append(reply)

    def add_reply_to_send(self, reply: Message) -> None:
        self.queued.append(reply)


class Server:
    """A worker, and what it works with; it runs until nothing is left to do."""

    def __init__(self, settings: ServerSettings = SETTINGS) -> None:
        self.calls: JobQueue[Call] = JobQueue()
        self.methods = MethodRegistry()
        self.publisher: Any = Publisher()
        self.settled = SettledCalls()
        messages = Messages("server", settings.serializer)
        self.worker = ExecuteMethodThread(
            settings,
            self.calls,
            self.methods,
            messages,
            self.publisher,
            self.settled,
            RareWarnings(log),
            self,
        )
        #: Whether the pool has too many workers.
        self.is_crowded = False

    def dismisses(self, worker: ExecuteMethodThread) -> bool:
        return self.is_crowded

    def one_waits(self) -> AbstractContextManager[None]:
        return nullcontext()

    def work(self, *calls: Call) -> list[Message]:
        """Let it see to *calls*, and end; return the messages that it wants to be sent."""
        for call in calls:
            self.calls.put(call)
        self.calls.close()
        self.worker.run()
        return [*self.publisher.lone, *self.publisher.queued]

    def reply(self, call: Call) -> dict[str, Any]:
        """What the caller of *call* is answered."""
        [message] = self.work(call)
        assert message.call is call
        assert call.answer is not None
        assert (call.answer.body, call.answer.routing_key) == (message.body, REPLY_TO)
        reply: dict[str, Any] = json.loads(message.body)
        return reply


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.methods.add_function(lambda *args: list(args), "echo", idempotent=True)
    yield server
    server.settled.waker.close()


def request(name: str = "echo", *params: Any, properties: Any = None, **body: Any) -> Call:
    """A request that is alone."""
    said = {"id": 7, "method_name": name, "routing_key": REPLY_TO, "params": params, **body}
    came_with = {
        "content_type": "application/json",
        "correlation_id": "client:7",
        "reply_to": REPLY_TO,
        **(properties or {}),
    }
    delivery = Delivery(json.dumps(said).encode(), 1, properties=came_with)
    call = Call(delivery, 1, arrived=time.monotonic())
    call.alone = True
    return call


def test_a_method_is_run_and_its_result_sent(server: Server) -> None:
    call = request("echo", 1, "two")

    reply = server.reply(call)

    assert (reply["id"], reply["result"], reply["exception"]) == (7, [1, "two"], False)
    assert call.seconds is not None
    assert not call.rejected
    assert server.settled.take_all() == []


def test_the_reply_to_a_request_that_is_alone_is_written_at_once(server: Server) -> None:
    server.work(request())
    assert (len(server.publisher.lone), len(server.publisher.queued)) == (1, 0)


def test_a_reply_waits_for_others_where_more_is_to_be_done(server: Server) -> None:
    # given one that came with others, and one behind which another waits
    beside_others, before_another, last = request(), request(), request()
    beside_others.alone = False

    server.work(beside_others, before_another, last)

    assert [message.call for message in server.publisher.queued] == [beside_others, before_another]
    assert [message.call for message in server.publisher.lone] == [last]


def test_a_request_whose_caller_waits_no_more_is_not_run(server: Server) -> None:
    call = request(properties={"expiration": "1000"})
    call.arrived -= 1.0

    assert server.work(call) == []

    assert server.settled.take_all() == [call]
    assert server.settled.waker._awake
    assert call.seconds is None


def test_one_whose_caller_still_waits_is(server: Server) -> None:
    assert server.reply(request(properties={"expiration": "60000"}))["result"] == []


def test_what_a_method_raises_is_answered(server: Server) -> None:
    def fail() -> None:
        raise ValueError("wrong")

    server.methods.add_function(fail)
    call = request("fail")

    reply = server.reply(call)

    assert reply["exception"]
    assert (reply["exception_type"], reply["exception_text"]) == ("builtins.ValueError", "wrong")
    assert "ValueError: wrong" in reply["traceback"]
    assert call.seconds is not None


def test_tracebacks_are_kept_to_itself_where_it_is_told_so() -> None:
    server = Server(ServerSettings("server", SETTINGS.serializer, send_tracebacks=False))

    def fail() -> None:
        raise ValueError("wrong")

    server.methods.add_function(fail)
    assert server.reply(request("fail")).get("traceback") is None
    server.settled.waker.close()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        pytest.param(request("missing"), METHOD_NOT_FOUND, id="missing"),
        pytest.param(request("system.apply", "echo"), REQUEST_UNREADABLE, id="wrong form"),
        pytest.param(
            request("missing", properties={"headers": {RUNS: 2}}), SERVER_LOST, id="a second run"
        ),
    ],
)
def test_what_cant_be_called_is_answered(server: Server, call: Call, code: int) -> None:
    reply = server.reply(call)

    assert reply["internal_exception"] == code
    assert call.seconds is None


class TestARequestThatCantBeRead:
    def test_is_dropped_and_its_caller_told(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        call = request(params="no list")

        reply = server.reply(call)

        assert (reply["id"], reply["internal_exception"]) == (None, REQUEST_UNREADABLE)
        assert call.rejected
        assert "a request was dropped" in caplog.text

    @pytest.mark.parametrize("unknown", ["reply_to", "correlation_id"])
    def test_is_dropped_where_nobody_can_be_told(self, server: Server, unknown: str) -> None:
        delivery = request(params="no list").delivery
        del delivery.properties[unknown]
        call = Call(delivery, connection_number=1)

        assert server.work(call) == []

        assert call.rejected
        assert server.settled.take_all() == [call]


class TestARequestThatIsLost:
    @pytest.fixture
    def call(self) -> Call:
        call = request("echo", 1)
        call.lost = True
        return call

    def test_is_published_anew_if_it_may_run_again(self, server: Server, call: Call) -> None:
        [anew] = server.work(call)

        assert not anew.is_reply
        assert anew.call is call
        assert anew.properties["headers"] == {RUNS: 2}
        assert GIVEN_BACK not in anew.properties["headers"]
        assert call.answer is None

    def test_is_answered_so_if_it_ran_often_enough(self, server: Server, call: Call) -> None:
        call.runs = 3

        reply = server.reply(call)

        assert reply["internal_exception"] == SERVER_LOST
        assert "echo()" in reply["result"]

    def test_is_published_anew_before_that(self, server: Server, call: Call) -> None:
        call.runs = 2
        [anew] = server.work(call)
        assert anew.properties["headers"] == {RUNS: 3}

    def test_is_answered_so_if_it_may_not_run_again(self, server: Server) -> None:
        server.methods.add_function(len)
        call = request("len", [])
        call.lost = True

        assert server.reply(call)["internal_exception"] == SERVER_LOST
        assert call.seconds is None


class TestAResultThatCantBeSent:
    def test_is_told_to_the_caller(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        server.methods.add_function(object, "thing")

        reply = server.reply(request("thing"))

        assert reply["internal_exception"] == RESULT_NOT_SERIALIZABLE
        assert "the result of thing() can't be encoded as json" in reply["result"]
        assert "the result of thing() can't be encoded as json" in caplog.text

    def test_is_told_if_it_is_too_large(self, server: Server) -> None:
        server.methods.add_function(lambda: "x" * 3000, "large")

        reply = server.reply(request("large"))

        assert reply["internal_exception"] == RESULT_NOT_SERIALIZABLE
        assert "more than max_message_bytes=2000" in reply["result"]

    def test_is_shortened_if_it_is_an_exception(self, server: Server) -> None:
        def fail() -> None:
            raise ValueError("x" * 3000)

        server.methods.add_function(fail)

        reply = server.reply(request("fail"))

        assert reply["exception_type"] == "builtins.ValueError"
        assert reply["exception_text"].startswith("xxx")
        assert len(reply["exception_text"]) < 2000


def test_a_bug_in_answering_costs_that_call_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    bugs = [ValueError("bug")]
    original = server.worker._run

    def run(*args: Any) -> Any:
        if bugs:
            raise bugs.pop()
        return original(*args)

    monkeypatch.setattr(server.worker, "_run", run)
    # when
    first, second = server.work(request(), request("echo", 2))
    # then
    codes = [json.loads(each.body)["internal_exception"] for each in (second, first)]
    assert codes == [SERVER_FAILED, -1]
    assert "a request could not be answered" in caplog.text


def test_a_caller_that_cant_even_be_told_of_a_bug_costs_no_worker(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(call: Call) -> None:
        raise ValueError("bug")

    monkeypatch.setattr(server.worker, "_reply_to", fail)
    call = request()

    assert server.work(call) == []

    assert server.settled.take_all() == [call]
    assert "and its caller gets no reply" in caplog.text


def test_it_ends_after_a_call_if_there_are_too_many_workers(server: Server) -> None:
    server.methods.add_function(lambda: None, "method")
    server.is_crowded = True
    waits = request("method")

    server.work(request("method"), waits)

    assert server.calls.take_all() == [waits]
