"""The threads of a server, piece by piece, without a broker."""

import gc
from typing import Any

import pytest

from qam import _messages, _server_publisher
from qam._prefetch import Prefetch
from qam._serialization import get_serializer
from qam._server_calls import Answer, Call, Messages
from qam._server_consumer import RequestConsumerThread
from qam._server_publisher import PublisherThread
from qam._server_workers import _not_run
from qam._wire import RUNS, Delivery, Publish
from qam.amqp_credentials import AMQPCredentials


def call(runs: int = 1, lost: bool = False, number: int = 1) -> Call:
    properties: dict[str, Any] = {"correlation_id": f"c:{number}", "headers": {RUNS: runs}}
    return Call(Delivery(b"", 1, properties=properties), connection_number=1, lost=lost)


@pytest.mark.parametrize(
    ("request_", "may_have_run"),
    [(call(), False), (call(lost=True), True), (call(runs=2), True)],
)
def test_that_no_method_ran_is_said_only_where_it_is_certain(
    request_: Call, may_have_run: bool
) -> None:
    code = _not_run(request_, _messages.METHOD_NOT_FOUND)
    assert code == (_messages.SERVER_LOST if may_have_run else _messages.METHOD_NOT_FOUND)


@pytest.fixture
def messages() -> Messages:
    return Messages("server", get_serializer("json"))


@pytest.fixture
def settled() -> list[Call]:
    return []


@pytest.fixture
def publisher(messages: Messages, settled: list[Call]) -> PublisherThread:
    return PublisherThread(
        AMQPCredentials("memory://nowhere"),
        "server",
        get_serializer("json"),
        messages,
        {},
        settle=settled.append,
        acknowledge=lambda: None,
        ended=lambda error: None,
        connect_timeout=1.0,
    )


@pytest.mark.parametrize("bound", ["_MAX_KEPT", "_MAX_KEPT_BYTES"])
def test_replies_that_nobody_takes_are_kept_within_bounds(
    publisher: PublisherThread,
    messages: Messages,
    settled: list[Call],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    bound: str,
) -> None:
    monkeypatch.setattr(_server_publisher, bound, 3 if bound == "_MAX_KEPT" else 250)
    calls = [call(number=number) for number in range(5)]
    # when
    for each in calls:
        publisher._on_returned(messages.reply(each, Answer("key", b"x" * 100)))
    # then the first are sent again later, the others are dropped, and all are settled
    assert len(publisher._later) == 3
    assert settled == calls
    assert caplog.text.count("could not be delivered") == 2


def test_what_was_sent_again_needs_no_room_any_more(
    publisher: PublisherThread, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_server_publisher, "_FIRST_PAUSE", 0.0)
    publisher._on_returned(messages.reply(call(), Answer("key", b"x" * 100)))
    assert publisher._kept_bytes == 100
    assert len(publisher._take_due()) == 1
    assert publisher._kept_bytes == 0


class Consumer(RequestConsumerThread):
    """One that is not started; what it hands over is kept."""

    def __init__(self, messages: Messages) -> None:
        self.taken: list[Call] = []
        self.published: list[Publish] = []
        super().__init__(
            AMQPCredentials("memory://nowhere"),
            "server",
            Prefetch(1),
            messages,
            {},
            take=self.taken.append,
            take_back=list,
            publish=self.published.append,
            ended=lambda error: None,
            connect_timeout=1.0,
        )

    def replies(self, messages: Messages) -> list[Publish]:
        return [each for each in self.published if messages.is_reply(each)]


@pytest.fixture
def consumer(messages: Messages) -> Consumer:
    return Consumer(messages)


def copy_of(request: Call, redelivered: bool = False) -> Call:
    delivery = Delivery(b"", 2, redelivered, request.delivery.properties)
    return Call(delivery, connection_number=0)


def test_an_unmarked_copy_waits_for_the_verdict_on_the_marked_one(consumer: Consumer) -> None:
    marked = copy_of(call(), redelivered=True)
    consumer._receive(marked)
    # when
    consumer._receive(copy_of(call()))
    # then neither runs before the others were asked
    assert consumer.taken == []
    assert consumer._siblings.is_judging("c:1")


class Recorder:
    """Stands for the connection: notes what is acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def acknowledge(self, tag: int, multiple: bool = False) -> None:
        self.acknowledged.append(tag)


@pytest.mark.parametrize("runs", [1, 2])
def test_what_comes_twice_runs_once_and_is_answered_twice(
    consumer: Consumer, messages: Messages, runs: int
) -> None:
    first = call(runs=runs)
    consumer._receive(first)
    # when it comes again while it runs; from the client always as a first run
    again = copy_of(call())
    if runs > 1:
        consumer._record.begin(call(), first=False)
        consumer._record.end(consumer._record.running["c:1"])
    consumer._receive(again)
    assert consumer.taken == [first]
    # and is answered
    first.answer = Answer("key", b"reply")
    consumer.settle(first)
    consumer._acknowledge(Recorder())  # type: ignore[arg-type]
    # then the copy is too
    [reply] = consumer.replies(messages)
    assert (reply.context, reply.body) == (again, b"reply")
    # and so is one that comes later
    consumer._receive(copy_of(call()))
    assert [each.body for each in consumer.replies(messages)] == [b"reply"] * 2
    assert consumer.taken == [first]


@pytest.mark.parametrize("delivery_mode", [1, 2])
def test_a_request_that_is_settled_is_not_kept_for_its_reply(
    publisher: PublisherThread,
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
        publisher._on_writing([reply])
    else:
        publisher._on_returned(reply)
    assert settled == [request]
    settled.clear()
    del request
    gc.collect()
    # then that is all there is
    assert not [each for each in gc.get_objects() if isinstance(each, Call) and each.key == "c:77"]
