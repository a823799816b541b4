"""The threads of a server, piece by piece, without a broker."""

import gc
import json
import time
import weakref
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qam._broker.fates import Fate
from qam._broker.messages import Delivery
from qam._common.job_queue import JobQueue
from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._protocol.entities import reply_routing_key
from qam._protocol.properties import RESENT, RUNS
from qam._protocol.replies import METHOD_NOT_FOUND, SERVER_LOST
from qam._serialization.serializers import get_serializer
from qam._server import dropped_replies, reply_fates
from qam._server.call import Answer, Call, code_if_not_run
from qam._server.execute_method_thread import ExecuteMethodThread
from qam._server.mailboxes import ResultQueue, SettledCalls
from qam._server.messages import Message, Messages
from qam._server.method_registry import MethodRegistry
from qam._server.prefetch import Prefetch
from qam._server.publisher_thread import ReplyPublisherThread
from qam._server.record import Record
from qam._server.request_consumer_thread import RequestConsumerThread
from qam._server.settings import ServerSettings
from qam._server.sibling_words import Word, encode
from qam._server.worker_pool import WorkerPool
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import QAMConnectionException
from tests.support.waiting import until

log = get_logger("qam.qam_server")

REPLY_TO = reply_routing_key("c")
KEY = CallKey(REPLY_TO, "c:1")


def call(runs: int = 1, lost: bool = False, number: int = 1) -> Call:
    properties: dict[str, Any] = {
        "correlation_id": f"c:{number}",
        "reply_to": REPLY_TO,
        "headers": {RUNS: runs},
    }
    made = Call(Delivery(b"", 1, properties=properties), connection_number=1)
    made.lost = lost
    return made


@pytest.mark.parametrize(
    ("request_", "may_have_run"),
    [(call(), False), (call(lost=True), True), (call(runs=2), True)],
)
def test_that_no_method_ran_is_said_only_where_it_is_certain(
    request_: Call, may_have_run: bool
) -> None:
    code = code_if_not_run(request_, METHOD_NOT_FOUND)
    assert code == (SERVER_LOST if may_have_run else METHOD_NOT_FOUND)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"method_name": "echo", "params": ["x" * 1000]}, id="answered"),
        pytest.param({"method_name": "echo", "params": []}, id="raising"),
        pytest.param({"method_name": "nothing", "params": ["x" * 1000]}, id="not found"),
        pytest.param({"method_name": "x" * 1000}, id="unreadable"),
    ],
)
def test_a_worker_that_waits_for_work_keeps_nothing_of_what_it_did(
    messages: Messages, body: dict[str, Any]
) -> None:
    # given a worker, and a request of which only the worker knows
    calls: JobQueue[Call] = JobQueue()
    done: list[weakref.ref[Any]] = []
    methods = MethodRegistry()
    methods.add_function(lambda value: value, "echo")

    class Notes:
        """Takes the replies, and keeps none."""

        def add_reply_to_send(self, reply: Message) -> None:
            done.append(weakref.ref(reply.call))

        send_lone = add_reply_to_send

    worker = ExecuteMethodThread(
        # The log of the test would keep the exceptions that methods raise.
        replace(SETTINGS, log_exceptions=False),
        *(calls, methods, messages, cast(ReplyPublisherThread, Notes())),
        SettledCalls(),
        RareWarnings(log),
        SimpleNamespace(dismisses=lambda worker: False),  # type: ignore[arg-type]
    )
    worker.start()
    # when
    calls.put(request({"id": 1, "routing_key": "key", **body}))
    until(lambda: done)
    # then
    try:
        until(lambda: gc.collect() >= 0 and not any(each() for each in done), "it is kept")
    finally:
        calls.close()
        worker.join()


def test_a_flood_of_unreadable_requests_is_told_a_few_times(
    messages: Messages, caplog: pytest.LogCaptureFixture
) -> None:
    # given a server with two workers
    calls, settled = JobQueue[Call](), SettledCalls()
    publisher = cast(ReplyPublisherThread, None)
    pool = WorkerPool(SETTINGS, calls, MethodRegistry(), messages, publisher, settled)
    for _ in range(2):
        pool.start_worker()
    # when
    flood = [Call(Delivery(b"no request", tag), 1) for tag in range(1, 201)]
    for each in flood:
        calls.put(each)
    calls.close()
    for worker in list(pool):
        worker.join()
    # then
    assert all(each.rejected for each in flood)
    assert len(caplog.messages) == 20
    assert set(caplog.messages) == {caplog.messages[0]}
    assert caplog.messages[0].startswith("a request was dropped: ")


def request(body: dict[str, Any]) -> Call:
    properties = {"content_type": "application/json", "correlation_id": "c:1", "reply_to": "key"}
    return Call(Delivery(json.dumps(body).encode(), 1, properties=properties), connection_number=1)


@pytest.fixture
def messages() -> Messages:
    return Messages("server", get_serializer("json"))


class Settled(SettledCalls):
    """Notes what is put in."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Call] = []

    def put(self, calls: Iterable[Call]) -> None:
        self.noted += calls


@pytest.fixture
def settled_calls() -> Settled:
    return Settled()


@pytest.fixture
def settled(settled_calls: Settled) -> list[Call]:
    return settled_calls.noted


def ignore(error: BaseException | None) -> None:
    pass


CREDENTIALS = AMQPCredentials("memory://nowhere")
SETTINGS = ServerSettings("server", get_serializer("json"), connect_timeout=1.0)


@pytest.fixture
def publisher(settled_calls: Settled) -> ReplyPublisherThread:
    return ReplyPublisherThread(CREDENTIALS, SETTINGS, ResultQueue(), settled_calls, ignore)


@pytest.mark.parametrize("bound", ["_MAX_KEPT", "_MAX_KEPT_BYTES"])
def test_replies_that_nobody_takes_are_kept_within_bounds(
    publisher: ReplyPublisherThread,
    messages: Messages,
    settled: list[Call],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    bound: str,
) -> None:
    monkeypatch.setattr(reply_fates, bound, 3 if bound == "_MAX_KEPT" else 250)
    calls = [call(number=number) for number in range(5)]
    # when
    for each in calls:
        publisher._on_fate(Fate.RETURNED, [messages.reply(each, Answer("key", b"x" * 100))])
    # then the first are sent again later, the others are dropped, and all are settled
    assert len(publisher._later) == 3
    assert settled == calls
    assert caplog.text.count("could not be delivered") == 2


def test_of_many_clients_that_are_gone_only_some_are_told_by_name(
    publisher: ReplyPublisherThread,
    messages: Messages,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(reply_fates, "_MAX_KEPT", 0)
    publisher._under_way.in_flight = 2000
    # when
    for number in range(1000):
        publisher._on_fate(Fate.RETURNED, [messages.reply(call(), Answer(f"key {number}", b""))])
    # then what is kept of them is little
    assert len(publisher._dropped._numbers) == dropped_replies._MAX_CLIENTS + 1
    publisher._under_way.in_flight = 0
    publisher._on_fate(Fate.RETURNED, [messages.reply(call(), Answer("key 1", b""))])
    assert len(caplog.records) == dropped_replies._MAX_CLIENTS + 1
    assert f"{1000 - dropped_replies._MAX_CLIENTS} replies to other clients" in caplog.text


def test_what_was_sent_again_needs_no_room_any_more(
    publisher: ReplyPublisherThread, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_fates, "_FIRST_PAUSE", 1e-9)
    publisher._on_fate(Fate.RETURNED, [messages.reply(call(), Answer("key", b"x" * 100))])
    assert publisher._later.bytes == 100
    assert len(publisher._later.take_due(time.monotonic())) == 1
    assert publisher._later.bytes == 0


def test_a_request_given_back_that_may_have_arrived_is_marked_when_it_is_sent_again(
    publisher: ReplyPublisherThread, messages: Messages
) -> None:
    once = messages.request_anew(call(), now=0.0)
    marked = messages.request_anew(
        Call(Delivery(b"", 1, properties={"headers": {RESENT: 7}}), 1), now=0.0
    )
    reply = messages.reply(call(), Answer("key", b""))

    lost = QAMConnectionException("lost")
    again = publisher._on_fate(Fate.UNKNOWN, [once, marked, reply], lost)

    assert again == [once, marked, reply]
    assert once.properties["headers"][RESENT] == 0
    assert marked.properties["headers"][RESENT] == 7
    assert "headers" not in reply.properties


class Consumer(RequestConsumerThread):
    """One that is not started; what it hands over is kept."""

    def __init__(self, messages: Messages) -> None:
        self.taken: list[Call] = []
        workers: Any = SimpleNamespace(
            put=self.taken.extend, take_back=list, waiting_since=lambda: None, nested=0
        )
        results, settled = ResultQueue(), SettledCalls()
        self.published = results.messages
        super().__init__(
            CREDENTIALS, SETTINGS, Prefetch(1), messages, workers, results, settled, ignore
        )

    def receive(self, request: Call) -> None:
        self._carry_out_one(self._intake.received(request), request)

    def replies(self) -> list[Any]:
        messages: list[Any] = self.published
        return [each for each in messages if each.is_reply]


@pytest.fixture
def consumer(messages: Messages) -> Consumer:
    return Consumer(messages)


def copy_of(request: Call, redelivered: bool = False) -> Call:
    delivery = Delivery(b"", 2, redelivered, request.delivery.properties)
    return Call(delivery, connection_number=0)


def test_an_unmarked_copy_waits_for_the_verdict_on_the_marked_one(consumer: Consumer) -> None:
    marked = copy_of(call(), redelivered=True)
    consumer.receive(marked)
    # when
    consumer.receive(copy_of(call()))
    # then neither runs before the others were asked
    assert consumer.taken == []
    assert consumer._siblings.is_judging(KEY)


@pytest.mark.parametrize(("by_another", "how"), [(False, "ask"), (True, "repeat")])
def test_a_request_that_another_runs_again_is_asked_for_there(
    consumer: Consumer, messages: Messages, by_another: bool, how: str
) -> None:
    # given one that this server had to pass on, for another run
    passed_on = call()
    consumer._intake._begin(passed_on)
    consumer._intake.settled([passed_on])
    # when its client asks for the answer again, here or at another server
    if by_another:
        consumer._siblings._judgement._to_repeat[KEY] = None
        assert consumer._intake.take_to_repeat() == []
    else:
        resent = copy_of(call())
        resent.delivery.properties["headers"] = {RESENT: 1}
        consumer.receive(Call(resent.delivery, connection_number=0))
    # then the one that has the next run is told
    [said] = [json.loads(body) for body in consumer._siblings.take_messages()]
    assert (said["kind"], said["calls"]) == (how, [[REPLY_TO, "c:1", 2, True]])
    assert consumer.replies() == []


class Recorder:
    """Stands for the connection: notes what is acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def acknowledge(self, tag: int, multiple: bool = False) -> None:
        self.acknowledged.append(tag)


class Overtaxed(Consumer):
    """One whose publisher does not keep up."""

    waiting = 10**6

    def __init__(self, messages: Messages) -> None:
        super().__init__(messages)
        overtaxed = self

        class Results(ResultQueue):
            def __len__(self) -> int:
                return overtaxed.waiting

        self._results = Results()
        self.published = self._results.messages


def test_what_others_ask_for_waits_while_the_publisher_does_not_keep_up(
    messages: Messages,
) -> None:
    # given one with an answer, and a publisher with more than enough to do
    consumer = Overtaxed(messages)
    first = call()
    consumer.receive(first)
    first.answer = Answer("key", b"reply")
    consumer._intake._record.end([first])
    connection: Any = Recorder()
    # when a sibling wants it to be sent again, many times
    asked = Word("ask", "x", calls={KEY: True})
    for _ in range(5000):
        consumer._siblings.heard(encode(asked))
    consumer._write(connection)
    # then nothing is added to it, and what waits is bounded
    assert consumer.published == []
    assert consumer._next_due() is not None
    assert len(consumer._siblings._outbox._words) == 1
    # and when it has caught up, the reply is sent once
    consumer.waiting = 0
    consumer._write(connection)
    assert [each.body for each in consumer.replies()] == [b"reply"]
    assert consumer._next_due() is None or not consumer._siblings.has_messages


@pytest.mark.parametrize("runs", [1, 2])
def test_what_comes_twice_runs_once_and_is_answered_twice(
    consumer: Consumer, messages: Messages, runs: int
) -> None:
    first = call(runs=runs)
    consumer.receive(first)
    # when it comes again while it runs; from the client always as a first run
    again = copy_of(call())
    if runs > 1:
        consumer._intake._record.begin(call(), first=False)
        consumer._intake._record.end([consumer._intake._record.running[KEY]])
    consumer.receive(again)
    assert consumer.taken == [first]
    # and is answered
    first.answer = Answer("key", b"reply")
    consumer._settled.put([first])
    consumer._acknowledge(Recorder())  # type: ignore[arg-type]
    # then the copy is too
    [reply] = consumer.replies()
    assert (reply.call, reply.body) == (again, b"reply")
    # and so is one that comes later
    consumer.receive(copy_of(call()))
    assert [each.body for each in consumer.replies()] == [b"reply"] * 2
    assert consumer.taken == [first]


@pytest.mark.parametrize("delivery_mode", [1, 2])
def test_a_request_that_is_settled_is_not_kept_for_its_reply(
    publisher: ReplyPublisherThread,
    messages: Messages,
    settled: list[Call],
    delivery_mode: int,
) -> None:
    # given
    request = call(number=77)
    request.delivery.properties["delivery_mode"] = delivery_mode
    reply = messages.reply(request, Answer("key", b"reply"))
    # when its reply may have to be sent again
    if delivery_mode == 1:
        publisher._on_fate(Fate.WRITTEN, [reply])
    else:
        publisher._on_fate(Fate.RETURNED, [reply])
    assert settled == [request]
    settled.clear()
    del request
    gc.collect()
    # then that is all there is
    key = CallKey(REPLY_TO, "c:77")
    assert not [each for each in gc.get_objects() if isinstance(each, Call) and each.key == key]


def test_a_copy_is_answered_although_the_record_has_no_room_for_the_answer(
    consumer: Consumer, messages: Messages
) -> None:
    consumer._intake._record = Record(max_bytes=3)
    first, again = call(), copy_of(call())
    consumer.receive(first)
    consumer.receive(again)
    # when
    first.answer = Answer("key", b"reply")
    consumer._settled.put([first])
    consumer._acknowledge(Recorder())  # type: ignore[arg-type]
    # then
    assert consumer._intake._record.answer(KEY) is None
    [reply] = consumer.replies()
    assert (reply.call, reply.body) == (again, b"reply")


def test_the_first_reply_wakes_the_publisher_and_those_behind_it_do_not(
    publisher: ReplyPublisherThread, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[int] = []
    monkeypatch.setattr(publisher._waker, "wake", lambda: woken.append(len(publisher.result_queue)))
    for _ in range(2):
        for number in range(3):
            publisher.add_reply_to_send(messages.reply(call(number=number), Answer("key", b"")))
        assert len(publisher._next_batch(alone=False)) == 3

    assert woken == [1, 1]
    assert publisher._next_batch(alone=False) == []


def test_what_is_sent_in_place_of_a_refused_reply_is_the_answer(
    publisher: ReplyPublisherThread, messages: Messages, settled: list[Call]
) -> None:
    request, refused = call(), QAMConnectionException("too large", executed="unknown")
    large = messages.reply(request, Answer("key", b"large"))
    [in_place] = publisher._on_fate(Fate.CULPRIT, [large], refused)
    # then
    assert request.answer == Answer("key", in_place.body)
    assert b"too large" in in_place.body
    # and if that is refused too, there is none
    assert publisher._on_fate(Fate.CULPRIT, [in_place], refused) == []
    assert request.answer is None
    assert settled == [request]
