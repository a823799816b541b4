"""The thread of a server that receives, without a broker: the test says what a broker would do."""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from qam._broker import connection_thread
from qam._broker.events import Cancelled
from qam._broker.messages import Delivery, QueueState, TooLarge
from qam._common.deadline import Deadline
from qam._protocol.correlation import CallKey
from qam._protocol.entities import (
    presence_binding,
    reply_routing_key,
    request_binding,
    siblings_binding,
)
from qam._protocol.properties import GIVEN_BACK
from qam._serialization.serializers import get_serializer
from qam._server import request_consumer_thread
from qam._server.call import Answer, Call
from qam._server.known_siblings import GRACE
from qam._server.mailboxes import ResultQueue, SettledCalls
from qam._server.messages import Messages
from qam._server.open_deliveries import UNSAFE_ACKS
from qam._server.prefetch import Prefetch
from qam._server.request_consumer_thread import RequestConsumerThread
from qam._server.settings import ServerSettings
from qam._server.sibling_words import Word, decode, encode
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import QAMConnectionException
from tests.support.clock import StandingClock, stop
from tests.support.endpoints import endpoint_of
from tests.support.fake_connection import FakeBroker

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
SETTINGS = ServerSettings("server", get_serializer("json"), max_workers=2, max_message_bytes=1000)
QUEUE = request_binding("server").queue
SIBLINGS = siblings_binding("server", "")
PRESENCE = presence_binding("server").queue
REPLY_TO = reply_routing_key("client")


def key(number: int) -> CallKey:
    return CallKey(REPLY_TO, f"client:{number}")


class Workers:
    """Keeps what it is given; the test begins with it, or the consumer takes it back."""

    def __init__(self) -> None:
        self.waiting: list[Call] = []
        #: All that was ever handed over, in its order.
        self.all: list[Call] = []

    def put(self, calls: Sequence[Call]) -> None:
        self.waiting += calls
        self.all += calls

    #: When the oldest one came that has no worker.
    oldest: float | None = None
    #: How many workers wait in calls of their own.
    nested = prefetch = 0
    has_room = False

    def waiting_since(self) -> float | None:
        return self.oldest

    def cancel(self) -> None:
        """There are no coroutines."""

    def take_back(self) -> list[Call]:
        waiting, self.waiting, self.oldest = self.waiting, [], None
        return waiting


class Server:
    """A consumer with a broker that the test leads."""

    def __init__(
        self, clock: StandingClock, results: ResultQueue | None = None, heartbeat: int = 10
    ) -> None:
        self.clock = clock
        self.broker = FakeBroker(clock)
        self.count_servers(1)
        self.workers: Any = Workers()
        self.results = ResultQueue() if results is None else results
        self.settled = SettledCalls()
        #: What it died of, once for each time that it was told so.
        self.ended: list[BaseException | None] = []
        self.prefetch = Prefetch(SETTINGS.max_workers)
        self.consumer = RequestConsumerThread(
            AMQPCredentials("memory://nowhere", heartbeat=heartbeat),
            SETTINGS,
            self.prefetch,
            Messages("server", SETTINGS.serializer),
            self.workers,
            self.results,
            self.settled,
            self.ended.append,
            self.broker.connect,
        )
        self._tags = 0
        #: What it said to the others.
        self.said: list[Word] = []

    def serve(self) -> None:
        """Let it hear what it says itself, until it takes requests."""
        self.broker.run(self.consumer)
        self.echo()
        self.broker.queue_states[QUEUE] = QueueState(0, 1)
        assert self.consumer.taking.is_set()

    def count_servers(self, number: int) -> None:
        """So many servers are there, this one included."""
        self.broker.queue_states[PRESENCE] = QueueState(0, number)

    # --- what the others of its id say ----------------------------------------------

    def take_words(self) -> list[Word]:
        """Take out what it says to the others; what else it sends stays."""
        said = [each for each in self.results.messages if each.route == SIBLINGS.route]
        self.results.messages[:] = [each for each in self.results.messages if each not in said]
        words = [word for each in said if (word := decode(each.body))]
        for word in words:
            if word.kind == "hello":
                self.settled.announce(word.number)
        self.said += words
        return words

    def echo(self) -> list[Word]:
        """Let it hear what it says itself, as long as it says anything; return that."""
        words: list[Word] = []
        while new := self.take_words():
            for word in new:
                self.hear(word)
            words += new
        return words

    def hear(self, word: Word | bytes) -> None:
        """Something is said to all servers of the id."""
        body = encode(word) if isinstance(word, Word) else word
        self.receive(Delivery(body, self._tag(), consumer_tag=self.broker.tag(SIBLINGS.queue)))

    # --- requests ---------------------------------------------------------------------

    def _tag(self) -> int:
        self._tags += 1
        return self._tags

    def request(self, number: int, redelivered: bool = False, **headers: Any) -> Delivery:
        """A request of the client's."""
        properties = {
            "correlation_id": f"client:{number}",
            "reply_to": REPLY_TO,
            "headers": {
                f"x-qam-{name.replace('_', '-')}": value for name, value in headers.items()
            },
        }
        tag = self.broker.tag(QUEUE)
        return Delivery(b"{}", self._tag(), redelivered, properties, consumer_tag=tag)

    def receive(self, *events: Any) -> None:
        """The broker delivers something, all at once."""
        self.broker.connection.send(*events)
        self.broker.settle()

    def run(self, number: int, **how: Any) -> Call:
        """A request comes, and a worker begins with it."""
        self.receive(self.request(number, **how))
        call: Call = self.workers.waiting.pop()
        return call

    def answer(self, *calls: Call, seconds: float = 1.0) -> None:
        """The replies of *calls* are confirmed, and the publisher says so."""
        for call in calls:
            call.answer = Answer(REPLY_TO, b"done")
            call.seconds = seconds
        self.settle(*calls)

    def settle(self, *calls: Call) -> None:
        self.settled.put(calls)
        self.settled.waker.wake()
        self.broker.settle()

    def replies(self) -> list[Any]:
        """The replies that it wants to be sent."""
        messages: list[Any] = self.results.messages
        return [each for each in messages if each.is_reply]

    def given_back(self) -> list[Any]:
        """The requests that it wants to be sent."""
        route = request_binding("server").route
        return [each for each in self.results.messages if each.route == route]

    # --- the connection ------------------------------------------------------------------

    def lose(self, error: QAMConnectionException | None = None) -> None:
        self.broker.connection.lose(error)
        self.broker.settle()

    def reconnect(self) -> None:
        """The connection is lost, another one is opened, and requests are taken again."""
        self.lose()
        self._tags = 0
        self.echo()

    @property
    def acknowledged(self) -> list[tuple[int, bool]]:
        return self.broker.connection.acknowledged

    def is_acknowledged(self, delivery: Delivery) -> bool:
        """Whether the broker may forget *delivery*, of the connection that there is."""
        tag = delivery.delivery_tag
        return any(each == tag or (multiple and each > tag) for each, multiple in self.acknowledged)

    def close(self, timeout: float | None = 10.0) -> None:
        """Begin to close; the deadline is on the clock of the test."""
        deadline = Deadline(timeout)
        if timeout is not None:
            deadline.at = self.clock.now + timeout
        self.consumer.begin_to_close(deadline)
        self.broker.settle()

    @property
    def is_alive(self) -> bool:
        self.broker.settle()
        return self.consumer.is_alive()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandingClock:
    return stop(monkeypatch, connection_thread, request_consumer_thread)


@pytest.fixture
def starting(clock: StandingClock) -> Iterator[Server]:
    """One that is connected, and has not heard its own hello."""
    server = Server(clock)
    server.broker.run(server.consumer)
    yield server
    server.broker.end()
    server.results.waker.close()


@pytest.fixture
def server(starting: Server) -> Server:
    """One that takes requests, and is alone."""
    starting.echo()
    starting.broker.queue_states[QUEUE] = QueueState(0, 1)
    starting.acknowledged.clear()
    return starting


def other(kind: str, **more: Any) -> Word:
    """What another server of the id says, whose name comes after this one's."""
    return Word(kind, "zzz", **{"consumes": True, **more})


# --- it begins ---------------------------------------------------------------


def test_it_takes_no_request_before_all_others_can_have_heard_of_it(starting: Server) -> None:
    assert starting.broker.connection.did("declare queue")[0] == QUEUE
    siblings_queue, presence = starting.broker.connection.did("consume")
    assert presence == PRESENCE
    assert siblings_queue.startswith(SIBLINGS.queue)
    assert not starting.consumer.taking.is_set()
    # when it hears its own hello
    [hello] = starting.results.messages
    starting.hear(hello.body)
    # then another server may still miss it, since a broker that is killed would lose it
    assert not starting.consumer.taking.is_set()
    # when the broker confirms it
    [word] = starting.take_words()
    assert (word.kind, word.number) == ("hello", 1)
    starting.broker.settle()
    # then it looks who else consumes before it does so, and whether the queue counts itself
    asked = [each for each in starting.broker.connection.asked if each[1] == QUEUE]
    assert asked[-3:] == [("inspect", QUEUE), ("consume", QUEUE), ("inspect", QUEUE)]
    assert starting.broker.consumed[-1] == (QUEUE, 2, 0)
    assert starting.consumer.taking.is_set()
    assert [(word.kind, word.consumes) for word in starting.take_words()] == [("here", True)]


def test_while_nothing_happens_it_declares_again_now_and_then_and_does_not_wake_else(
    server: Server,
) -> None:
    waits = server.broker.connection.waits
    declared = len(server.broker.connection.did("declare exchange"))
    wait_time = server.broker.connection.wait_time
    assert wait_time is not None
    assert wait_time == pytest.approx(45.0, rel=0.2)

    server.broker.let_pass(wait_time + 0.01)

    assert server.broker.connection.waits == waits + 1
    assert len(server.broker.connection.did("declare exchange")) > declared
    assert server.broker.connection.wait_time == pytest.approx(45.0, rel=0.2)


def test_it_inspects_the_queue_now_and_then_while_there_are_others(server: Server) -> None:
    server.hear(other("hello", number=1))
    server.broker.queue_states[QUEUE] = QueueState(0, 2)
    server.count_servers(2)
    server.echo()
    server.broker.let_pass(1.0)
    before = server.broker.connection.did("inspect").count(QUEUE)
    wait_time = server.broker.connection.wait_time
    assert wait_time is not None
    # when
    for _ in range(3):
        server.broker.let_pass(10.0)
    # then
    assert 5.0 < wait_time <= 10.0
    assert server.broker.connection.did("inspect").count(QUEUE) == before + 3


def test_a_queue_that_is_not_there_any_more_is_declared_again(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.broker.queue_states[QUEUE] = None
    server.hear(other("hello", number=1))
    server.broker.let_pass(1.0)

    assert "the request queue of 'server' was deleted" in caplog.text
    assert len(server.broker.connections) > 1


def test_the_queue_by_which_servers_are_counted_is_declared_again_if_it_is_deleted(
    server: Server,
) -> None:
    server.receive(Cancelled(server.broker.tag(PRESENCE)))
    assert len(server.broker.connections) == 2
    assert PRESENCE in server.broker.connection.did("consume")


def test_what_somebody_sends_to_that_queue_is_no_request(server: Server) -> None:
    server.receive(Delivery(b"{}", 1, consumer_tag=server.broker.tag(PRESENCE)))
    assert server.workers.waiting == []


def test_what_came_before_it_saw_the_queue_empty_may_have_been_anybodys(starting: Server) -> None:
    # given a newcomer that finds requests, of which a server may have died
    starting.broker.queue_states[QUEUE] = QueueState(1, 1)
    starting.echo()
    # when the last one is delivered while it looks at the queue, which is empty then
    starting.broker.queue_states[QUEUE] = QueueState(0, 1)
    starting.broker.connection.comes_with_inspection = [starting.request(1, redelivered=True)]
    starting.broker.let_pass(1.0)
    starting.echo()
    assert starting.consumer._siblings.vouches
    # then that does not run
    starting.broker.let_pass(GRACE + 0.1)
    [call] = starting.workers.waiting
    assert call.lost


# --- requests come -----------------------------------------------------------


def test_a_request_is_handed_to_a_worker(server: Server) -> None:
    server.receive(server.request(1))

    [call] = server.workers.waiting
    assert call.key == key(1)
    assert call.alone
    assert call.arrived == server.clock.now


def test_what_comes_together_comes_at_one_time_and_is_not_alone(server: Server) -> None:
    server.receive(*[server.request(number) for number in range(3)])

    assert [call.key for call in server.workers.waiting] == [key(0), key(1), key(2)]
    assert [call.alone for call in server.workers.waiting] == [False] * 3


def test_a_request_is_acknowledged_when_it_is_answered_and_not_before(server: Server) -> None:
    first, second, third = (server.run(number) for number in range(3))
    tags = [call.delivery.delivery_tag for call in (first, second, third)]
    # when one behind the first is answered
    server.answer(second)
    assert server.acknowledged == [(tags[1], False)]
    # and when the first is, too
    server.answer(first)
    # then one acknowledgement is for all up to it
    assert server.acknowledged[1:] == [(tags[0], True)]
    server.answer(third)
    assert server.acknowledged[2:] == [(tags[2], True)]


def test_it_asks_for_more_requests_at_once_while_methods_are_short(server: Server) -> None:
    # given methods that take no time
    server.broker.queue_states[QUEUE] = QueueState(0, 1)
    before = server.broker.tag(QUEUE)
    for number in range(40):
        server.answer(server.run(number), seconds=0.0)
    # then the consumer was replaced by one that holds more, the new one first
    assert server.broker.consumed[-1] == (QUEUE, 256, 0)
    assert server.broker.connection.asked[-2:] == [("consume", QUEUE), ("cancel", before)]
    # and one that is woken for settled calls only when many are
    server.run(41)
    server.settled.put([server.workers.all[-1]])
    assert not server.settled.waker._awake


def test_a_request_that_is_too_large_is_refused_and_its_delivery_dropped(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    request = server.request(1)
    request.body, request.too_large = b"", TooLarge(2000, 1000)
    # when
    server.receive(request)
    # then its caller is told
    [reply] = server.replies()
    assert b"the request has 2000 bytes" in reply.body
    assert "a request was rejected: it has 2000 bytes" in caplog.text
    assert server.workers.all == []
    # and when that is confirmed the broker drops it
    server.settle(reply.call)
    assert server.broker.connection.rejected == [request.delivery_tag]
    assert server.acknowledged == []


def test_one_whose_caller_cant_be_told_is_dropped_although_nothing_else_happens(
    server: Server,
) -> None:
    request = server.request(1)
    request.body, request.too_large = b"", TooLarge(2000, 1000)
    del request.properties["reply_to"]

    server.receive(request)

    assert server.replies() == []
    assert server.broker.connection.rejected == [request.delivery_tag]


def test_a_copy_that_comes_while_the_first_runs_gets_its_answer(server: Server) -> None:
    first = server.run(1)
    server.receive(server.request(1, resent=5))
    assert server.workers.all == [first]

    server.answer(first)

    [reply] = server.replies()
    assert reply.body == b"done"
    assert reply.call is not first


def stations(caplog: pytest.LogCaptureFixture, number: int) -> list[str]:
    """What the log says of a request of the client's."""
    return re.findall(rf"call client:{number}: (\w+)", caplog.text)


def test_the_stations_of_a_request_are_told_to_who_looks_for_them(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "qam.qam_server")
    server.answer(server.run(1))
    # when another is too large
    request = server.request(2)
    request.body, request.too_large = b"", TooLarge(2000, 1000)
    server.receive(request)
    server.settle(server.replies()[-1].call)
    # and one is answered after its connection was lost
    call = server.run(3)
    server.reconnect()
    server.answer(call)
    # then
    assert stations(caplog, 1) == ["received", "acknowledged"]
    assert stations(caplog, 2) == ["received", "rejected"]
    assert stations(caplog, 3) == ["received"]
    assert server.consumer.stations.remembered == 1


def test_no_station_of_a_request_is_noted_where_nobody_looks_for_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[Any] = []
    monkeypatch.setattr(server.consumer.stations, "note", lambda *args, **more: noted.append(args))

    server.answer(server.run(1))

    assert server.acknowledged
    assert noted == []


@pytest.mark.parametrize("is_there", [True, False])
def test_a_consumer_that_ends_says_whether_its_queue_is_there(
    server: Server, is_there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Only if it is, a method may have run too long for the broker."""
    if not is_there:
        del server.broker.queue_states[QUEUE]
    server.receive(Cancelled(server.broker.tag(QUEUE)))

    assert ("consumer_timeout" in caplog.text) == is_there
    assert ("was deleted" in caplog.text) != is_there
    server.echo()


@pytest.mark.parametrize("queue", [QUEUE, SIBLINGS.queue])
def test_a_consumer_that_the_broker_ends_has_the_connection_opened_again(
    server: Server, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.receive(Cancelled(server.broker.tag(queue)))

    assert len(server.broker.connections) == 2
    assert ("request queue" if queue == QUEUE else "siblings") in caplog.text
    server.echo()
    assert server.broker.consumed[-1][0] == QUEUE


def test_requests_that_come_together_are_handed_over_together(server: Server) -> None:
    server.receive(*(server.request(number) for number in range(3)))

    assert [call.key for call in server.workers.all] == [key(number) for number in range(3)]


@pytest.mark.parametrize(
    ("together", "seconds"), [(1, 0), (2, 0), (3, 0.000_15), (20, 0.001), (256, 0.002)]
)
def test_only_after_several_requests_those_behind_them_wait_to_be_read_together(
    server: Server, together: int, seconds: float
) -> None:
    server.receive(*(server.request(number) for number in range(together)))

    assert server.consumer._read_delay() == pytest.approx(seconds)

    # but what comes after a read that brought nothing is read at once
    server.consumer.wake()
    server.broker.settle()
    assert server.consumer._read_delay() == 0


def test_a_request_that_comes_just_before_its_consumer_ends_is_handed_over(server: Server) -> None:
    server.receive(server.request(1), Cancelled(server.broker.tag(QUEUE)))

    assert [call.key for call in server.workers.all] == [key(1)]


# --- a lost connection -------------------------------------------------------


def test_after_a_loss_with_busy_workers_and_more_prefetched_each_runs_once(server: Server) -> None:
    # given one that runs, and two that wait for a worker
    runs = server.run(1)
    server.receive(server.request(2), server.request(3))
    assert len(server.workers.waiting) == 2
    # when
    server.reconnect()
    # then those that wait are void, and what the broker delivers again of them runs
    assert server.workers.waiting == []
    copies = [server.request(number, redelivered=True) for number in (1, 2, 3)]
    server.receive(*copies)
    server.echo()
    assert [call.key for call in server.workers.waiting] == [key(2), key(3)]
    assert not any(call.lost for call in server.workers.waiting)
    # and what ran all the time does not run again, and is answered once for each delivery
    server.answer(runs)
    [reply] = server.replies()
    assert (reply.call.delivery, reply.body) == (copies[0], b"done")
    # and all of the new connection are acknowledged, and none of the old one
    assert not any(server.is_acknowledged(copy) for copy in copies)
    server.answer(*server.workers.waiting)
    assert [server.is_acknowledged(copy) for copy in copies] == [False, True, True]
    server.settle(reply.call)
    assert server.is_acknowledged(copies[0])


def test_what_another_connection_brought_is_not_acknowledged(server: Server) -> None:
    call = server.run(1)
    server.reconnect()
    server.acknowledged.clear()

    server.answer(call)

    assert server.acknowledged == []


def test_requests_are_taken_again_only_when_it_has_heard_itself_again(server: Server) -> None:
    server.lose()
    assert len(server.broker.connections) == 2
    assert QUEUE not in server.broker.connection.did("consume")

    server.echo()

    assert QUEUE in server.broker.connection.did("consume")
    # with the queue of the siblings read in place of whoever is still served
    priorities = [
        priority for name, _, priority in server.broker.consumed if name not in (QUEUE, PRESENCE)
    ]
    assert priorities == [1, 2]


def test_a_method_that_outlives_its_delivery_has_its_copy_acknowledged_at_once(
    server: Server,
) -> None:
    # given a broker that closes the channel because a method takes too long
    server.run(1)
    error = QAMConnectionException("consumer timeout")
    error.by_message = True
    server.lose(error)
    server._tags = 0
    server.echo()
    # when
    copy = server.request(1, redelivered=True)
    server.receive(copy)
    # then
    assert server.acknowledged[-1][0] == copy.delivery_tag
    assert len(server.workers.all) == 1


@pytest.mark.parametrize(("heartbeat", "unsafe"), [(1, UNSAFE_ACKS), (10, 30.0)])
def test_a_request_is_known_again_until_a_dead_connection_would_have_been_noticed(
    clock: StandingClock, heartbeat: int, unsafe: float
) -> None:
    # given a client that is no proxy, and uses its keys again
    server = Server(clock, heartbeat=heartbeat)
    server.serve()

    def copy(redelivered: bool) -> Delivery:
        request = server.request(1, redelivered)
        request.properties |= {"correlation_id": "1", "reply_to": "its queue"}
        return request

    server.receive(copy(redelivered=False))
    server.answer(server.workers.waiting.pop())
    # when the broker delivers it again, since it may lack the ack
    server.broker.let_pass(unsafe)
    server.receive(copy(redelivered=True))
    # then it is answered from the record
    assert len(server.replies()) == 1
    # and what comes later is another one, about which the others are asked
    server.settle(server.replies()[0].call)
    server.broker.let_pass(unsafe + 0.1)
    server.receive(copy(redelivered=True))
    assert len(server.replies()) == 1
    assert [word.kind for word in server.take_words()] == ["ask"]
    server.broker.end()
    server.results.waker.close()


# --- more requests than workers ----------------------------------------------


class TestMoreThanItCanStart:
    @staticmethod
    def hold(server: Server) -> list[Call]:
        """One runs, and two wait for a worker from now on."""
        server.run(1)
        server.workers.oldest = server.clock.now
        for number in (2, 3):
            server.receive(server.request(number))
        assert server.workers.all[1:] == server.workers.waiting
        return list(server.workers.waiting)

    def test_is_left_to_a_server_that_can(self, server: Server, clock: StandingClock) -> None:
        # given another server that takes requests
        server.hear(other("here"))
        self.hold(server)
        assert server.given_back() == []
        # when
        server.broker.let_pass(1.0)
        # then they are published anew, and no others are taken
        correlation_ids = [each.properties["correlation_id"] for each in server.given_back()]
        assert correlation_ids == ["client:2", "client:3"]
        assert server.workers.waiting == []
        assert server.broker.connection.did("cancel")
        assert [word.consumes for word in server.take_words()][-1:] == [False]
        # until there is a free worker
        consumed = server.broker.connection.did("consume").count(QUEUE)
        server.workers.oldest = None
        server.broker.let_pass(5.0)
        assert server.broker.connection.did("consume").count(QUEUE) == consumed
        server.workers.has_room = True
        server.consumer.wake()
        server.broker.settle()
        assert server.broker.connection.did("consume").count(QUEUE) == consumed + 1
        assert [word.consumes for word in server.take_words()][-1:] == [True]

    def test_is_left_too_if_it_comes_while_the_server_stops_taking_more(
        self, server: Server, clock: StandingClock
    ) -> None:
        server.hear(other("here"))
        self.hold(server)
        server.broker.let_pass(1.01)
        assert len(server.given_back()) == 2
        # when one was delivered before the broker had the cancel
        server.receive(server.request(4))
        server.workers.oldest = clock.now
        server.broker.let_pass(1.01)
        # then
        assert [each.properties["correlation_id"] for each in server.given_back()][2:] == [
            "client:4"
        ]

    def test_looks_for_a_free_worker_while_it_stands_back(self, server: Server) -> None:
        server.hear(other("here"))
        self.hold(server)
        server.broker.let_pass(1.01)
        server.hear(other("bye"))
        server.workers.oldest = None
        # when a worker becomes free, which says nothing
        server.workers.has_room = True
        consumed = server.broker.connection.did("consume").count(QUEUE)
        server.broker.let_pass(0.3)
        assert server.broker.connection.did("consume").count(QUEUE) == consumed + 1

    def test_waits_if_there_is_no_other_server(self, server: Server) -> None:
        waiting = self.hold(server)
        assert server.broker.connection.wait_time == 1.0
        server.broker.let_pass(0.5)
        server.consumer.wake()
        server.broker.settle()
        assert server.broker.connection.wait_time == 0.5
        server.broker.let_pass(60.0)
        assert server.given_back() == []
        assert server.workers.waiting == waiting
        assert not server.broker.connection.did("cancel")

    def test_waits_if_the_other_one_takes_no_requests(self, server: Server) -> None:
        server.hear(other("here", consumes=False))
        waiting = self.hold(server)
        server.broker.let_pass(1.01)
        assert server.given_back() == []
        assert server.workers.waiting == waiting

    def test_is_looked_at_now_and_then_while_nobody_can_take_it(self, server: Server) -> None:
        waiting = self.hold(server)
        server.broker.let_pass(1.0)
        # when another server begins to take requests
        server.hear(other("here"))
        server.broker.let_pass(9.9)
        assert server.workers.waiting == waiting
        server.broker.let_pass(0.1)
        # then it is left to that one
        assert len(server.given_back()) == 2

    def test_is_left_to_others_once_while_no_worker_is_free(self, server: Server) -> None:
        server.hear(other("here"))
        self.hold(server)
        server.receive(server.request(4, given_back=True))
        server.broker.let_pass(1.0)
        server.echo()
        given_back = server.given_back()
        assert len(server.workers.waiting) == 1
        # when what is kept waits for long
        for _ in range(6):
            server.broker.let_pass(10.0)
        # then nothing is told or left again
        assert server.take_words() == []
        assert server.given_back() == given_back
        assert len(server.workers.waiting) == 1

    @pytest.mark.parametrize("vouches", [True, False])
    def test_is_taken_again_after_a_look_at_who_may_have_had_it(
        self, starting: Server, vouches: bool
    ) -> None:
        # given a queue in which requests wait, that others may have had, or none
        server, state = starting, QueueState(0 if vouches else 3, 2)
        server.broker.queue_states[QUEUE] = state
        server.echo()
        server.hear(other("here"))
        server.count_servers(2)
        server.broker.let_pass(1.0)
        self.hold(server)
        server.broker.let_pass(1.0)
        assert server.broker.connection.did("cancel")
        inspections = server.broker.connection.did("inspect").count(QUEUE)
        # when a worker is free
        server.workers.oldest, server.workers.has_room = None, True
        server.consumer.wake()
        server.broker.settle()
        # then it looks who else consumes if it can't vouch, and consumes, and looks again
        assert server.broker.connection.did("consume")[-1] == QUEUE
        looks = server.broker.connection.did("inspect").count(QUEUE) - inspections
        assert looks == (0 if vouches else 2)

    def test_is_passed_on_once(self, server: Server) -> None:
        server.hear(other("here"))
        server.run(1)
        server.receive(passed_on := server.request(2, given_back=True))
        server.receive(server.request(3))
        server.workers.oldest = server.clock.now
        server.broker.let_pass(1.01)
        assert [each.delivery for each in server.workers.waiting] == [passed_on]
        assert len(server.given_back()) == 1

    def test_is_not_looked_at_while_it_closes(self, server: Server) -> None:
        server.hear(other("here"))
        self.hold(server)
        server.close(timeout=100.0)
        waits = server.broker.connection.waits
        server.broker.let_pass(50.0)
        assert server.given_back() == []
        assert server.broker.connection.waits - waits < 20


# --- two servers -------------------------------------------------------------


def test_a_request_that_another_has_does_not_run_here(server: Server) -> None:
    server.hear(other("hello", number=1))
    server.echo()
    # when one comes that its client has sent before, to the other one
    request = server.request(1, resent=5)
    server.receive(request)
    assert [word.calls for word in server.echo()] == [{key(1): True}]
    assert server.workers.all == []
    server.hear(other("answer", to=server.said[0].sender, calls={key(1): "mine"}))
    # then it is kept, and takes no room from others
    assert server.workers.all == []
    assert not server.is_acknowledged(request)
    assert server.broker.consumed[-1] == (QUEUE, 4, 0)
    # until the other one has answered it
    server.hear(other("done", calls={key(1): True}))
    assert server.is_acknowledged(request)
    assert server.replies() == []


def test_what_was_answered_here_is_answered_again_for_who_received_it_again(
    server: Server,
) -> None:
    server.hear(other("hello", number=1))
    server.answer(server.run(1))
    # when the other one received it from its client, and asks
    server.hear(other("ask", calls={key(1): True}))
    # then this one sends the answer once more, and says that it has it
    [reply] = server.replies()
    assert reply.body == b"done"
    assert reply.route.routing_key == REPLY_TO
    assert reply.properties["correlation_id"] == "client:1"
    assert [word.calls for word in server.take_words() if word.kind == "answer"] == [
        {key(1): "done"}
    ]
    # and once only
    server.broker.let_pass(0.5)
    assert server.replies() == [reply]


def test_a_question_that_the_broker_marked_is_answered_without_a_reply(server: Server) -> None:
    server.answer(server.run(1))

    server.hear(other("ask", calls={key(1): False}))

    assert server.replies() == []


def test_a_request_of_one_that_is_gone_is_answered_as_lost(server: Server) -> None:
    # given another server that says nothing any more
    server.hear(other("hello", number=1))
    server.echo()
    server.receive(server.request(1, redelivered=True))
    server.echo()
    assert server.workers.all == []
    assert server.broker.connection.wait_time is not None
    # when it had time to speak
    server.broker.let_pass(GRACE + 0.1)
    # then the worker is to say that it is lost
    [call] = server.workers.all
    assert call.lost


def lose_one(server: Server) -> Call:
    """A request that another server may have run, which is gone."""
    server.hear(other("hello", number=1))
    server.echo()
    server.receive(server.request(1, redelivered=True))
    server.echo()
    server.broker.let_pass(GRACE + 0.1)
    [lost] = server.workers.all
    return lost


def test_a_request_that_runs_again_waits_until_the_broker_has_the_ack_of_what_it_replaces(
    server: Server,
) -> None:
    # given one that is lost, which a worker has published anew
    lost = lose_one(server)
    server.receive(server.request(1, runs=2))
    assert server.workers.all == [lost]
    asked = len(server.broker.connection.did("inspect"))
    # when
    server.settle(lost)
    # then the acknowledgement was sent, and the broker was asked after that, before it runs
    assert len(server.broker.connection.did("inspect")) == asked + 1
    assert server.broker.connection.last_acks_at_inspections[-1] == lost.delivery.delivery_tag
    assert [call.runs for call in server.workers.all] == [1, 2]


class Overtaxed(ResultQueue):
    """Says that more waits to be sent than others may add to."""

    waiting = 10**6

    def __len__(self) -> int:
        return self.waiting


def test_while_the_publisher_does_not_keep_up_others_get_no_answers(clock: StandingClock) -> None:
    # given
    results = Overtaxed()
    results.waiting = 0
    server = Server(clock, results)
    server.serve()
    server.answer(server.run(1))
    results.waiting = 10_000
    # when
    server.hear(other("ask", calls={key(1): True}))
    assert server.replies() == []
    assert server.take_words() == []
    # then it looks again before long, and answers when there is room
    assert server.broker.connection.wait_time == pytest.approx(0.05)
    results.waiting = 9_999
    server.broker.let_pass(0.051)
    assert len(server.replies()) == 1
    assert server.take_words()
    server.broker.end()
    results.waker.close()


# --- closing -----------------------------------------------------------------


def test_an_idle_one_ends_at_once_and_says_goodbye(server: Server) -> None:
    tag = server.broker.tag(QUEUE)
    # when
    server.close()
    # then it stops consuming, waits until the broker has all acks, and leaves
    assert not server.is_alive
    asked = server.broker.connection.asked
    cancelled, inspected = asked.index(("cancel", tag)), len(asked) - 1
    while asked[inspected] != ("inspect", QUEUE):
        inspected -= 1
    assert cancelled < inspected
    [siblings_queue] = server.broker.connection.did("delete")
    assert siblings_queue.startswith(SIBLINGS.queue)
    # and its goodbye does not come to its own queue, which is being deleted meanwhile
    assert server.broker.connection.did("unbind") == [siblings_queue]
    assert asked.index(("unbind", siblings_queue)) < asked.index(("delete", siblings_queue))
    assert [(word.kind, word.consumes) for word in server.take_words()] == [
        ("here", False),
        ("bye", False),
    ]
    assert server.ended == [None]
    assert server.broker.connection.closed


def test_what_runs_is_answered_before_it_ends(server: Server) -> None:
    call = server.run(1)
    # when
    server.close(timeout=10.0)
    assert server.is_alive
    assert server.broker.connection.did("cancel")
    # then it waits for that, and no longer
    server.broker.let_pass(9.0)
    assert server.is_alive
    server.answer(call)
    assert not server.is_alive
    assert server.acknowledged[-1] == (call.delivery.delivery_tag, True)


def test_what_is_settled_while_it_closes_wakes_it_at_once(server: Server) -> None:
    call, _ = server.run(1), server.run(2)
    server.settled.set_prefetch(1000)
    server.close()

    server.settled.put([call])

    assert server.settled.waker._awake


def test_what_was_not_started_in_time_is_given_back(server: Server) -> None:
    # given one that runs, and one that waits
    runs = server.run(1)
    server.receive(server.request(2))
    server.close(timeout=10.0)
    server.broker.let_pass(9.9)
    assert server.given_back() == []
    # when the time is up
    server.broker.let_pass(0.2)
    # then it is published anew
    [anew] = server.given_back()
    assert anew.properties["correlation_id"] == "client:2"
    assert anew.properties["headers"] == {GIVEN_BACK: True}
    assert server.workers.waiting == []
    # and only the caller of the other one is told that it is lost
    assert [each.call for each in server.replies()] == [runs]
    # and what still runs gets two seconds more
    server.settle(anew.call)
    server.broker.let_pass(1.8)
    assert server.is_alive
    server.broker.let_pass(0.3)
    assert not server.is_alive


@pytest.mark.parametrize(("method_name", "told"), [("", b"a method"), ("add", b"add()")])
def test_what_still_runs_when_the_time_is_up_is_told_to_be_lost(
    server: Server, method_name: str, told: bytes
) -> None:
    call = server.run(1)
    call.method_name = method_name
    server.close(timeout=10.0)
    # when
    server.broker.let_pass(10.1)
    # then its caller is told, and it ends when that has arrived
    [reply] = server.replies()
    assert reply.call is call
    assert b"the server closed while %b ran" % told in reply.body
    assert server.is_alive
    server.settle(call)
    assert not server.is_alive


def test_what_another_server_runs_again_is_left_to_it_when_the_time_is_up(server: Server) -> None:
    call = server.run(1)
    call.idempotent = True
    server.close(timeout=10.0)

    server.broker.let_pass(10.1)

    assert server.replies() == []
    assert not server.is_alive
    assert not server.is_acknowledged(call.delivery)


def test_a_reply_that_is_not_confirmed_when_the_time_is_up_is_waited_for(server: Server) -> None:
    # given a method that has ended in time
    call = server.run(1)
    call.answer = Answer(REPLY_TO, b"done")
    server.close(timeout=10.0)
    # when the broker takes its time to confirm that
    server.broker.let_pass(10.1)
    # then its request is not left to another server
    assert server.is_alive
    assert server.replies() == []
    server.settle(call)
    assert not server.is_alive
    assert server.is_acknowledged(call.delivery)


def test_it_is_waited_for_although_something_else_runs_that_another_server_runs_again(
    server: Server,
) -> None:
    # given a method that has ended, and one that may run again
    ended, again = server.run(1), server.run(2)
    ended.answer, again.idempotent = Answer(REPLY_TO, b"done"), True
    server.close(timeout=10.0)
    # when
    server.broker.let_pass(10.1)
    # then
    assert server.is_alive
    assert server.replies() == []


def test_what_may_have_run_elsewhere_is_not_given_back_when_the_time_is_up(server: Server) -> None:
    # given a request that is lost, and has no worker
    lost = lose_one(server)
    server.close(timeout=10.0)
    # when
    server.broker.let_pass(10.1)
    # then it does not run as if nobody had had it: its caller is told
    assert server.given_back() == []
    assert [each.call for each in server.replies()] == [lost]


def test_what_is_held_back_when_the_time_is_up_is_given_back(server: Server) -> None:
    # given a request that waits until the one that it replaces is acknowledged
    lose_one(server)
    server.workers.waiting.clear()
    server.receive(again := server.request(1, runs=2))
    server.close(timeout=10.0)
    assert server.given_back() == []
    # when
    server.broker.let_pass(10.1)
    # then another server runs it
    [anew] = server.given_back()
    assert anew.call.delivery is again


def test_after_a_loss_it_stays_while_others_may_need_its_record(server: Server) -> None:
    # given one whose last acks may be lost with its connection
    server.hear(other("hello", number=1))
    server.count_servers(2)
    server.reconnect()
    # when it closes, and has nothing to do, and somebody else still has requests of it
    server.broker.queue_states[QUEUE] = QueueState(0, 2)
    server.close(timeout=30.0)
    server.broker.let_pass(1.0)
    # then it answers others about what the broker delivers again
    assert server.is_alive
    # until there is nobody but those that it knows
    server.broker.queue_states[QUEUE] = QueueState(0, 1)
    server.broker.let_pass(1.0)
    assert not server.is_alive
    assert server.take_words()[-1].kind == "bye"


def test_it_waits_for_what_runs_without_waking(server: Server) -> None:
    server.run(1)
    server.close(timeout=None)
    waits = server.broker.connection.waits
    assert server.broker.connection.wait_time is None

    server.broker.let_pass(3600.0)

    assert server.broker.connection.waits == waits
    assert server.is_alive


def test_a_loss_while_it_closes_does_not_end_it_before_what_runs_is_answered(
    server: Server,
) -> None:
    call = server.run(1)
    server.close(timeout=10.0)
    # when
    server.lose()
    # then it takes no requests on the next connection, and ends when the reply has arrived
    assert server.is_alive
    assert QUEUE not in server.broker.connection.did("consume")
    server.answer(call)
    assert not server.is_alive


class TestWhileTheBrokerIsAway:
    @staticmethod
    def lose_the_broker(server: Server) -> None:
        server.broker.down = QAMConnectionException("nothing listens there")
        server.broker.connection.lose()
        server.broker.run_freely()
        server.broker.wait_for_attempts(3)

    def test_it_ends_at_once_if_nothing_runs(self, server: Server) -> None:
        self.lose_the_broker(server)
        began = time.monotonic()

        server.consumer.begin_to_close(Deadline(LONG))
        server.consumer.join(LONG)

        assert not server.consumer.is_alive()
        assert time.monotonic() - began < LONG / 2
        assert server.ended == [None]

    def test_it_ends_as_soon_as_what_runs_has_ended(self, server: Server) -> None:
        # given
        call = server.run(1)
        self.lose_the_broker(server)
        server.consumer.begin_to_close(Deadline(LONG))
        server.broker.wait_for_attempts(server.broker.attempts + 2)
        assert server.consumer.is_alive()
        began = time.monotonic()
        # when
        server.settled.put([call])
        server.consumer.join(LONG)
        # then
        assert not server.consumer.is_alive()
        assert time.monotonic() - began < LONG / 2

    def test_it_ends_when_the_time_is_up_if_that_goes_on(
        self, server: Server, clock: StandingClock
    ) -> None:
        server.run(1)
        self.lose_the_broker(server)
        deadline = Deadline(LONG)
        deadline.at = clock.now - 1.0
        began = time.monotonic()

        server.consumer.begin_to_close(deadline)
        server.broker.wait_for_attempts(server.broker.attempts + 1)
        clock.now += 10.0
        server.consumer.wake()
        server.consumer.join(LONG)

        assert not server.consumer.is_alive()
        assert time.monotonic() - began < LONG / 2


def test_exit_waits_for_the_end(server: Server) -> None:
    server.broker.run_freely()

    server.consumer.exit()

    assert not server.consumer.is_alive()
    assert server.broker.connection.did("delete")


def test_who_waits_for_it_to_take_requests_is_told_of_its_end(starting: Server) -> None:
    assert not starting.consumer.taking.is_set()

    starting.broker.end()

    assert starting.consumer.taking.is_set()
    assert starting.ended == [None]


# --- upkeep ------------------------------------------------------------------


def test_it_is_counted_again_once_the_node_of_the_presence_queue_is_back() -> None:
    # given a server that came while that node was down
    server = Server(StandingClock())
    server.broker.connect(endpoint_of("here"), 1.0)
    connection = server.broker.connection
    consumer = server.consumer
    server.broker.queues_down.add(PRESENCE)
    consumer._presence_queue.declare(connection)
    consumer._presence_queue.consume(connection)
    assert consumer._presence_queue.consumer_tag is None
    # when it is back at the next upkeep
    server.broker.queues_down.clear()
    consumer._declare_again(connection)
    # then it is counted, once
    consumer._declare_again(connection)
    assert connection.did("consume") == [PRESENCE]
