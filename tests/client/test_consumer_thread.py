"""The thread of a proxy that receives, without a broker: the test says what a broker would do."""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from qam._broker import connection_thread
from qam._broker.events import Cancelled
from qam._broker.messages import Delivery, TooLarge
from qam._client import consumer_thread
from qam._client.consumer_thread import ConsumerThread
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import PublisherThread
from qam._serialization.serializers import PickleSerializer, get_serializer
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import (
    QAMClosedException,
    QAMConnectionException,
    QAMMethodNotFoundException,
    QAMSerializationException,
)
from tests.support.clock import StandingClock, stop
from tests.support.fake_connection import FakeBroker

CREDENTIALS = AMQPCredentials("memory://nowhere")
QUEUE = "client.1_client_queue"


class Told(PublisherThread):
    """One that is not started; notes what the consumer tells it."""

    def __init__(self, clock: StandingClock, serializer: Any = "json") -> None:
        super().__init__(CREDENTIALS, "server", "client.1", serializer)
        self._clock = clock
        self.told: list[tuple[str, Any]] = []

    def replies_can_come(self) -> None:
        self.told.append(("replies can come", None))

    def replies_lost(self) -> None:
        self.told.append(("replies lost", None))

    def connection_lost(self, error: QAMConnectionException) -> None:
        self.told.append(("connection lost", error))

    def look_again(self) -> None:
        self.told.append(("look again", self._clock.now))

    def end_calls(self, error: BaseException | None) -> None:
        self.told.append(("end calls", error))
        super().end_calls(error)

    def heard(self, what: str) -> list[Any]:
        """What came with each time that it was told this."""
        return [each for told, each in self.told if told == what]


class Client:
    """A consumer with a broker that the test leads."""

    def __init__(self, clock: StandingClock, serializer: Any = "json", **options: Any) -> None:
        self.clock = clock
        self.broker = FakeBroker(clock)
        self.publisher = Told(clock, serializer)
        self.consumer = ConsumerThread(
            CREDENTIALS,
            "server",
            "client.1",
            serializer,
            publisher=self.publisher,
            connect=self.broker.connect,
            **options,
        )
        self._tags = 0

    def begin(self, **how: Any) -> PendingCall:
        """Begin a call whose reply can come."""
        results = self.publisher.results
        call = PendingCall(results.reserve(**how), results.new_call_id())
        results.begin(call)
        return call

    def reply(self, call: PendingCall | None, result: Any = 1, **more: Any) -> Delivery:
        """The reply to *call*, of a server that keeps a record."""
        self._tags += 1
        number = call.call_id if call else 7
        properties = {
            "correlation_id": f"client.1:{number}",
            "content_type": "application/json",
            "content_encoding": "utf-8",
            **more,
        }
        body = {"id": number, "result": result, "exception": False, "internal_exception": -1}
        return Delivery(json.dumps(body).encode(), self._tags, properties=properties)

    def old_reply(self, number: Any) -> Delivery:
        """The reply of a 0.2.x server: only its body says which call it answers."""
        reply = self.reply(None)
        body = {"id": number, "result": 1, "exception": False, "internal_exception": -1}
        reply.body = json.dumps(body).encode()
        del reply.properties["correlation_id"]
        return reply

    def receive(self, *replies: Delivery) -> None:
        self.broker.connection.send(*replies)
        self.broker.settle()

    def lose(self, error: QAMConnectionException | None = None) -> None:
        self.broker.connection.lose(error)
        self.broker.settle()

    def state(self, call: PendingCall) -> int:
        state: int = self.consumer.result_list[call.slot_id]["state"]
        return state


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandingClock:
    return stop(monkeypatch, connection_thread, consumer_thread)


Clients = Callable[..., Client]


@pytest.fixture
def clients(clock: StandingClock) -> Iterator[Clients]:
    """Makes clients with the options that they are told; they are connected."""
    made: list[Client] = []

    def make(*args: Any, **options: Any) -> Client:
        client = Client(clock, *args, **options)
        made.append(client)
        client.broker.run(client.consumer)
        return client

    yield make
    for each in made:
        each.broker.end()


@pytest.fixture
def client(clients: Clients) -> Client:
    return clients()


# --- the connection ----------------------------------------------------------


def test_it_consumes_from_its_reply_queue_and_then_says_that_replies_can_come(
    client: Client,
) -> None:
    assert client.broker.connection.asked == [
        ("declare exchange", "server_client_exchange"),
        ("declare queue", QUEUE),
        ("consume", QUEUE),
    ]
    assert client.publisher.told == [("replies can come", None)]
    assert client.consumer.amqpconn is client.broker.connection
    assert client.consumer.consumer is not None
    assert client.consumer.consumer.queue == QUEUE


def test_while_nothing_happens_it_waits_without_end_and_does_not_wake(client: Client) -> None:
    waits = client.broker.connection.waits

    client.broker.let_pass(3600.0)

    assert client.broker.connection.wait_time is None
    assert client.broker.connection.waits == waits


def test_a_lost_connection_is_told_and_the_next_one_consumes_before_the_old_one(
    client: Client,
) -> None:
    error = QAMConnectionException("the cable was cut")

    client.lose(error)

    assert client.publisher.heard("connection lost") == [error]
    assert client.publisher.heard("look again") == [client.clock.now]
    assert client.publisher.told[-1] == ("replies can come", None)
    assert [priority for _, _, priority in client.broker.consumed] == [0, 1]
    assert client.publisher.heard("replies lost") == []


def test_its_queue_is_declared_again_now_and_then_while_a_reply_is_expected(
    client: Client,
) -> None:
    # given a call
    call = client.begin()
    client.consumer.wake()
    client.broker.settle()
    pause = client.broker.connection.wait_time
    assert pause is not None
    assert 30.0 < pause < 60.0
    # when its time has come
    client.broker.let_pass(0.9 * pause)
    assert client.broker.connection.did("declare queue") == [QUEUE]
    client.broker.let_pass(0.2 * pause)
    # then it is declared, and its exchange
    assert client.broker.connection.did("declare queue") == [QUEUE] * 2
    assert client.broker.connection.did("declare exchange") == ["server_client_exchange"] * 2
    # and not at once again, but later, and no more once the reply is there
    client.broker.let_pass(30.0)
    assert client.broker.connection.did("declare queue") == [QUEUE] * 2
    client.broker.let_pass(30.0)
    assert client.broker.connection.did("declare queue") == [QUEUE] * 3
    client.receive(client.reply(call))
    client.broker.let_pass(3600.0)
    assert client.broker.connection.did("declare queue") == [QUEUE] * 3


def test_there_is_no_consumer_while_it_is_not_connected(client: Client) -> None:
    client.broker.down = QAMConnectionException("nothing listens there")
    client.broker.connection.lose()
    client.broker.run_freely()
    client.broker.wait_for_attempts(2)

    assert client.consumer.consumer is None
    assert client.consumer.amqpconn is None


@pytest.mark.parametrize("told", [True, False])
def test_a_deleted_reply_queue_is_told_once_and_not_at_each_later_reconnection(
    client: Client, told: bool
) -> None:
    # given a queue that is deleted, of which the broker says so or not
    client.broker.queue_states[QUEUE] = None
    if told:
        client.receive(Cancelled("the consumer"))
        assert QUEUE in str(client.publisher.heard("connection lost")[0])
    else:
        client.lose()
    # then its replies are asked for again before it is said that they can come
    assert client.publisher.told[-2:] == [("replies lost", None), ("replies can come", None)]
    # and when it is lost again with its queue in place, they are not
    del client.broker.queue_states[QUEUE]
    client.lose()
    assert len(client.broker.connections) == 3
    assert client.publisher.heard("replies lost") == [None]


def test_while_the_node_of_its_queue_is_down_another_one_is_used_and_both_are_deleted(
    client: Client,
) -> None:
    client.broker.queues_down.add(QUEUE)
    client.lose()
    another = "client.1.1_client_queue"
    assert client.broker.consumed[-1][0] == another

    client.broker.end()

    assert client.broker.connection.did("delete") == [another, QUEUE]


def test_its_end_deletes_the_reply_queue_and_ends_all_calls(client: Client) -> None:
    call = client.begin()

    client.broker.end()

    assert client.broker.connection.did("delete") == [QUEUE]
    assert client.publisher.heard("end calls") == [None]
    with pytest.raises(QAMClosedException):
        client.consumer.get_result(call.slot_id)


# --- replies -----------------------------------------------------------------


def test_a_reply_is_the_outcome_of_its_call_and_of_no_other(client: Client) -> None:
    call, other = client.begin(), client.begin()
    assert not client.consumer.is_result_received(call.slot_id)

    client.receive(client.reply(call, 5))

    assert client.consumer.is_result_received(call.slot_id)
    assert client.consumer.get_result_item(call.slot_id)["result"] == 5
    assert client.consumer.get_result(call.slot_id) == 5
    assert client.state(call) == ConsumerThread.FREE
    assert client.state(other) == ConsumerThread.WAITING


def test_who_asks_for_a_result_waits_for_it(client: Client) -> None:
    # given a thread that waits for the result of a call
    call, results = client.begin(), list[Any]()
    waits = threading.Thread(
        target=lambda: results.append(client.consumer.get_result(call.slot_id))
    )
    waits.start()
    # when that comes
    client.receive(client.reply(client.begin()))
    assert results == []
    client.receive(client.reply(call, 5))
    # then it is what the thread gets
    waits.join(30.0)
    assert results == [5]


def test_the_documented_attributes_say_for_whom_it_receives(client: Client) -> None:
    assert client.consumer.amqp_credentials is CREDENTIALS
    assert client.consumer.server_id == "server"
    assert client.consumer.client_id == "client.1"


def test_replies_that_come_together_are_all_taken_in(client: Client) -> None:
    calls = [client.begin() for _ in range(3)]

    client.receive(*[client.reply(call, number) for number, call in enumerate(calls)])

    assert [client.consumer.get_result(call.slot_id) for call in calls] == [0, 1, 2]


def test_a_reply_that_no_call_waits_for_changes_nothing(client: Client) -> None:
    call = client.begin()
    client.receive(client.reply(None), client.reply(call))
    client.receive(client.reply(call, "again"))

    assert client.consumer.get_result(call.slot_id) == 1


def test_what_came_before_its_queue_was_deleted_has_come(client: Client) -> None:
    call = client.begin()

    client.receive(client.reply(call), Cancelled("the consumer"))

    assert client.consumer.get_result(call.slot_id) == 1


def test_the_documented_way_sees_slots_and_frees_them(client: Client) -> None:
    slot = client.consumer.get_free_result_list_id()
    assert client.consumer.result_list[slot]["state"] == ConsumerThread.WAITING
    assert client.consumer.get_result_item(slot) is None

    client.consumer.free_result_item(slot)

    assert slot in client.consumer.free_index_queue


def test_a_reply_that_cant_be_read_is_told_to_who_waits(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    call = client.begin()
    reply = client.reply(call)
    reply.body = b"nonsense"

    client.receive(reply)

    with pytest.raises(QAMSerializationException):
        client.consumer.get_result(call.slot_id)
    assert "a reply can't be decoded" in caplog.text


def test_a_reply_that_is_too_large_is_told_once(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    call = client.begin()
    reply = client.reply(call)
    reply.body, reply.too_large = b"", TooLarge(20, 10)

    client.receive(reply)

    with pytest.raises(QAMSerializationException, match="20 bytes") as caught:
        client.consumer.get_result(call.slot_id)
    assert caught.value.executed == "yes"
    assert [record.getMessage() for record in caplog.records] == [
        "a reply was dropped: it has 20 bytes, more than max_message_bytes=10"
    ]


def test_what_reply_came_last_says_whether_the_server_keeps_a_record(client: Client) -> None:
    results = client.publisher.results

    client.receive(client.reply(client.begin()))
    assert results.server_keeps_record
    client.receive(client.old_reply(7))
    assert not results.server_keeps_record


class TestTheReplyOfA02xServer:
    def test_says_in_its_body_which_call_it_answers(self, client: Client) -> None:
        call = client.begin()

        client.receive(client.old_reply(call.call_id))

        assert client.consumer.get_result(call.slot_id) == 1

    @pytest.mark.parametrize("number", ["7", None, True, [1], 1.5], ids=repr)
    def test_answers_none_if_it_names_none(self, client: Client, number: Any) -> None:
        call = client.begin()

        client.receive(client.old_reply(number))

        assert client.state(call) == ConsumerThread.WAITING

    def test_harms_nobody_if_a_trusted_class_raises_while_it_is_decoded(
        self, clients: Clients
    ) -> None:
        # given a class that the application trusts
        serializer = get_serializer("pickle", trusted=[Raising])
        assert isinstance(serializer, PickleSerializer)
        client = clients(serializer)
        call = client.begin()
        reply = client.old_reply(0)
        reply.body = serializer.encode({"id": call.call_id, "result": Raising()})
        reply.properties["content_type"] = serializer.content_type
        reply.properties["content_encoding"] = serializer.content_encoding
        # when
        client.receive(reply)
        # then no call is answered, and the next reply arrives
        assert client.state(call) == ConsumerThread.WAITING
        next_one = client.begin()
        client.publisher.results.conclude(next_one.call_id, QAMConnectionException("closed"))
        assert client.consumer.is_alive()


class TestAMethodThatTheServerDoesNotHave:
    HINT = "the server is of 0.2.x, which knows no keyword arguments: pass them by position"

    def error(self, client: Client, by_old_server: bool, has_keywords: bool) -> str:
        """What the caller of such a method is told."""
        call = client.begin()
        call.has_keywords = has_keywords
        reply = client.old_reply(call.call_id) if by_old_server else client.reply(call)
        body = json.loads(reply.body)
        body |= {"result": "no method 'gone'", "exception": True, "internal_exception": 1}
        reply.body = json.dumps(body).encode()
        client.receive(reply)
        with pytest.raises(QAMMethodNotFoundException) as caught:
            client.consumer.get_result(call.slot_id)
        return str(caught.value)

    def test_is_told_in_the_words_of_the_server(self, client: Client) -> None:
        assert self.error(client, by_old_server=False, has_keywords=True) == "no method 'gone'"
        assert self.error(client, by_old_server=True, has_keywords=False) == "no method 'gone'"

    def test_may_be_there_if_a_02x_server_was_called_by_keyword(self, client: Client) -> None:
        error = self.error(client, by_old_server=True, has_keywords=True)
        assert error == f"no method 'gone'; {self.HINT}"


def test_the_result_of_one_call_of_many_is_read_like_a_reply(client: Client) -> None:
    packed = client.reply(None, 5).body.decode()
    assert client.consumer.result_in(packed) == 5

    with pytest.raises(QAMSerializationException, match=r"a result of system\.multicall"):
        client.consumer.result_in(5)


class Raising:
    """Can be pickled, and not be unpickled."""

    def __setstate__(self, state: Any) -> None:
        raise SystemExit("no")

    def __getstate__(self) -> Any:
        return {"some": "state"}


# --- acknowledgements --------------------------------------------------------


def test_replies_are_acknowledged_together_although_nothing_else_happens(client: Client) -> None:
    # given
    client.receive(client.reply(client.begin()))
    client.broker.let_pass(0.03)
    client.receive(client.reply(client.begin()))
    assert client.broker.connection.acknowledged == []
    # when the first has waited long enough
    client.broker.let_pass(0.03)
    # then there is one acknowledgement, and no other follows
    assert client.broker.connection.acknowledged == [(2, True)]
    client.broker.let_pass(10.0)
    assert client.broker.connection.acknowledged == [(2, True)]


def test_the_publisher_looks_again_half_a_second_after_a_reply(client: Client) -> None:
    began = client.clock.now
    client.receive(client.reply(client.begin()))
    client.broker.let_pass(0.06)
    client.receive(client.reply(client.begin()))
    assert client.publisher.heard("look again") == []

    client.broker.let_pass(0.45)

    assert client.publisher.heard("look again") == [pytest.approx(began + 0.51)]
    # and then there is nothing more to do
    client.broker.let_pass(0.1)
    assert client.broker.connection.wait_time is None
    assert len(client.publisher.heard("look again")) == 1


def test_both_are_done_as_soon_as_they_are_due(client: Client) -> None:
    began = client.clock.now
    client.receive(client.reply(client.begin()))

    client.broker.let_pass(0.05)
    assert client.broker.connection.acknowledged == [(1, True)]

    client.broker.let_pass(began + 0.5 - client.clock.now)
    assert client.publisher.heard("look again") == [began + 0.5]


def test_what_another_connection_brought_is_not_acknowledged(client: Client) -> None:
    client.receive(client.reply(client.begin()))

    client.lose()
    client.broker.let_pass(10.0)

    assert client.broker.connection.acknowledged == []
    assert client.broker.connection.wait_time is None


def test_a_transient_one_has_nothing_to_acknowledge(clients: Clients) -> None:
    client = clients(persistent=False)

    client.receive(client.reply(client.begin()))

    assert client.broker.connection.wait_time is None


def test_replies_wait_for_each_other_where_many_calls_are_open(client: Client) -> None:
    assert client.broker.connection.read_delay == 0.0
    for _ in range(99):
        client.begin()
    client.receive(client.reply(None))
    assert client.broker.connection.read_delay == 0.0
    # when there are some more
    for _ in range(101):
        client.begin()
    client.receive(client.reply(None))
    # then
    assert client.broker.connection.read_delay == pytest.approx(0.0004)
    for _ in range(4900):
        client.begin()
    client.receive(client.reply(None))
    assert client.broker.connection.read_delay == consumer_thread._MOST_DELAY


def test_a_dropped_reply_is_told_to_who_looks_for_it(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "qam.qam_proxy")

    client.receive(client.reply(None))

    assert "a reply was dropped, since no call waits for it (id 7)" in caplog.text


def test_the_outcome_of_a_call_is_told_to_who_looks_for_it(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "qam.qam_proxy")
    calls = [client.begin() for _ in range(3)]
    # given a result, an exception of the method, and a reply that can't be decoded
    result, raised, nonsense = (client.reply(call) for call in calls)
    raised.body = raised.body.replace(b'"exception": false', b'"exception": true')
    nonsense.body = b"nonsense"
    client.receive(result, raised, nonsense)
    # when the callers take them
    for call in calls:
        with suppress(Exception):
            client.consumer.get_result(call.slot_id)
    # then, in the order of two threads, which may be any
    lines = [
        sorted(re.findall(rf"client\.1:{call.call_id}\b.*: (\D+?)(?: \+|$)", caplog.text, re.M))
        for call in calls
    ]
    assert lines == [
        ["ended with a result", "received"],
        ["ended by an exception from the server", "received"],
        ["ended by a QAMSerializationException", "received"],
    ]


def test_no_station_of_a_call_is_noted_where_nobody_looks_for_it(client: Client) -> None:
    call = client.begin()

    client.receive(client.reply(call))
    client.consumer.get_result(call.slot_id)

    assert client.publisher.stations.remembered == 0
    assert not client.publisher.stations.has_unlogged


def test_without_a_publisher_it_has_one_of_its_own(clock: StandingClock) -> None:
    consumer = ConsumerThread(CREDENTIALS, "server", "client.1", "json")

    slot = consumer.get_free_result_list_id()

    assert consumer.result_list[slot]["state"] == ConsumerThread.WAITING
    assert consumer.amqpconn is None
