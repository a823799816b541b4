"""The thread of a proxy that sends, without a broker: the test says what a broker would do."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qam._broker import connection_thread, publishing_thread
from qam._broker.events import Blocked, Unroutable
from qam._broker.messages import MAX_MESSAGE_BYTES, Publish, QueueState
from qam._client import publisher_thread
from qam._client.call_options import CallOptions
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import PublisherThread
from qam._common.deadline import NO_END, Deadline
from qam._protocol.properties import RESENT
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import (
    Executed,
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMServerNotFoundException,
    QAMTimeoutException,
)
from tests.support.clock import StandingClock, stop
from tests.support.fake_connection import FakeBroker
from tests.support.waiting import until

REQUEST_QUEUE = "server_server_queue"
LONG = 30.0  # seconds; nothing here takes that long unless it is broken


class Client:
    """A publisher with a broker that the test leads."""

    def __init__(self, clock: StandingClock, **options: Any) -> None:
        self.broker = FakeBroker(clock)
        self.publisher = PublisherThread(
            AMQPCredentials("memory://nowhere"),
            "server",
            "client.1",
            "json",
            connect=self.broker.connect,
            **options,
        )

    def begin(self, name: str = "add", deadline: Deadline = NO_END, **how: Any) -> PendingCall:
        """Make a call that is not sent yet."""
        results = self.publisher.results
        slot = results.reserve(**how)
        return self.publisher.begin_call(slot, name, [1], {}, "client_client_routing_key", deadline)

    def call(self, name: str = "add", deadline: Deadline = NO_END, **how: Any) -> PendingCall:
        """Make a call, and let it be sent."""
        call = self.publisher.send(self.begin(name, deadline, **how))
        self.broker.settle()
        return call

    def call_with(self, one_way: bool = False, **options: Any) -> PendingCall:
        """Make a call with *options*, and let it be sent."""
        publisher, chosen = self.publisher, CallOptions(**options)
        call = publisher.make_call("add", [1], {}, "key", NO_END, chosen, one_way)
        publisher.results.reserve(call=call)
        publisher.results.begin(call)
        publisher.send(call)
        self.broker.settle()
        return call

    def calls(self, *names: str) -> list[PendingCall]:
        """Make calls that are sent together."""
        begun = [self.begin(name) for name in names]
        for call in begun:
            self.publisher.send(call)
        self.broker.settle()
        return begun

    def written(self) -> list[Any]:
        """The calls whose requests were sent on the connection that there is, in their order."""
        return [message.context for message in self.broker.connection.written]

    def request(self, call: PendingCall) -> Publish:
        """The request of *call* as it was sent last."""
        sent = self.broker.connection.written
        return next(each for each in reversed(sent) if each.context is call)

    def outcome(self, call: PendingCall) -> Any:
        """What *call* has ended with; None while it is open."""
        return self.publisher.results.slots[call.slot_id]["result_message"]

    def lose(self, error: QAMConnectionException | None = None) -> None:
        self.broker.connection.lose(error)
        self.broker.settle()

    def keeps_record(self) -> None:
        """A reply says that the server keeps a record."""
        self.publisher.results.server_keeps_record = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandingClock:
    return stop(monkeypatch, connection_thread, publishing_thread, publisher_thread)


Clients = Callable[..., Client]


@pytest.fixture
def clients(clock: StandingClock) -> Iterator[Clients]:
    """Makes clients with the options that they are told; they are connected."""
    made: list[Client] = []

    def make(**options: Any) -> Client:
        client = Client(clock, **options)
        made.append(client)
        client.broker.run(client.publisher)
        return client

    yield make
    for each in made:
        each.broker.end()


@pytest.fixture
def client(clients: Clients) -> Client:
    return clients()


def closed_channel() -> QAMConnectionException:
    """The broker closed the channel because of a message."""
    error = QAMConnectionException("too large")
    error.by_message = True
    return error


# --- what it does with a new connection --------------------------------------


def test_it_declares_the_exchange_of_the_server_and_asks_for_confirms(client: Client) -> None:
    assert client.broker.connection.asked == [
        ("declare exchange", "server_server_exchange"),
        ("confirm", False),
    ]
    assert client.publisher.publisher is client.broker.connection
    assert (client.publisher.server_id, client.publisher.client_id) == ("server", "client.1")
    assert client.publisher.amqp_credentials.hostname == "memory://nowhere"


def test_a_transient_one_asks_for_no_confirms(clients: Clients) -> None:
    client = clients(persistent=False)
    assert client.broker.connection.did("confirm") == []


def test_while_nothing_happens_it_waits_without_end_and_does_not_wake(client: Client) -> None:
    waits = client.broker.connection.waits

    client.broker.let_pass(3600.0)

    assert client.broker.connection.wait_time is None
    assert client.broker.connection.waits == waits


# --- calls are written -------------------------------------------------------


def test_a_lone_call_is_written_without_waking_the_thread(client: Client) -> None:
    waits = client.broker.connection.waits

    call = client.call()

    assert client.written() == [call]
    assert client.broker.connection.waits == waits
    assert not client.broker.connection.rests


def test_the_thread_rests_if_the_caller_waits_for_the_outcome(client: Client) -> None:
    client.publisher.send(client.begin(), waits=True)

    assert client.broker.connection.rests
    client.publisher.look_again()
    client.broker.settle()
    assert not client.broker.connection.rests


def test_where_no_confirm_will_come_it_does_not_rest(clients: Clients) -> None:
    client = clients(persistent=False)
    client.publisher.replies_can_come()
    client.broker.settle()

    client.publisher.send(client.begin(), waits=True)

    assert client.broker.connection.bodies
    assert not client.broker.connection.rests


def test_calls_beside_others_are_written_in_their_order(client: Client) -> None:
    calls = client.calls("a", "b", "c")

    assert client.written() == calls
    assert client.publisher.method_queue == []
    assert client.broker.connection.wait_time is None


def test_a_request_says_what_it_is_and_how_long_it_may_take(
    client: Client, clock: StandingClock
) -> None:
    deadline = Deadline(20.0)
    deadline.at = clock.now + 20.0  # on the clock that stands
    call = client.call(deadline=deadline)

    message = client.request(call)
    assert message.route.exchange == "server_server_exchange"
    assert message.properties["correlation_id"] == f"client.1:{call.call_id}"
    assert message.properties["reply_to"] == "client.1_client_routing_key"
    assert int(message.properties["expiration"]) == 20_000
    assert message.mandatory


def test_the_rest_of_a_batch_is_written_although_nothing_else_happens(clients: Clients) -> None:
    # given more than is written at a time, held back until it can be written at once
    client = clients()
    client.broker.connection.send(Blocked(True))
    client.broker.settle()
    body = "x" * (700 * 1024)
    calls = []
    for _ in range(4):
        slot = client.publisher.results.reserve()
        calls.append(client.publisher.begin_call(slot, "add", [body], {}, "key"))
        client.publisher.send(calls[-1])
    client.broker.settle()
    assert client.written() == []

    # when
    client.broker.connection.send(Blocked(False))
    client.broker.settle()

    # then
    assert client.written() == calls


def test_a_documented_message_is_a_call(client: Client) -> None:
    slot = client.publisher.results.reserve()

    call = client.publisher.add_message_to_send(
        {"id": slot, "method_name": "add", "params": [1], "routing_key": "key"}
    )

    assert client.written() == [call]
    assert call.deadline is NO_END


def test_what_comes_may_be_left_unread_for_a_moment_only_while_confirms_are_to_come(
    client: Client,
) -> None:
    # given
    first, second = client.calls("a", "b")
    assert client.broker.connection.read_delay == publishing_thread._CONFIRM_DELAY
    # when
    client.broker.connection.confirm_messages(client.request(first), client.request(second))
    client.broker.settle()
    # then
    assert client.broker.connection.read_delay == 0.0


def test_a_call_that_is_not_written_in_time_is_never_written(client: Client) -> None:
    # given a broker that takes nothing
    client.broker.connection.send(Blocked(True))
    client.broker.settle()
    call = client.call(deadline=Deadline(5.0))

    # when
    failure = client.publisher.give_up(call)
    client.publisher.results.conclude(call.call_id, failure)
    client.broker.connection.send(Blocked(False))
    client.broker.settle()

    # then
    assert isinstance(failure, QAMTimeoutException)
    assert failure.executed == "no"
    assert "the broker has an alarm and accepts no messages" in str(failure)
    assert client.written() == []


def test_a_call_that_was_written_may_have_run_when_its_time_is_up(client: Client) -> None:
    call = client.call(deadline=Deadline(5.0))

    failure = client.publisher.give_up(call)

    assert failure.executed == "unknown"
    assert "the request was sent, and the broker has not confirmed it" in str(failure)


def test_the_metadata_of_its_options_travels_with_a_request(client: Client) -> None:
    numbers = iter("12")

    def next_one() -> dict[str, str]:
        return {"number": next(numbers)}

    calls = [client.call_with(metadata=next_one) for _ in range(2)]

    headers = [client.request(call).properties["headers"] for call in calls]
    assert headers == [{"number": "1"}, {"number": "2"}]
    assert "headers" not in client.request(client.call()).properties


def test_only_a_call_with_keyword_arguments_is_said_to_have_some(client: Client) -> None:
    def have_keywords(**kwargs: int) -> bool:
        return client.publisher.make_call("add", [1], kwargs, "key", NO_END).has_keywords

    assert have_keywords(b=2)
    assert not have_keywords()


class TestACallThatNobodyWaitsForAnyMore:
    def test_is_not_written_if_it_was_not(self, client: Client) -> None:
        # given two calls that the broker does not take
        client.broker.connection.send(Blocked(True))
        client.broker.settle()
        call, other = client.calls("a", "b")
        assert client.publisher.queued_calls == 2
        # when
        client.publisher.abandon(call)
        # then
        assert client.publisher.queued_calls == 1
        client.broker.connection.send(Blocked(False))
        client.broker.settle()
        assert client.written() == [other]

    def test_lets_the_thread_rest_no_longer(self, client: Client) -> None:
        call = client.publisher.send(client.begin(), waits=True)
        assert client.broker.connection.rests

        client.publisher.abandon(call)
        client.broker.settle()

        assert not client.broker.connection.rests
        assert client.written() == [call]


def test_requests_that_are_held_are_written_when_replies_can_come(client: Client) -> None:
    client.publisher.hold_requests()
    calls = client.calls("a", "b")
    assert client.written() == []

    client.publisher.replies_can_come()
    client.broker.settle()

    assert client.written() == calls


# --- what becomes of a request -----------------------------------------------


def test_a_one_way_call_has_its_outcome_once_the_broker_has_its_request(client: Client) -> None:
    one_way, call = client.call_with(one_way=True), client.call()
    assert client.outcome(one_way) is None

    client.broker.connection.confirm_messages(client.request(one_way), client.request(call))
    client.broker.settle()

    assert client.outcome(one_way) == {"result": None}
    assert client.outcome(call) is None


def test_after_a_confirm_the_call_waits_for_its_reply_alone(client: Client) -> None:
    call = client.call()

    client.broker.connection.confirm_messages(client.request(call))
    client.broker.settle()

    assert call.confirmed
    assert client.outcome(call) is None
    assert client.broker.connection.wait_time is None


def test_a_request_that_comes_back_ends_its_call_and_no_other(client: Client) -> None:
    gone, other = client.calls("gone", "other")

    client.broker.connection.send_back(client.request(gone))
    client.broker.settle()

    assert isinstance(client.outcome(gone), QAMServerNotFoundException)
    assert client.outcome(gone).executed == "no"
    assert client.outcome(other) is None


def test_a_call_waits_for_a_server_that_is_not_there_as_long_as_its_options_say(
    client: Client,
) -> None:
    # given a request that comes back
    call = client.call_with(wait_for_server=2.0)
    client.broker.connection.send_back(client.request(call))
    client.broker.settle()
    assert client.outcome(call) is None
    # when its time has come, it is sent again
    client.broker.let_pass(1.0)
    assert client.written() == [call, call]
    # and when it comes back too late
    client.broker.let_pass(1.0)
    client.broker.connection.send_back(client.request(call))
    client.broker.settle()
    # then
    assert isinstance(client.outcome(call), QAMServerNotFoundException)


class TestARequestThatComesBackAlthoughItsQueueIsThere:
    @pytest.fixture
    def client(self, client: Client) -> Client:
        """Somebody has deleted the binding; no reply has come yet."""
        client.broker.queue_states[REQUEST_QUEUE] = QueueState(0, 1)
        return client

    def send_back(self, client: Client, *calls: PendingCall) -> None:
        for call in calls:
            client.broker.connection.send_back(client.request(call))
        client.broker.settle()

    def test_is_sent_again(self, client: Client) -> None:
        call = client.call()

        self.send_back(client, call)

        assert client.outcome(call) is None
        client.broker.let_pass(0.1)
        assert client.written() == [call, call]

    def test_makes_it_ask_for_the_queue_once_a_second(self, client: Client) -> None:
        # given several that come back in the same second
        self.send_back(client, *client.calls("a", "b"))
        assert client.broker.connection.did("has queue") == [REQUEST_QUEUE]
        client.broker.let_pass(0.9)
        self.send_back(client, call := client.call())
        assert client.broker.connection.did("has queue") == [REQUEST_QUEUE]
        assert client.outcome(call) is None
        # when one comes back later, without the queue
        del client.broker.queue_states[REQUEST_QUEUE]
        client.broker.let_pass(0.2)
        self.send_back(client, call)
        # then
        assert client.broker.connection.did("has queue") == [REQUEST_QUEUE] * 2
        assert isinstance(client.outcome(call), QAMServerNotFoundException)

    def test_makes_it_ask_for_nothing_once_a_reply_has_come(self, client: Client) -> None:
        client.keeps_record()

        self.send_back(client, call := client.call())

        assert client.broker.connection.did("has queue") == []
        assert client.outcome(call) is None

    def test_is_sent_on_the_next_connection_if_this_one_is_lost_before_an_answer(
        self, client: Client
    ) -> None:
        call = client.call()
        client.broker.connection.send_back(client.request(call))

        client.lose()

        assert client.outcome(call) is None
        assert client.written() == []
        client.broker.let_pass(0.1)
        assert client.written() == [call]


def test_a_refused_request_is_sent_again_by_itself_after_a_pause(
    client: Client, clock: StandingClock
) -> None:
    # given
    client.keeps_record()
    call = client.call()
    # when
    client.broker.connection.refuse(client.request(call))
    client.broker.settle()
    # then not at once, but when its time has come and nothing else happens
    assert client.written() == [call]
    pause = client.broker.connection.wait_time
    assert pause is not None
    assert 0.0 < pause < 0.2
    client.broker.let_pass(0.9 * pause)
    assert client.written() == [call]
    client.broker.let_pass(0.2 * pause)
    assert client.written() == [call, call]
    assert client.request(call).properties["headers"] == {
        RESENT: pytest.approx(1100 * pause, abs=1)
    }
    # and then nothing is due any more
    assert client.broker.connection.wait_time is None


def test_what_is_sent_again_goes_before_what_waits(client: Client) -> None:
    client.keeps_record()
    call = client.call()
    client.broker.connection.refuse(client.request(call))
    client.broker.settle()
    client.broker.connection.send(Blocked(True))
    client.broker.settle()
    late = client.call()
    # when it is due while the broker takes nothing
    client.broker.let_pass(1.0)
    client.broker.connection.send(Blocked(False))
    client.broker.settle()
    # then
    assert client.written() == [call, call, late]


def test_a_refused_request_ends_its_call_where_it_might_run_twice(client: Client) -> None:
    call = client.call()

    client.broker.connection.refuse(client.request(call))
    client.broker.settle()

    assert "the broker refused the request" in str(client.outcome(call))
    assert client.outcome(call).executed == "unknown"
    client.broker.let_pass(10.0)
    assert client.written() == [call]


def test_a_connection_on_which_all_is_refused_is_given_up(client: Client) -> None:
    # given a broker that has refused everything for a second
    client.keeps_record()
    call = client.call()
    client.broker.connection.refuse(client.request(call))
    client.broker.settle()
    client.broker.let_pass(1.0)
    assert len(client.broker.connections) == 1
    # when
    client.broker.connection.refuse(client.request(call))
    client.broker.settle()
    # then
    assert len(client.broker.connections) == 2
    client.broker.let_pass(1.0)
    assert client.written() == [call]


# --- a lost connection -------------------------------------------------------


def test_what_was_not_confirmed_is_sent_again_first_and_marked(
    client: Client, clock: StandingClock
) -> None:
    # given two that were written, of which one is confirmed, and one that was not
    client.keeps_record()
    first, second = client.calls("a", "b")
    client.broker.connection.confirm_messages(client.request(first))
    client.broker.settle()
    client.broker.connection.send(Blocked(True))
    client.broker.settle()
    third = client.call("c")
    clock.now += 2.0
    # when
    client.lose()
    # then
    assert client.written() == [second, third]
    assert client.request(second).properties["headers"] == {RESENT: 2000}
    assert "headers" not in client.request(third).properties
    assert client.broker.connections[0].closed


def test_confirms_that_come_with_the_loss_count(client: Client) -> None:
    client.keeps_record()
    call = client.call()
    client.broker.connection.confirm_messages(client.request(call))

    client.lose()

    assert call.confirmed
    assert client.written() == []
    assert client.outcome(call) is None


def test_what_was_not_confirmed_ends_its_call_where_it_might_run_twice(client: Client) -> None:
    call = client.call()

    client.lose(QAMConnectionException("the cable was cut"))

    assert "the cable was cut before the broker confirmed the request" in str(client.outcome(call))
    assert client.outcome(call).executed == "unknown"
    assert client.written() == []


def test_an_alarm_ends_with_its_connection(client: Client) -> None:
    client.broker.connection.send(Blocked(True))
    client.broker.settle()
    call = client.call()

    client.lose()

    assert client.written() == [call]


def test_the_only_request_under_way_is_to_blame_for_a_closed_channel(client: Client) -> None:
    client.keeps_record()
    call = client.call()

    client.lose(closed_channel())

    assert str(client.outcome(call)) == "the broker refused the request of add(): too large"
    assert client.outcome(call).executed == "no"
    assert client.written() == []


def test_of_several_they_go_one_at_a_time_until_the_one_to_blame_is_found(client: Client) -> None:
    # given
    client.keeps_record()
    good, bad, other = client.calls("good", "bad", "other")
    # when
    client.lose(closed_channel())
    # then
    assert client.written() == [good]
    assert client.broker.connection.read_delay == 0.0
    assert client.call("late").times_written == 0
    client.broker.connection.confirm_messages(client.request(good))
    client.broker.settle()
    assert client.written() == [good, bad]
    client.lose(closed_channel())
    assert client.outcome(bad).executed == "unknown"
    assert client.written() == [other]
    client.broker.connection.confirm_messages(client.request(other))
    client.broker.settle()
    assert [call.method_name for call in client.written()] == ["other", "late"]


def test_a_loss_by_the_network_blames_nobody(client: Client) -> None:
    client.keeps_record()
    calls = client.calls("a", "b")

    client.lose()

    assert client.written() == calls


# --- what the broker does not take now ---------------------------------------


def test_an_alarm_holds_calls_back_and_is_told(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qam.qam_proxy")
    # when
    client.broker.connection.send(Blocked(True))
    client.broker.settle()
    call = client.call()
    # then
    assert client.written() == []
    assert client.publisher.method_queue == [call]
    assert client.broker.connection.wait_time is None
    # and when it is over
    client.broker.connection.send(Blocked(False))
    client.broker.settle()
    assert client.written() == [call]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_what_the_network_does_not_take_waits_until_it_does(client: Client) -> None:
    client.broker.connection.congested = True
    call = client.call()
    assert client.publisher.method_queue == [call]

    client.broker.connection.congested = False
    client.broker.settle()

    assert client.written() == [call]


# --- a queue with bounds -----------------------------------------------------


class TestAQueueThatIsFull:
    @pytest.fixture
    def client(self, clients: Clients) -> Client:
        """The broker takes nothing, and two calls wait."""
        client = clients(max_queued=2)
        client.broker.connection.send(Blocked(True))
        client.broker.settle()
        client.call("a", Deadline(LONG))
        client.call("b")
        return client

    def test_ends_a_callback_at_once(self, client: Client) -> None:
        call = client.call("c", callback_method=print)

        failure = client.outcome(call)
        assert isinstance(failure, QAMException)
        assert failure.executed == "no"
        assert "max_queued=2 calls are queued already" in str(failure)
        assert len(client.publisher.method_queue) == 2

    def test_ends_a_call_when_its_time_is_up(self, client: Client) -> None:
        call = client.begin("c", Deadline(0.01))

        with pytest.raises(QAMTimeoutException) as caught:
            client.publisher.send(call)

        assert caught.value.executed == "no"

    def test_is_as_full_as_before_after_calls_timed_out_and_others_came(
        self, client: Client
    ) -> None:
        # given room for one again, since the time of another one was up
        client.publisher.give_up(client.publisher.method_queue[0])
        client.call("c", callback_method=print)
        # when there is one too many
        late = client.call("d", callback_method=print)
        # then
        assert isinstance(client.outcome(late), QAMException)
        # and when all were written, two may wait again and no more
        client.broker.connection.send(Blocked(False))
        client.broker.settle()
        assert [call.method_name for call in client.written()] == ["b", "c"]
        client.broker.connection.send(Blocked(True))
        client.broker.settle()
        outcomes = [client.outcome(client.call(callback_method=print)) for _ in range(3)]
        assert [outcome is None for outcome in outcomes] == [True, True, False]

    def test_lets_nobody_wait_when_the_proxy_closes(self, client: Client) -> None:
        # given two that wait in the queue, and a caller that waits for room
        waiting = client.publisher.method_queue[:]
        late = client.begin("c", Deadline(LONG))
        caller = threading.Thread(target=client.publisher.send, args=(late,))
        caller.start()
        until(lambda: client.publisher._queue._room._waiters)  # type: ignore[attr-defined]
        # when
        began = time.monotonic()
        client.publisher.close_calls(closed)
        caller.join(LONG)
        # then
        assert time.monotonic() - began < LONG / 2
        assert [client.outcome(call).executed for call in waiting] == ["no", "no"]
        assert isinstance(client.outcome(late), QAMClosedException)


def closed(executed: Executed) -> QAMClosedException:
    return QAMClosedException("closed", executed=executed)


# --- the end -----------------------------------------------------------------


def test_a_close_says_of_each_call_whether_it_may_have_run(client: Client) -> None:
    written = client.call()
    client.broker.connection.send(Blocked(True))
    client.broker.settle()
    waiting = client.call()

    client.publisher.close_calls(closed)

    assert client.outcome(written).executed == "unknown"
    assert client.outcome(waiting).executed == "no"
    with pytest.raises(QAMClosedException):
        client.begin()


def test_no_call_may_begin_once_the_first_is_told_of_the_end(client: Client) -> None:
    # given who makes another call as soon as it is told
    client.broker.connection.send(Blocked(True))
    client.broker.settle()
    client.call()
    results, closed_before = client.publisher.results, list[bool]()
    conclude = results.conclude

    def conclude_and_look(call_id: int | None, message: object) -> bool:
        closed_before.append(results.is_closed)
        return conclude(call_id, message)

    results.conclude = conclude_and_look  # type: ignore[method-assign]
    # when
    client.publisher.close_calls(closed)
    # then
    assert closed_before == [True]


def test_its_end_ends_all_calls(client: Client) -> None:
    call = client.call()

    client.broker.end()

    assert isinstance(client.outcome(call), QAMClosedException)
    assert client.broker.connection.closed


def test_a_bug_ends_all_calls_and_is_their_cause(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, bug = client.call(), ValueError("bug")

    def fail() -> None:
        raise bug

    client.broker.connection.tick = fail  # type: ignore[method-assign]
    client.publisher.wake()
    client.broker.settle()

    assert isinstance(client.outcome(call), QAMClosedException)
    assert client.outcome(call).__cause__ is bug
    assert "internal error" in str(client.outcome(call))


def test_in_a_forked_child_its_locks_are_free(clock: StandingClock) -> None:
    publisher = Client(clock).publisher
    lock = publisher._queue._lock

    publisher._in_forked_child()

    assert publisher._queue._lock is not lock
    assert publisher.kill


def test_a_finalizer_in_the_middle_of_its_queue_is_told_so(clock: StandingClock) -> None:
    publisher = Client(clock).publisher
    assert not publisher.is_here
    with publisher._queue._lock:
        assert publisher.is_here


# --- what it tells who looks for it ------------------------------------------


def stations(caplog: pytest.LogCaptureFixture, call: PendingCall) -> list[str]:
    """The stations of *call* that were logged, in their order."""
    lines = re.findall(rf"call client\.1:{call.call_id} of .*: (.+?)(?: \+.*)?$", caplog.text, re.M)
    return list(lines)


class TestAtTheLevelDebug:
    @pytest.fixture(autouse=True)
    def _debug(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "qam.qam_proxy")

    def test_each_station_of_a_request_is_told(
        self, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        client.keeps_record()
        call = client.call()
        assert stations(caplog, call) == ["queued", "written"]

        client.broker.connection.refuse(client.request(call))
        client.broker.settle()
        client.broker.let_pass(1.0)
        client.broker.connection.confirm_messages(client.request(call))
        client.broker.settle()

        assert stations(caplog, call)[2:] == [
            "refused by the broker",
            "written again",
            "confirmed",
        ]

    def test_a_call_that_is_only_queued_is_told_by_who_makes_it(
        self, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        client.publisher.hold_requests()

        call = client.publisher.send(client.begin())  # and the thread has no turn

        assert stations(caplog, call) == ["queued"]

    def test_a_transient_request_is_told_to_be_written_and_never_to_be_confirmed(
        self, clients: Clients, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = clients(persistent=False)
        client.publisher.replies_can_come()

        call = client.call()

        assert client.written() == [call]
        assert stations(caplog, call) == ["queued", "written"]

    def test_an_error_that_a_caller_gets_instead_of_an_outcome_is_told(
        self, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        call = client.begin()

        client.publisher.note_end(call, KeyboardInterrupt())

        assert stations(caplog, call) == ["ended by a KeyboardInterrupt"]


def test_nothing_is_noted_where_nobody_looks_for_it(client: Client) -> None:
    call = client.call()
    client.publisher.note_end(call, KeyboardInterrupt())
    assert client.publisher.stations.remembered == 0
    client.broker.connection.confirm_messages(client.request(call))
    client.broker.settle()

    assert client.publisher.stations.remembered == 0
    assert not client.publisher.stations.has_unlogged


# --- what nobody keeps -------------------------------------------------------


class TestATransientOne:
    @pytest.fixture
    def client(self, clients: Clients) -> Client:
        client = clients(persistent=False)
        client.publisher.replies_can_come()
        client.broker.settle()
        return client

    def test_sends_nothing_before_replies_can_be_received(self, clients: Clients) -> None:
        client = clients(persistent=False)
        call = client.call(deadline=Deadline(LONG))
        assert client.publisher.method_queue == [call]
        failure = client.publisher.give_up(call)
        assert "there is no connection to the broker" in str(failure)
        other = client.call()

        client.publisher.replies_can_come()
        client.broker.settle()

        assert client.written() == [other]

    def test_wakes_for_the_first_connection_for_replies_alone(self, client: Client) -> None:
        waits = client.broker.connection.waits
        client.publisher.replies_can_come()
        client.broker.settle()
        assert client.broker.connection.waits == waits

    def test_wants_no_confirm(self, client: Client) -> None:
        call = client.call()
        assert not client.request(call).confirm
        assert client.broker.connection.read_delay == 0.0

    def test_has_the_outcome_of_a_one_way_call_once_its_request_is_written(
        self, client: Client
    ) -> None:
        assert client.outcome(client.call_with(one_way=True)) == {"result": None}

    def test_ends_what_was_written_with_the_connection(self, client: Client) -> None:
        call = client.call()

        client.lose()

        assert "before the reply came" in str(client.outcome(call))
        assert client.outcome(call).executed == "unknown"
        assert client.written() == []

    def test_ends_what_was_written_with_the_connection_for_replies_and_holds_what_comes(
        self, client: Client
    ) -> None:
        call = client.call()
        # when
        client.publisher.connection_lost(QAMConnectionException("cut"))
        late = client.call()
        # then
        assert "cut before the reply came" in str(client.outcome(call))
        assert client.written() == [call]
        # and it is sent when they can be received again
        client.publisher.replies_can_come()
        client.broker.settle()
        assert client.written() == [call, late]

    def test_ends_a_call_that_no_queue_takes(self, client: Client) -> None:
        call, other = client.calls("a", "b")
        correlation_id = client.request(call).properties["correlation_id"]

        client.broker.connection.send(Unroutable(correlation_id), Unroutable("another's:7"))
        client.broker.settle()

        assert isinstance(client.outcome(call), QAMServerNotFoundException)
        assert client.outcome(call).executed == "no"
        assert client.outcome(other) is None


def test_a_persistent_one_goes_on_without_the_connection_for_replies(client: Client) -> None:
    first = client.call()

    client.publisher.connection_lost(QAMConnectionException("cut"))
    second = client.call()

    assert client.outcome(first) is None
    assert client.written() == [first, second]


# --- a reply queue that was deleted ------------------------------------------


def test_lost_replies_are_asked_for_again_where_the_server_has_them(client: Client) -> None:
    # given a call that was written and one that was not
    client.keeps_record()
    call = client.call()
    client.broker.connection.confirm_messages(client.request(call))
    client.broker.settle()

    client.publisher.replies_lost()
    client.broker.settle()

    assert client.written() == [call, call]
    assert RESENT in client.request(call).properties["headers"]
    assert not call.confirmed


def test_lost_replies_end_their_calls_where_the_server_keeps_none(client: Client) -> None:
    call = client.call()

    client.publisher.replies_lost()
    client.broker.settle()

    assert "the reply queue was deleted" in str(client.outcome(call))
    assert client.written() == [call]


def test_a_request_that_is_too_large_is_never_sent(clients: Clients) -> None:
    client = clients(max_message_bytes=10)
    assert MAX_MESSAGE_BYTES > 10
    with pytest.raises(QAMException, match="max_message_bytes=10"):
        client.begin()
