"""The thread of a server that sends, without a broker: the test says what a broker would do."""

from collections.abc import Iterator
from typing import Any

import pytest

from qam._broker import connection_thread, publishing_thread
from qam._broker.events import Blocked
from qam._broker.messages import Delivery, Publish, Route
from qam._protocol.entities import siblings_binding
from qam._protocol.properties import RESENT
from qam._serialization.serializers import get_serializer
from qam._server import publisher_thread
from qam._server.call import Answer, Call
from qam._server.mailboxes import ResultQueue, SettledCalls
from qam._server.messages import Message, Messages
from qam._server.publisher_thread import ReplyPublisherThread
from qam._server.settings import ServerSettings
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import QAMConnectionException
from tests.support.clock import StandingClock, stop
from tests.support.fake_connection import FakeBroker

SETTINGS = ServerSettings("server", get_serializer("json"), {"x-queue-type": "quorum"})
#: Seconds that a heartbeat of the credentials takes, and after which nothing is under way any more.
HEARTBEAT = 10


class Server:
    """A publisher with a broker that the test leads."""

    def __init__(self, clock: StandingClock) -> None:
        self.clock = clock
        self.broker = FakeBroker(clock)
        self.settled = SettledCalls()
        self.settled.set_prefetch(100)  # so a settled call waits 10 ms for others
        self.results = ResultQueue()
        #: What it died of, once for each time that it was told so.
        self.ended: list[BaseException | None] = []
        self.publisher = ReplyPublisherThread(
            AMQPCredentials("memory://nowhere", heartbeat=HEARTBEAT),
            SETTINGS,
            self.results,
            self.settled,
            self.ended.append,
            self.broker.connect,
        )
        self.messages = Messages("server", SETTINGS.serializer)
        self._numbers = 0

    def call(self, persistent: bool = True) -> Call:
        """A request that was received."""
        self._numbers += 1
        properties = {
            "correlation_id": f"client:{self._numbers}",
            "reply_to": "client_client_routing_key",
            "delivery_mode": 2 if persistent else 1,
        }
        return Call(Delivery(b"{}", self._numbers, properties=properties), 1)

    def reply(self, call: Call, body: bytes = b"done", to: str = "client") -> Message:
        call.answer = Answer(to, body)
        return self.messages.reply(call, call.answer)

    def answer(self, *calls: Call, **how: Any) -> list[Message]:
        """Answer *calls* together."""
        replies = [self.reply(call, **how) for call in calls]
        for reply in replies:
            self.publisher.add_reply_to_send(reply)
        self.broker.settle()
        return replies

    def lose(self, error: QAMConnectionException | None = None) -> None:
        self.broker.connection.lose(error)
        self.broker.settle()

    @property
    def written(self) -> list[Publish]:
        """What was sent on the connection that there is."""
        return self.broker.connection.written

    @property
    def consumer_was_woken(self) -> bool:
        """Whether the thread that acknowledges was woken; asked once for each time."""
        woken = self.settled.waker._awake
        self.settled.waker.clear()
        return woken


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandingClock:
    return stop(monkeypatch, connection_thread, publishing_thread, publisher_thread)


@pytest.fixture
def server(clock: StandingClock) -> Iterator[Server]:
    server = Server(clock)
    server.broker.run(server.publisher)
    yield server
    server.broker.end()
    server.settled.waker.close()


def closed_channel() -> QAMConnectionException:
    """The broker closed the channel because of a message."""
    error = QAMConnectionException("too large")
    error.by_message = True
    return error


# --- what it does with a new connection --------------------------------------


def test_it_declares_all_that_a_server_needs_and_asks_for_confirms(server: Server) -> None:
    assert server.broker.connection.asked == [
        ("declare exchange", "server_server_exchange"),
        ("declare exchange", "server_client_exchange"),
        ("declare queue", "server_server_queue"),
        ("confirm", True),
    ]


def test_while_nothing_happens_it_waits_without_end_and_does_not_wake(server: Server) -> None:
    waits = server.broker.connection.waits

    server.broker.let_pass(3600.0)

    assert server.broker.connection.wait_time is None
    assert server.broker.connection.waits == waits


def test_the_thread_that_receives_is_told_that_its_hello_is_safe(server: Server) -> None:
    server.publisher.add_reply_to_send(
        Message(siblings_binding("server", "a").route, b"hello", {}, mandatory=False, hello=2)
    )
    server.broker.settle()
    assert (server.settled.announced, server.consumer_was_woken) == (0, False)

    server.broker.connection.confirm_messages(*server.written)
    server.broker.settle()

    assert (server.settled.announced, server.consumer_was_woken) == (2, True)


# --- replies are written -----------------------------------------------------


def test_replies_are_written_in_their_order(server: Server) -> None:
    replies = server.answer(*[server.call() for _ in range(3)])

    assert server.written == replies
    assert server.publisher.result_queue == []


def test_a_lone_reply_is_written_by_the_thread_that_made_it(server: Server) -> None:
    waits = server.broker.connection.waits
    reply = server.reply(server.call())

    server.publisher.send_lone(reply)

    assert server.written == [reply]
    assert server.broker.connection.waits == waits


def test_a_lone_reply_that_cant_be_written_now_waits(server: Server) -> None:
    server.broker.connection.send(Blocked(True))
    server.broker.settle()
    reply = server.reply(server.call())

    server.publisher.send_lone(reply)
    server.broker.settle()
    assert server.publisher.result_queue == [reply]
    server.broker.connection.send(Blocked(False))
    server.broker.settle()

    assert server.written == [reply]


def test_the_rest_of_a_batch_is_written_although_nothing_else_happens(server: Server) -> None:
    # given more than is written at a time
    server.broker.connection.send(Blocked(True))
    server.broker.settle()
    replies = server.answer(*[server.call() for _ in range(4)], body=b"x" * 700 * 1024)
    # when
    server.broker.connection.send(Blocked(False))
    server.broker.settle()
    # then
    assert server.written == replies


# --- requests are settled ----------------------------------------------------


def test_a_request_is_settled_when_its_reply_is_confirmed_and_not_before(server: Server) -> None:
    call = server.call()
    [reply] = server.answer(call)
    assert server.settled.take_all() == []

    server.broker.connection.confirm_messages(reply)
    server.broker.settle()

    assert server.settled.take_all() == [call]


def test_the_last_request_is_acknowledged_although_nothing_else_happens(server: Server) -> None:
    # given
    replies = server.answer(server.call(), server.call())
    for reply in replies:
        server.broker.connection.confirm_messages(reply)
        server.broker.settle()
        assert not server.consumer_was_woken
    # when the first has waited for others
    server.broker.let_pass(0.009)
    assert not server.consumer_was_woken
    server.broker.let_pass(0.002)
    # then it is acknowledged, once
    assert server.consumer_was_woken
    assert server.broker.connection.wait_time is None
    server.broker.let_pass(10.0)
    assert not server.consumer_was_woken


def test_what_is_settled_later_waits_as_long_again(server: Server) -> None:
    for _ in range(2):
        [reply] = server.answer(server.call())
        server.broker.connection.confirm_messages(reply)
        server.broker.settle()
        assert server.broker.connection.wait_time == pytest.approx(0.01)
        server.broker.let_pass(0.011)
        assert server.consumer_was_woken


def test_a_lone_reply_has_the_thread_wake_for_its_acknowledgement(server: Server) -> None:
    call = server.call(persistent=False)

    server.publisher.send_lone(server.reply(call))
    server.broker.settle()

    assert server.settled.take_all() == [call]
    assert server.broker.connection.wait_time == pytest.approx(0.01)


def test_a_lone_reply_wakes_the_thread_only_for_what_is_due_sooner_than_all_else(
    server: Server,
) -> None:
    # given one that sleeps for a second until something else is sent again
    word = Message(siblings_binding("server", "one").route, b"word", {}, mandatory=False)
    server.publisher.add_reply_to_send(word)
    server.broker.settle()
    server.broker.connection.refuse(word)
    server.broker.settle()
    waits = server.broker.connection.waits
    # when
    for _ in range(2):
        server.publisher.send_lone(server.reply(server.call(persistent=False)))
        server.broker.settle()
    # then the first request is to be acknowledged before that, and the second one with it
    assert server.broker.connection.waits == waits + 1


def test_a_request_without_confirm_is_settled_when_its_reply_is_written(server: Server) -> None:
    call = server.call(persistent=False)

    [reply] = server.answer(call)

    assert not reply.confirm
    assert server.settled.take_all() == [call]


def test_what_is_settled_is_acknowledged_at_once_when_the_connection_is_lost(
    server: Server,
) -> None:
    # given a reply that was confirmed a moment ago, and a broker that is away
    [reply] = server.answer(server.call())
    server.broker.connection.confirm_messages(reply)
    server.broker.settle()
    assert not server.consumer_was_woken
    # when
    server.lose()
    # then it waits for no turn on the next connection
    assert server.consumer_was_woken
    assert server.broker.connection.wait_time is None


def test_what_comes_is_left_unread_for_a_moment_only_while_confirms_are_to_come(
    server: Server,
) -> None:
    server.answer(*[server.call(persistent=False) for _ in range(3)])
    assert server.broker.connection.read_delay == 0.0

    [reply] = server.answer(server.call())
    assert server.broker.connection.read_delay > 0.0

    server.broker.connection.confirm_messages(reply)
    server.broker.settle()
    assert server.broker.connection.read_delay == 0.0


# --- what becomes of a reply -------------------------------------------------


def test_a_reply_that_comes_back_settles_its_request_and_is_sent_again_by_itself(
    server: Server,
) -> None:
    call = server.call()
    [reply] = server.answer(call)
    # when
    server.broker.connection.send_back(reply)
    server.broker.settle()
    # then
    assert server.settled.take_all() == [call]
    server.broker.let_pass(0.09)
    assert server.written == [reply]
    server.broker.let_pass(0.02)
    assert server.written == [reply, reply]


def test_a_reply_that_comes_back_for_a_minute_is_dropped_and_told(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    [reply] = server.answer(server.call())
    server.broker.connection.send_back(reply)
    server.broker.settle()
    # when
    server.broker.let_pass(61.0)
    assert server.written == [reply, reply]
    server.broker.connection.send_back(reply)
    server.broker.settle()
    # then
    assert "1 replies could not be delivered: their client ('client') is gone" in caplog.text
    server.broker.let_pass(100.0)
    assert server.written == [reply, reply]


def test_replies_that_are_dropped_together_are_told_together(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    replies = server.answer(server.call(), server.call())
    for reply in replies:
        server.broker.connection.send_back(reply)
    server.broker.settle()
    server.broker.let_pass(61.0)
    # when both come back in one turn
    for reply in replies:
        server.broker.connection.send_back(reply)
    server.broker.settle()
    # then
    assert caplog.messages == [
        "2 replies could not be delivered: their client ('client') is gone",
    ]


def test_a_word_that_is_refused_is_sent_again_after_a_second(server: Server) -> None:
    route = siblings_binding("server", "one").route
    word = Message(route, b"word", {}, mandatory=False)
    server.publisher.add_reply_to_send(word)
    server.broker.settle()
    server.broker.connection.refuse(word)
    server.broker.settle()
    server.broker.let_pass(0.9)
    assert server.written == [word]

    server.broker.let_pass(0.2)

    assert server.written == [word, word]


# --- a lost connection -------------------------------------------------------


def test_what_was_not_confirmed_is_sent_again_before_what_waits(server: Server) -> None:
    [first] = server.answer(server.call())
    server.broker.connection.send(Blocked(True))
    server.broker.settle()
    [second] = server.answer(server.call())

    server.lose()

    assert server.written == [first, second]


def test_what_wanted_no_confirm_is_sent_again_if_it_was_written_of_late(server: Server) -> None:
    # given one that was written long ago, and one that was not
    [old] = server.answer(server.call(persistent=False))
    server.broker.let_pass(2.0)
    [recent] = server.answer(server.call(persistent=False))
    server.broker.let_pass(3 * HEARTBEAT - 1.0)
    assert server.written == [old, recent]
    # when
    server.lose()
    # then
    assert server.written == [recent]
    assert not recent.confirm


def test_a_request_that_may_have_arrived_is_marked_when_it_is_sent_again(server: Server) -> None:
    anew = server.messages.request_anew(server.call(), now=server.clock.now)
    server.publisher.add_reply_to_send(anew)
    server.broker.settle()

    server.lose()

    assert server.written == [anew]
    assert anew.properties["headers"][RESENT] == 0


def test_the_only_reply_under_way_is_to_blame_for_a_closed_channel_and_is_replaced(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    call = server.call()
    server.answer(call, body=b"large")

    server.lose(closed_channel())

    [in_place] = server.written
    assert b"the broker refuses the result: too large" in in_place.body
    assert call.answer == Answer("client", in_place.body)
    assert "the broker refuses a reply: too large" in caplog.text
    # and if that is refused too, its request is settled without an answer
    server.lose(closed_channel())
    assert server.written == []
    assert call.answer is None
    assert server.settled.take_all() == [call]


def test_replies_without_confirm_get_one_until_the_one_to_blame_is_found(server: Server) -> None:
    # given two, of which the broker does not say which it has closed the channel for
    good, bad = server.answer(server.call(persistent=False), server.call(persistent=False))
    # when
    server.lose(closed_channel())
    # then they go one at a time, and are confirmed
    assert server.written == [good]
    assert good.confirm
    server.broker.connection.confirm_messages(good)
    server.broker.settle()
    assert server.written == [good, bad]
    server.lose(closed_channel())
    [in_place] = server.written
    assert b"too large" in in_place.body


# --- the end -----------------------------------------------------------------


def test_its_end_is_told(server: Server) -> None:
    server.broker.end()

    assert server.ended == [None]
    assert server.broker.connection.closed
    assert server.broker.connection.did("inspect") == []


def test_a_bug_is_told(server: Server) -> None:
    bug = ValueError("bug")

    def fail() -> None:
        raise bug

    server.broker.connection.tick = fail  # type: ignore[method-assign]
    server.publisher.wake()
    server.broker.settle()

    assert server.ended == [bug]


def test_a_bug_in_its_last_warnings_keeps_its_end_from_nobody(
    clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    server = Server(clock)
    server.broker.down = QAMConnectionException("nothing listens there")

    def fail() -> None:
        raise ValueError("bug")

    monkeypatch.setattr(server.publisher._dropped, "log_warnings", fail)

    # when it runs here, where the test sees what it raises
    with pytest.raises(ValueError, match="bug"):
        server.publisher.run()

    # then
    assert server.ended == [server.broker.down]
    server.settled.waker.close()


def test_at_the_end_what_waits_is_written_and_the_broker_asked_whether_it_has_it(
    server: Server,
) -> None:
    # given replies that are added when it is already to end
    [first] = server.answer(server.call(persistent=False))
    late = [server.reply(server.call(persistent=False)) for _ in range(2)]
    server.publisher.kill = True
    for reply in late:
        server.results.messages.append(reply)
    # when
    server.broker.end()
    # then
    assert server.broker.connection.handed_over == [first, *late]
    assert server.broker.connection.did("inspect") == ["server_server_queue"]


def test_at_the_end_nothing_is_written_while_the_broker_has_an_alarm(server: Server) -> None:
    server.answer(server.call(persistent=False))
    server.broker.connection.send(Blocked(True))
    server.broker.settle()
    [late] = server.answer(server.call())

    server.broker.end()

    assert late not in server.broker.connection.handed_over
    assert server.broker.connection.did("inspect") == []


def test_at_the_end_nothing_is_written_that_the_network_does_not_take(server: Server) -> None:
    server.broker.connection.congested = True
    [late] = server.answer(server.call())

    server.broker.end()

    assert late not in server.broker.connection.handed_over


def test_replies_that_still_wait_to_be_sent_again_at_the_end_are_told(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    [reply] = server.answer(server.call(), to="away")
    server.broker.connection.send_back(reply)
    server.broker.settle()

    server.broker.end()

    assert "their client ('away') is gone" in caplog.text


def test_what_else_waits_at_the_end_to_be_sent_again_is_no_reply_to_a_client(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    # given a word and a request published anew that the broker has refused, and a reply
    route = siblings_binding("server", "one").route
    word = Message(route, b"word", {}, mandatory=False)
    request = server.messages.request_anew(server.call(), server.clock.now)
    for message in (word, request):
        server.publisher.add_reply_to_send(message)
    [reply] = server.answer(server.call(), to="away")
    for message in (word, request):
        server.broker.connection.refuse(message)
    server.broker.connection.send_back(reply)
    server.broker.settle()
    assert len(server.publisher._later) == 3
    # when
    server.broker.end()
    # then
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == ["1 replies could not be delivered: their client ('away') is gone"]


def test_a_reply_goes_to_where_its_caller_says(server: Server) -> None:
    [reply] = server.answer(server.call(), to="client_client_routing_key")
    assert reply.route == Route("server_client_exchange", "client_client_routing_key")
    assert reply.mandatory
