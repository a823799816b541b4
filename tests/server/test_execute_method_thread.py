"""The thread that runs methods, with a publisher that keeps what it is given."""

import inspect
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from logging import DEBUG, ERROR
from types import SimpleNamespace
from typing import Any

import pytest

from qam._broker.messages import Delivery
from qam._common import own_threads
from qam._common.job_queue import JobQueue
from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from qam._common.stations import Stations
from qam._protocol.entities import reply_routing_key
from qam._protocol.properties import GIVEN_BACK, ONE_WAY, RUNS, USER
from qam._protocol.replies import (
    METHOD_NOT_FOUND,
    NOT_INTERNAL,
    REQUEST_UNREADABLE,
    RESULT_NOT_SERIALIZABLE,
    SERVER_FAILED,
    SERVER_LOST,
)
from qam._serialization.serializers import get_serializer
from qam._server.call import Call
from qam._server.current_call import current_call
from qam._server.execute_method_thread import ExecuteMethodThread
from qam._server.mailboxes import SettledCalls
from qam._server.messages import Message, Messages
from qam._server.method_registry import MethodRegistry
from qam._server.settings import ServerSettings

log = get_logger("qam.qam_server")

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
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
        #: How many workers wait in calls of their own.
        self.waiting = 0

    def dismisses(self, worker: ExecuteMethodThread) -> bool:
        return self.is_crowded

    @contextmanager
    def one_waits(self) -> Iterator[None]:
        self.waiting += 1
        yield
        self.waiting -= 1

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


@contextmanager
def server_with(**settings: Any) -> Iterator[Server]:
    server = Server(replace(SETTINGS, **settings))
    server.methods.add_function(lambda *args: list(args), "echo", idempotent=True)
    yield server
    server.settled.waker.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with server_with() as server:
        yield server


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


def raising(error: BaseException) -> Callable[[], Any]:
    """A method that raises *error*."""

    def fail() -> None:
        raise error

    return fail


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
    with server_with(send_tracebacks=False) as server:
        server.methods.add_function(raising(ValueError("wrong")), "fail")
        assert server.reply(request("fail")).get("traceback") is None


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

    def test_is_shortened_to_its_type_where_nothing_fits(self) -> None:
        with server_with(max_message_bytes=1) as server:
            server.methods.add_function(raising(ValueError("wrong")), "fail")

            reply = server.reply(request("fail"))

        assert (reply["exception_type"], reply["exception_text"]) == ("builtins.ValueError", "")


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


# --- what a method knows, and what is known while it runs ----------------------------------------


def test_a_method_sees_the_call_that_it_answers_and_nothing_sees_it_later(server: Server) -> None:
    server.methods.add_function(lambda: getattr(current_call(), "id", None), "whose")

    assert server.reply(request("whose"))["result"] == "client:7"

    assert current_call() is None


@pytest.mark.parametrize(("own_user", "seen"), [("servers", "alice"), (None, "servers")])
def test_a_caller_that_another_server_names_is_believed_where_the_own_user_is_known(
    own_user: str | None, seen: str
) -> None:
    call = request("who", properties={"user_id": "servers", "headers": {USER: "alice"}})

    with server_with(user=own_user) as server:
        server.methods.add_function(lambda: getattr(current_call(), "user", None), "who")

        assert server.reply(call)["result"] == seen


def test_user_code_runs_in_it_while_a_method_does_and_at_no_other_time(server: Server) -> None:
    server.methods.add_function(lambda: server.worker.runs_user_code, "method")
    assert not server.worker.runs_user_code

    assert server.reply(request("method"))["result"] is True

    assert not server.worker.runs_user_code


def test_its_pool_knows_when_a_method_waits_for_a_call_of_its_own(server: Server) -> None:
    # given
    def call_another() -> list[int]:
        with own_threads.waiting():
            during = server.waiting
        return [during, server.waiting]

    server.methods.add_function(call_another)
    server.calls.put(request("call_another"))
    server.calls.close()

    # when
    server.worker.start()
    server.worker.join(LONG)

    # then
    [reply] = server.publisher.lone
    assert json.loads(reply.body)["result"] == [1, 0]


def test_a_coroutine_that_a_plain_function_returns_is_an_error_and_is_closed(
    server: Server,
) -> None:
    async def nobody_awaits() -> None: ...

    made = [nobody_awaits()]
    server.methods.add_function(lambda: made[0], "method")

    reply = server.reply(request("method"))

    assert reply["exception_type"] == "builtins.TypeError"
    assert "register the async function itself" in reply["exception_text"]
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


def test_what_an_instance_does_not_have_when_it_is_called_is_no_method(server: Server) -> None:
    instance = SimpleNamespace(add=lambda a, b: a + b, missing=None)
    server.methods.add_instance(instance, "calculator", dynamic=True)

    found, missing = server.work(
        request("calculator.add", 1, 2), request("calculator.subtract", 1, 2)
    )[::-1]

    assert json.loads(found.body)["result"] == 3
    assert json.loads(missing.body)["internal_exception"] == METHOD_NOT_FOUND


def test_middleware_surrounds_the_methods_and_no_method_of_the_server_itself() -> None:
    seen = []

    def notes(call: Any, proceed: Callable[[], Any]) -> Any:
        seen.append(call.method)
        return ["noted", proceed()]

    with server_with(middleware=(notes,)) as server:
        ping, echo = request("system.ping"), request("echo", 1)
        bodies = {each.call: json.loads(each.body) for each in server.work(ping, echo)}

    assert seen == ["echo"]
    assert bodies[echo]["result"] == ["noted", [1]]
    assert not bodies[ping]["exception"]


# --- what a method raises ------------------------------------------------------------------------


class ExitingError(Exception):
    """One whose text ends the process that asks for it."""

    def __str__(self) -> str:
        raise SystemExit(3)


def test_an_error_that_can_hardly_be_shown_is_answered_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with server_with(log_exceptions=False) as server:
        server.methods.add_function(raising(ExitingError("wrong")), "fail")

        reply = server.reply(request("fail"))

    assert reply["exception_type"].endswith(".ExitingError")
    assert (reply["exception_text"], reply["internal_exception"]) == ("wrong", NOT_INTERNAL)
    assert "what fail() raised can't be shown: its class raised a SystemExit" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_a_thread_ends_a_call_alone(
    server: Server, error: type[BaseException]
) -> None:
    server.methods.add_function(raising(error()), "fail")

    failed, answered = server.work(request("fail"), request())[::-1]

    name = f"builtins.{error.__name__}"
    assert json.loads(failed.body)["exception_type"] == name
    assert json.loads(answered.body)["result"] == []


def levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The levels at which it is logged that a method has raised an exception."""
    return [each.levelno for each in caplog.records if "raised an exception" in each.getMessage()]


@pytest.mark.parametrize(
    ("settings", "logged"),
    [
        pytest.param({}, [ERROR], id="as an error"),
        pytest.param({"expected_exceptions": (LookupError,)}, [DEBUG], id="at DEBUG if expected"),
        pytest.param({"log_exceptions": False}, [], id="not at all if not wanted"),
    ],
)
def test_what_a_method_raises_is_logged(
    settings: dict[str, Any], logged: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(DEBUG, log.name)
    with server_with(**settings) as server:
        server.methods.add_function(raising(KeyError("wrong")), "fail")

        assert server.reply(request("fail"))["exception"]

    assert levels(caplog) == logged


@pytest.mark.parametrize(("waits", "level"), [(False, DEBUG), (True, ERROR)])
def test_that_a_method_gives_up_is_no_error_where_nobody_waits(
    server: Server, waits: bool, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(DEBUG, log.name)
    call = request("give_up", properties={"expiration": "60000"})

    def give_up() -> None:
        if not waits:
            call.arrived -= 60.0
        raise CancelledError

    server.methods.add_function(give_up)

    assert server.reply(call)["exception"]

    assert levels(caplog) == [level]


# --- calls that nobody waits for -----------------------------------------------------------------


def test_what_is_raised_after_the_server_has_given_up_is_neither_sent_nor_settled(
    server: Server,
) -> None:
    # given
    given_up, call = request("give_up"), request()

    def give_up() -> None:
        given_up.given_up = True
        raise CancelledError

    server.methods.add_function(give_up)

    # when
    [reply] = server.work(given_up, call)

    # then
    assert reply.call is call
    assert given_up.cut_off
    assert server.settled.take_all() == []


def test_a_method_that_returns_although_the_server_has_given_up_is_answered(
    server: Server,
) -> None:
    call = request("finish")

    def finish() -> str:
        call.given_up = True
        return "done"

    server.methods.add_function(finish)

    assert server.reply(call)["result"] == "done"


class TestACallThatIsSentOneWay:
    def test_is_answered_without_its_result(self, server: Server) -> None:
        reply = server.reply(one_way("echo", 1))
        assert (reply["id"], reply["result"], reply["exception"]) == (7, None, False)

    def test_may_have_a_result_that_cant_be_sent(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.methods.add_function(object, "thing")

        assert server.reply(one_way("thing"))["exception"] is False

        assert caplog.text == ""

    def test_is_logged_if_its_method_does_not_run(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert server.reply(one_way("missing"))["exception"] is False

        assert "missing() was sent one way, and failed: " in caplog.text


def one_way(name: str, *params: Any) -> Call:
    return request(name, *params, properties={"headers": {ONE_WAY: True}})


# --- several calls in one request ----------------------------------------------------------------


def multicall(*names: str, properties: Any = None) -> Call:
    """A request of several calls, each with its number as its argument."""
    arguments = [[[number], {}] for number in range(len(names))]
    return request("system.multicall", names, arguments, properties=properties)


class TestAMulticall:
    def test_is_answered_by_the_reply_of_each(self, server: Server) -> None:
        server.methods.add_function(lambda number: 1 // number, "divide")

        reply = server.reply(multicall("divide", "missing", "echo"))

        failed, missing, echoed = map(json.loads, reply["result"])
        assert (reply["id"], reply["exception"]) == (7, False)
        assert failed["exception_type"] == "builtins.ZeroDivisionError"
        assert missing["internal_exception"] == METHOD_NOT_FOUND
        assert (echoed["result"], echoed["exception"]) == ([2], False)

    def test_is_named_and_timed_as_a_whole(self, server: Server) -> None:
        call = multicall("echo", "missing")

        server.work(call)

        assert call.method_name == "system.multicall"
        assert call.seconds is not None

    def test_runs_each_method_under_its_own_name(self, server: Server) -> None:
        server.methods.add_function(lambda number: getattr(current_call(), "method", None), "named")

        reply = server.reply(multicall("echo", "named"))

        assert json.loads(reply["result"][1])["result"] == "named"

    def test_fails_only_in_part_if_one_result_cant_be_sent(self, server: Server) -> None:
        server.methods.add_function(lambda number: object(), "thing")

        reply = server.reply(multicall("thing", "echo"))

        unsendable, echoed = map(json.loads, reply["result"])
        assert unsendable["internal_exception"] == RESULT_NOT_SERIALIZABLE
        assert "the result of thing()" in unsendable["result"]
        assert echoed["result"] == [1]

    def test_begins_nothing_more_when_the_time_of_its_caller_is_up(self, server: Server) -> None:
        # given
        call = multicall("tarry", "echo", properties={"expiration": "60000"})

        def tarry(number: int) -> str:
            call.arrived -= 60.0
            return "done"

        server.methods.add_function(tarry)

        # when
        reply = server.reply(call)

        # then
        assert [json.loads(each)["result"] for each in reply["result"]] == ["done"]
        assert not call.cut_off

    def test_is_cut_off_if_the_server_gives_up_before_its_end(self, server: Server) -> None:
        # given
        begun, call = [], multicall("begin", "begin")

        def begin(number: int) -> None:
            begun.append(number)
            call.given_up = True

        server.methods.add_function(begin)

        # when
        sent = server.work(call)

        # then
        assert (begun, sent, server.settled.take_all()) == ([0], [], [])

    def test_of_a_wrong_form_is_answered_so(self, server: Server) -> None:
        reply = server.reply(request("system.multicall", ["echo"], []))

        assert reply["internal_exception"] == REQUEST_UNREADABLE
        assert "needs a list of names and a list of arguments" in reply["result"]

    def test_is_run_again_after_a_loss_if_all_its_methods_may(self, server: Server) -> None:
        server.methods.add_function(len)
        again, not_again = multicall("echo", "echo"), multicall("echo", "len")
        again.lost = not_again.lost = True

        messages = {each.call: each for each in server.work(again, not_again)}

        assert not messages[again].is_reply
        answer = json.loads(messages[not_again].body)
        assert answer["internal_exception"] == SERVER_LOST
        assert "system.multicall()" in answer["result"]


# --- what is logged of a call --------------------------------------------------------------------


def test_its_way_is_logged_where_that_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    # given one that is run and one whose time is up
    caplog.set_level(DEBUG, log.name)
    late = request(properties={"expiration": "1000", "correlation_id": "client:8"})
    late.arrived -= 1.0

    # when
    with server_with(stations=Stations(log, clock=lambda: 1.0)) as server:
        server.work(request(), late)

    # then
    assert caplog.messages == [
        "call client:7 of echo(): started",
        "call client:7 of echo(): ended +0.0000 s",
        "call client:8: not started, since its caller waits no more",
    ]


def test_its_way_is_not_noted_where_that_is_not_wanted() -> None:
    stations, late = Stations(log), request(properties={"expiration": "1000"})
    late.arrived -= 1.0

    with server_with(stations=stations) as server:
        server.work(request(), late)

        assert stations.remembered == 0
