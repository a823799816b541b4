import select
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from qam import QAMProxy
from qam._broker import memory
from qam._broker.events import Cancelled, Confirmed, Event, Returned, Unroutable
from qam._broker.memory import MemoryConnection
from qam._broker.messages import Delivery, Publish, QueueBinding, QueueState, Route, TooLarge
from qam._broker.waker import Waker
from tests.support.reading import read
from tests.support.service import serving
from tests.support.waiting import until

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
QUEUE = QueueBinding("queue", "exchange", "key")
OTHER = QueueBinding("other", "exchange", "key")


class FakeTime:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class StruckWaker(Waker):
    """Ctrl-C strikes whoever wakes it next, if that is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.strikes = 0

    def wake(self) -> None:
        super().wake()
        if self.strikes:
            self.strikes -= 1
            raise KeyboardInterrupt


class Peer(MemoryConnection):
    """A connection with the waker of its owner."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.broker_name = name
        self.waker = Waker()

    def events(self) -> list[Event]:
        """What came; does not wait."""
        return read(self, 0.0, self.waker)

    def bodies(self) -> list[bytes]:
        """The bodies of what was delivered; does not wait."""
        return [event.body for event in self.events() if isinstance(event, Delivery)]

    def publish(self, *bodies: bytes, binding: QueueBinding = QUEUE, **properties: str) -> None:
        self.write([Publish(binding.route, body, dict(properties)) for body in bodies])

    def close(self) -> None:
        super().close()
        self.waker.close()


@pytest.fixture
def name() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def peers(name: str) -> Iterator[tuple[Peer, Peer, Peer]]:
    """Three connections to a broker with one queue."""
    with ExitStack() as stack:
        first, second, third = (Peer(name) for _ in range(3))
        for peer in (first, second, third):
            stack.callback(peer.close)
        first.declare_exchange(QUEUE.exchange)
        first.declare_queue(QUEUE)
        yield first, second, third


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(memory, "time", clock)
    return clock


def test_what_is_published_is_confirmed_and_delivered_as_it_was(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    # given
    publisher, consumer, _ = peers
    publisher.confirm()
    consumer.consume("queue")

    # when
    message = Publish(QUEUE.route, b"body", {"correlation_id": "a:1"})
    publisher.write([message])

    # then
    (confirmed,) = publisher.events()
    assert isinstance(confirmed, Confirmed)
    assert confirmed.messages == [message]
    (delivery,) = consumer.events()
    assert isinstance(delivery, Delivery)
    assert (delivery.body, delivery.delivery_tag, delivery.redelivered) == (b"body", 1, False)
    assert delivery.properties == {"correlation_id": "a:1"}
    assert publisher.take_unconfirmed() == []


def test_what_was_published_before_there_is_a_consumer_waits_for_it(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    publisher, consumer, _ = peers
    publisher.publish(b"1", b"2")

    consumer.consume("queue")

    assert consumer.bodies() == [b"1", b"2"]


def test_a_mandatory_message_without_a_queue_comes_back(peers: tuple[Peer, Peer, Peer]) -> None:
    # given
    publisher, _, _ = peers
    nowhere = Route("exchange", "nobody's key")
    mandatory = Publish(nowhere, b"1", {})
    optional = Publish(nowhere, b"2", {}, mandatory=False)

    # when
    publisher.write([mandatory, optional])

    # then
    returned, confirmed = publisher.events()
    assert returned == Returned(mandatory)
    assert confirmed == Confirmed([optional])


def test_one_that_wants_no_confirm_is_told_by_its_id_if_no_queue_takes_it(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    # given
    publisher, _, _ = peers
    nowhere = Route("exchange", "nobody's key")
    lost = Publish(nowhere, b"1", {"correlation_id": "a:1"}, confirm=False)
    optional = Publish(nowhere, b"2", {"correlation_id": "a:2"}, mandatory=False, confirm=False)
    taken = Publish(QUEUE.route, b"3", {"correlation_id": "a:3"}, confirm=False)

    # when
    publisher.write([lost, optional, taken])

    # then
    assert publisher.events() == [Unroutable("a:1")]


def test_a_message_goes_into_each_queue_that_is_bound(peers: tuple[Peer, Peer, Peer]) -> None:
    # given
    publisher, first, second = peers
    publisher.declare_queue(OTHER)
    publisher.declare_queue(OTHER)  # a second time changes nothing
    first.consume("queue")
    second.consume("other")

    # when
    publisher.publish(b"1")

    # then
    assert first.bodies() == [b"1"]
    assert second.bodies() == [b"1"]


def test_brokers_of_different_names_know_nothing_of_each_other(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    publisher, _, _ = peers
    stranger = Peer(f"memory://{uuid.uuid4().hex}")
    stranger.declare_queue(QUEUE)
    stranger.consume("queue")

    publisher.publish(b"1")

    assert stranger.events() == []
    stranger.close()


def test_a_child_has_none_of_the_brokers_of_its_parent_and_waits_for_none_of_its_threads(
    name: str,
) -> None:
    brokers = memory._Brokers()
    of_parent = brokers.get(name)

    with brokers._lock:  # of which the child has a copy, and nobody who would give it back
        brokers._in_forked_child()

        assert not brokers._lock._is_owned()
    of_child = brokers.get(name)
    assert of_child is not of_parent
    assert of_child is brokers.get(name)


def test_consumers_take_turns(peers: tuple[Peer, Peer, Peer]) -> None:
    publisher, first, second = peers
    first.consume("queue")
    second.consume("queue")

    publisher.publish(b"1", b"2", b"3", b"4")

    assert first.bodies() == [b"1", b"3"]
    assert second.bodies() == [b"2", b"4"]


def test_a_consumer_holds_no_more_than_its_prefetch(peers: tuple[Peer, Peer, Peer]) -> None:
    # given
    publisher, first, second = peers
    first.consume("queue", prefetch=1)
    second.consume("queue", prefetch=2)

    # when
    publisher.publish(b"1", b"2", b"3", b"4", b"5")

    # then
    assert first.bodies() == [b"1"]
    assert second.bodies() == [b"2", b"3"]

    # when
    second.acknowledge(1)

    # then
    assert second.bodies() == [b"4"]
    assert first.bodies() == []


def test_an_ack_of_multiple_makes_room_for_as_many(peers: tuple[Peer, Peer, Peer]) -> None:
    # given
    publisher, consumer, _ = peers
    consumer.consume("queue", prefetch=3)
    publisher.publish(*(b"%d" % number for number in range(1, 8)))
    assert consumer.bodies() == [b"1", b"2", b"3"]

    # when
    consumer.acknowledge(2, multiple=True)

    # then
    assert consumer.bodies() == [b"4", b"5"]

    # when
    consumer.reject(3)

    # then
    assert consumer.bodies() == [b"6"]


def test_the_prefetch_can_be_changed_by_a_second_consumer(peers: tuple[Peer, Peer, Peer]) -> None:
    # given
    publisher, consumer, _ = peers
    narrow = consumer.consume("queue", prefetch=1)
    publisher.publish(b"1", b"2", b"3", b"4")
    assert consumer.bodies() == [b"1"]

    # when
    wide = consumer.consume("queue", prefetch=2)
    consumer.cancel(narrow)
    consumer.cancel(narrow)

    # then
    assert wide.tag != narrow.tag
    assert consumer.bodies() == [b"2", b"3"]

    # when: what the first consumer delivered can still be acknowledged
    consumer.acknowledge(1)

    # then
    assert consumer.bodies() == []

    # when
    consumer.acknowledge(2)

    # then
    assert consumer.bodies() == [b"4"]


def test_what_needs_no_ack_takes_no_room_and_never_comes_again(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    # given
    publisher, first, second = peers
    first.consume("queue", prefetch=1, no_ack=True)

    # when
    publisher.publish(b"1", b"2")

    # then
    assert first.bodies() == [b"1", b"2"]

    # when
    first.close()
    second.consume("queue")

    # then
    assert second.events() == []


def test_a_message_that_is_larger_than_its_consumer_takes_comes_without_its_body(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    publisher, consumer, _ = peers
    consumer.consume("queue", max_bytes=2)

    publisher.publish(b"12", b"123", correlation_id="a:1")

    fits, too_large = [each for each in consumer.events() if isinstance(each, Delivery)]
    assert (fits.body, fits.too_large) == (b"12", None)
    assert (too_large.body, too_large.too_large) == (b"", TooLarge(3, 2))
    assert too_large.correlation_id == "a:1"


def test_a_message_whose_sender_is_struck_by_ctrl_c_is_lost_and_takes_no_room(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    # given a consumer that has one message, and room for another one
    publisher, consumer, _ = peers
    consumer.waker.close()
    consumer.waker = waker = StruckWaker()
    consumer.consume("queue", prefetch=2)
    assert consumer.bodies() == []  # since it waits, it has to be woken
    publisher.publish(b"1")

    # when
    waker.strikes = 1
    with pytest.raises(KeyboardInterrupt):
        publisher.publish(b"2")
    publisher.publish(b"3", b"4")

    # then
    assert consumer.bodies() == [b"1", b"3"]

    # when it acknowledges what it has
    consumer.acknowledge(3, multiple=True)

    # then
    assert consumer.bodies() == [b"4"]


def test_after_a_cancel_nothing_more_is_delivered(peers: tuple[Peer, Peer, Peer]) -> None:
    publisher, first, second = peers
    consumer = first.consume("queue")
    first.cancel(consumer)

    publisher.publish(b"1")
    assert first.events() == []

    second.consume("queue")
    assert second.bodies() == [b"1"]


def test_what_is_not_acknowledged_comes_again_first_and_marked(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    # given
    publisher, first, second = peers
    first.consume("queue", prefetch=3)
    publisher.publish(b"1", b"2", b"3", b"4", b"5")
    assert first.bodies() == [b"1", b"2", b"3"]
    first.acknowledge(2)  # 4 is on its way now

    # when
    first.close()
    second.consume("queue")

    # then
    deliveries = second.events()
    assert [(d.body, d.redelivered) for d in deliveries if isinstance(d, Delivery)] == [
        (b"1", True),
        (b"3", True),
        (b"4", True),
        (b"5", False),
    ]


def test_what_a_closed_connection_gives_back_goes_to_whoever_consumes(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    # given
    publisher, first, second = peers
    first.consume("queue")
    publisher.publish(b"1")
    second.consume("queue")
    assert second.events() == []

    # when
    first.close()

    # then
    assert second.bodies() == [b"1"]


def test_a_closed_connection_is_delivered_nothing(peers: tuple[Peer, Peer, Peer]) -> None:
    publisher, first, second = peers
    first.consume("queue")
    first.close()
    first.close()

    publisher.publish(b"1")
    second.consume("queue")

    assert second.bodies() == [b"1"]


def test_a_queue_that_is_unbound_gets_nothing_more_and_keeps_what_it_has(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    publisher, consumer, other = peers
    publisher.declare_queue(OTHER)
    publisher.publish(b"1")
    # when
    publisher.unbind_queue(OTHER)
    publisher.unbind_queue(OTHER)
    publisher.publish(b"2")
    # then
    consumer.consume("queue")
    other.consume("other")
    assert consumer.bodies() == [b"1", b"2"]
    assert other.bodies() == [b"1"]


def test_a_deleted_queue_is_gone_and_its_consumers_are_told(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    # given
    publisher, consumer, other = peers
    publisher.declare_queue(OTHER)
    tag = consumer.consume("queue").tag
    other.consume("other")

    # when
    publisher.delete_queue("queue")
    publisher.publish(b"1")

    # then
    assert consumer.events() == [Cancelled(tag)]
    assert other.bodies() == [b"1"]

    # when
    publisher.delete_queue("other")
    publisher.events()
    publisher.publish(b"2")

    # then
    assert isinstance(publisher.events()[0], Returned)


def test_a_deleted_exchange_takes_its_bindings_along_and_no_others(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    # given
    publisher, consumer, _ = peers
    elsewhere = QueueBinding("queue", "elsewhere", "key")
    publisher.declare_queue(elsewhere)
    consumer.consume("queue")

    # when
    for _ in range(2):
        publisher.delete_exchange("exchange")
    publisher.publish(b"1")
    publisher.publish(b"2", binding=elsewhere)

    # then
    assert isinstance(publisher.events()[0], Returned)
    assert consumer.bodies() == [b"2"]


def test_a_delivery_of_a_deleted_queue_can_still_be_acknowledged(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    publisher, consumer, _ = peers
    consumer.consume("queue")
    publisher.publish(b"1")

    publisher.delete_queue("queue")

    consumer.acknowledge(1)


def test_whether_there_is_a_queue_and_what_is_in_it_can_be_asked(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    publisher, consumer, _ = peers
    publisher.publish(b"1", b"2", b"3")
    # when
    consumer.consume("queue", prefetch=1)
    # then: what a consumer holds does not wait
    assert publisher.has_queue("queue")
    assert publisher.inspect_queue("queue") == QueueState(2, 1)

    # when
    publisher.delete_queue("queue")
    # then: asking made none
    for _ in range(2):
        assert not publisher.has_queue("queue")
        assert publisher.inspect_queue("queue") is None


def test_deleting_a_queue_that_does_not_exist_does_no_harm(peers: tuple[Peer, Peer, Peer]) -> None:
    publisher, consumer, _ = peers

    publisher.delete_queue("nothing")

    consumer.consume("queue")
    publisher.publish(b"1")
    assert consumer.bodies() == [b"1"]


def test_a_queue_that_is_declared_again_begins_empty(peers: tuple[Peer, Peer, Peer]) -> None:
    publisher, consumer, _ = peers
    publisher.publish(b"1")
    publisher.delete_queue("queue")

    publisher.declare_queue(QUEUE)
    consumer.consume("queue")

    assert consumer.bodies() == []


def test_declaring_a_queue_keeps_what_is_in_it(peers: tuple[Peer, Peer, Peer]) -> None:
    publisher, consumer, _ = peers
    publisher.publish(b"1")

    publisher.declare_queue(QUEUE, {"x-expires": 1000})
    consumer.consume("queue")

    assert consumer.bodies() == [b"1"]


def test_a_message_that_waits_longer_than_its_expiration_is_dropped(
    peers: tuple[Peer, Peer, Peer], clock: FakeTime
) -> None:
    # given
    publisher, consumer, _ = peers
    publisher.publish(b"1 s", expiration="1000")
    publisher.publish(b"for ever")
    publisher.publish(b"2 s", expiration="2000")
    publisher.publish(b"3 s", expiration="3000")

    # when
    clock.now += 2.0
    consumer.consume("queue")

    # then
    assert consumer.bodies() == [b"for ever", b"3 s"]


def test_a_message_that_was_delivered_in_time_does_not_expire(
    peers: tuple[Peer, Peer, Peer], clock: FakeTime
) -> None:
    publisher, consumer, _ = peers
    consumer.consume("queue")
    publisher.publish(b"1 s", expiration="1000")

    clock.now += 2.0

    assert consumer.bodies() == [b"1 s"]


def test_the_time_of_a_message_goes_on_while_a_consumer_holds_it(
    peers: tuple[Peer, Peer, Peer], clock: FakeTime
) -> None:
    publisher, first, second = peers
    first.consume("queue")
    publisher.publish(b"1 s", expiration="1000")

    clock.now += 2.0
    first.close()
    second.consume("queue")

    assert second.bodies() == []


def test_whoever_reads_is_woken_by_what_another_thread_publishes(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    # given
    publisher, consumer, _ = peers
    consumer.consume("queue")
    publisher_thread = threading.Thread(target=publisher.publish, args=(b"1",))
    publisher_thread.start()

    # when
    events: list[Event] = []
    while not events:  # a read may also end because a wake is left over
        events = read(consumer, LONG, consumer.waker)

    # then
    assert [event.body for event in events if isinstance(event, Delivery)] == [b"1"]
    publisher_thread.join(LONG)


def test_reading_ends_when_its_waker_is_woken_and_forgets_that(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    _, consumer, _ = peers
    consumer.waker.wake()

    assert read(consumer, None, consumer.waker) == []

    assert not select.select([consumer.waker], [], [], 0)[0]


def test_reading_does_not_wait_when_something_has_come(peers: tuple[Peer, Peer, Peer]) -> None:
    publisher, _, _ = peers
    publisher.publish(b"1")

    assert len(read(publisher, None, publisher.waker)) == 1


def test_nothing_is_ever_due_and_nothing_ever_in_the_way(peers: tuple[Peer, Peer, Peer]) -> None:
    assert peers[0].tick() is None
    assert not peers[0].congested


def test_between_many_threads_each_message_arrives_once(peers: tuple[Peer, Peer, Peer]) -> None:
    # given
    _, first, second = peers
    publishers = [Peer(first.broker_name) for _ in range(3)]
    total, taken = 3 * 500, []
    together = threading.Barrier(5)
    stop_at = time.monotonic() + LONG

    def publish(number: int, peer: Peer) -> None:
        together.wait(LONG)
        for each in range(500):
            peer.publish(b"%d.%d" % (number, each))

    def consume(peer: Peer) -> None:
        peer.consume("queue", prefetch=10)
        together.wait(LONG)
        while len(taken) < total and time.monotonic() < stop_at:
            for event in read(peer, 0.05, peer.waker):
                assert isinstance(event, Delivery)
                taken.append(event.body)
                peer.acknowledge(event.delivery_tag)

    threads = [
        *(threading.Thread(target=publish, args=each) for each in enumerate(publishers)),
        *(threading.Thread(target=consume, args=(peer,)) for peer in (first, second)),
    ]

    # when
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LONG)

    # then
    assert len(taken) == total
    assert len(set(taken)) == total
    for peer in publishers:
        peer.close()


def test_a_finalizer_in_the_middle_of_a_message_may_send_another(
    server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"memory://{server_id}"
    results: list[int] = []
    with (
        serving(server_id=server_id, hostname=place),
        QAMProxy(server_id, place, timeout=60) as one,
        QAMProxy(server_id, place, timeout=60) as other,
    ):
        put = memory._Broker.put

        def put_and_finalize(broker: Any, message: Any, now: float) -> bool:
            monkeypatch.setattr(memory._Broker, "put", put)
            other.callback(results.append).add(3, 4)
            return put(broker, message, now)

        monkeypatch.setattr(memory._Broker, "put", put_and_finalize)

        assert one.add(1, 2) == 3
        until(lambda: results == [7])
