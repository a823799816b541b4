"""The queue by which servers are counted, on a connection that notes what it is asked."""

from typing import Any

import pytest

from qam._broker import silence
from qam._broker.messages import QueueState
from qam._protocol.entities import presence_binding, siblings_binding
from qam._serialization.serializers import get_serializer
from qam._server.presence_queue import PresenceQueue
from qam._server.settings import ServerSettings
from qam.exceptions import QAMConnectionException
from tests.support.clock import StandingClock, move
from tests.support.endpoints import endpoint_of
from tests.support.fake_connection import FakeBroker

QUEUE = presence_binding("server").queue


@pytest.fixture
def broker() -> FakeBroker:
    broker = FakeBroker(StandingClock())
    broker.connect(endpoint_of("here"), 1.0)
    return broker


def presence_queue(**arguments: Any) -> PresenceQueue:
    return PresenceQueue(ServerSettings("server", get_serializer("json"), arguments))


@pytest.mark.parametrize(
    ("before", "follows"), [(None, False), (QueueState(0, 1), False), (QueueState(0, 0), True)]
)
def test_a_queue_without_a_consumer_is_that_of_one_that_has_just_gone(
    broker: FakeBroker, before: QueueState | None, follows: bool
) -> None:
    broker.queue_states[QUEUE] = before
    assert presence_queue().declare(broker.connection) is follows
    assert broker.connection.did("declare queue") == [QUEUE]


def test_what_somebody_has_deleted_is_declared_again(broker: FakeBroker) -> None:
    queue = presence_queue()
    queue.declare(broker.connection)

    queue.declare_again(broker.connection)

    exchange = presence_binding("server").exchange
    assert broker.connection.did("declare exchange") == [exchange, exchange]
    assert broker.connection.did("declare queue") == [QUEUE, QUEUE]


def test_no_word_gets_into_it() -> None:
    presence, words = presence_binding("server"), siblings_binding("server", "one")
    assert presence.exchange == words.exchange
    assert presence.routing_key != words.routing_key


def test_the_others_are_counted_without_this_one(broker: FakeBroker) -> None:
    queue = presence_queue()
    assert queue.count_others(broker.connection) is None
    queue.declare(broker.connection)
    queue.consume(broker.connection)
    assert queue.consumer_tag == broker.tag(QUEUE)
    broker.queue_states[QUEUE] = QueueState(0, 3)
    assert queue.count_others(broker.connection) == 2


def test_a_queue_that_is_not_there_any_more_is_an_error(broker: FakeBroker) -> None:
    queue = presence_queue()
    queue.declare(broker.connection)
    queue.consume(broker.connection)
    broker.queue_states[QUEUE] = None
    with pytest.raises(QAMConnectionException, match=f"the queue {QUEUE} was deleted"):
        queue.count_others(broker.connection)


def test_where_the_broker_does_not_answer_twice_nobody_is_counted(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = presence_queue()
    clock = move(monkeypatch, silence)
    broker.queues_silent.add(QUEUE)
    for _ in range(2):
        with pytest.raises(QAMConnectionException, match="no answer"):
            queue.declare(broker.connection)
    # when
    assert not queue.declare(broker.connection)
    queue.consume(broker.connection)
    # then
    assert queue.count_others(broker.connection) is None
    # and it is not asked again and again, each time at the cost of the connection
    queue.declare_again(broker.connection)
    assert not queue.declare(broker.connection)
    # when it is asked again after a while, and answers
    clock.advance(301.0)
    broker.queues_silent.clear()
    queue.declare(broker.connection)
    queue.consume(broker.connection)
    assert queue.consumer_tag == broker.tag(QUEUE)


def test_while_its_node_is_down_nobody_is_counted(broker: FakeBroker) -> None:
    queue = presence_queue()
    broker.queues_down.add(QUEUE)
    queue.declare(broker.connection)
    queue.consume(broker.connection)
    assert queue.consumer_tag is None
    assert queue.count_others(broker.connection) is None
    # when another connection is opened later
    broker.queues_down.clear()
    broker.connect(endpoint_of("here"), 1.0)
    queue.declare(broker.connection)
    queue.consume(broker.connection)
    assert queue.consumer_tag == broker.tag(QUEUE)
