"""The queue in which a server hears the others, on a connection that notes what it is asked."""

from typing import Any

import pytest

from qam._broker.messages import QueueState
from qam._protocol.entities import siblings_binding
from qam._serialization.serializers import get_serializer
from qam._server.settings import ServerSettings
from qam._server.siblings_queue import SiblingsQueue
from qam.exceptions import QAMConnectionException
from tests.support.clock import StandingClock
from tests.support.endpoints import endpoint_of
from tests.support.fake_connection import FakeBroker

QUEUE = siblings_binding("server", "one").queue


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker(StandingClock())


def siblings_queue(**arguments: Any) -> SiblingsQueue:
    return SiblingsQueue(ServerSettings("server", get_serializer("json"), arguments), "one")


def open_again(queue: SiblingsQueue, broker: FakeBroker) -> bool:
    broker.connect(endpoint_of("here"), 1.0)
    return queue.open(broker.connection)


def test_it_may_have_missed_something_at_first_and_when_it_was_gone(broker: FakeBroker) -> None:
    queue = siblings_queue()
    assert queue.consumer_tag is None

    assert not open_again(queue, broker)
    assert broker.connection.did("inspect") == []
    assert open_again(queue, broker)
    broker.queue_states[QUEUE] = None
    assert not open_again(queue, broker)
    broker.queue_states[QUEUE] = QueueState(5, 0)
    assert open_again(queue, broker)

    assert queue.name == QUEUE
    assert queue.consumer_tag == broker.tag(QUEUE)
    assert [priority for _, _, priority in broker.consumed] == [1, 2, 3, 4]


def test_what_was_missed_is_not_forgotten_when_an_attempt_fails(broker: FakeBroker) -> None:
    # given a server that was away for so long that its queue is gone
    queue = siblings_queue()
    open_again(queue, broker)
    broker.queue_states[QUEUE] = None
    # when it declares that again, and loses its connection before it consumes
    broker.connect(endpoint_of("here"), 1.0)
    queue._declare(broker.connection)
    broker.queue_states[QUEUE] = QueueState(0, 0)
    # then it knows that it may have missed something
    assert not open_again(queue, broker)
    assert open_again(queue, broker)


def test_it_expires_and_is_of_the_type_of_the_request_queue(broker: FakeBroker) -> None:
    assert siblings_queue()._arguments == {"x-expires": 10_000}
    quorum = siblings_queue(**{"x-queue-type": "quorum", "x-max-length": 5})
    assert quorum._arguments == {"x-expires": 10_000, "x-queue-type": "quorum"}


def test_while_its_node_is_down_another_takes_its_place(broker: FakeBroker) -> None:
    # given
    queue = siblings_queue()
    open_again(queue, broker)
    broker.queues_down.add(QUEUE)
    # when
    assert not open_again(queue, broker)
    # then
    assert queue.name == f"{QUEUE}.1"
    assert broker.consumed[-1][0] == f"{QUEUE}.1"
    queue.delete(broker.connection)
    assert broker.connection.did("delete") == [f"{QUEUE}.1"]


def test_where_the_broker_does_not_answer_twice_another_takes_its_place(broker: FakeBroker) -> None:
    # given
    queue = siblings_queue()
    open_again(queue, broker)
    broker.queues_silent.add(QUEUE)
    for _ in range(2):
        with pytest.raises(QAMConnectionException, match="no answer"):
            open_again(queue, broker)
    # when
    assert not open_again(queue, broker)
    # then
    assert queue.name == f"{QUEUE}.1"
    assert broker.consumed[-1][0] == f"{QUEUE}.1"


def test_its_name_does_not_grow_however_often_another_takes_its_place(broker: FakeBroker) -> None:
    queue = siblings_queue()
    open_again(queue, broker)
    for number in range(1, 30):
        broker.queues_silent.add(queue.name)
        for _ in range(2):
            with pytest.raises(QAMConnectionException, match="no answer"):
                open_again(queue, broker)
        assert not open_again(queue, broker)
        assert queue.name == f"{QUEUE}.{number}"


def test_a_word_reaches_all_of_them(broker: FakeBroker) -> None:
    message = siblings_queue().message(b"word")

    assert message.route == siblings_binding("server", "").route
    assert message.body == b"word"
    assert not message.mandatory
    assert message.confirm
    assert message.properties == {"content_type": "application/json", "delivery_mode": 2}


def test_it_is_declared_again_where_somebody_has_deleted_its_exchange(broker: FakeBroker) -> None:
    queue = siblings_queue()
    open_again(queue, broker)
    exchanges = broker.connection.did("declare exchange")

    queue.declare_again(broker.connection)

    assert broker.connection.did("declare exchange") == 2 * exchanges
    assert broker.connection.did("declare queue") == [QUEUE, QUEUE]
    assert QUEUE in str(queue.deleted())


def test_who_leaves_takes_it_out_of_the_route_before_it_is_deleted(broker: FakeBroker) -> None:
    queue = siblings_queue()
    open_again(queue, broker)

    queue.unbind(broker.connection)
    assert broker.connection.did("unbind") == [QUEUE]
    assert broker.connection.did("delete") == []

    queue.delete(broker.connection)
    assert broker.connection.did("delete") == [QUEUE]
