from typing import Any

import pytest

from qam._broker.connection import QueueIsDown
from qam._broker.events import Consumer
from qam._broker.messages import QueueBinding, QueueState
from qam._client.reply_queue import ReplyQueue
from qam.exceptions import QAMConnectionException

QUEUE = "client_client_queue"


class Broker:
    """A connection that notes what is asked of it; its queues can be down or deleted."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.down: set[str] = set()
        #: The queues about which it does not answer.
        self.silent: set[str] = set()
        self.bindings: list[QueueBinding] = []
        self.arguments: dict[str, Any] = {}
        self.consumers: list[dict[str, Any]] = []

    def declare_exchange(self, name: str) -> None:
        pass

    def inspect_queue(self, queue: str) -> QueueState | None:
        if queue in self.silent:
            failure = QAMConnectionException("no answer")
            failure.unanswered = True
            raise failure
        return QueueState(0, 0) if queue in self.there else None

    def declare_queue(self, binding: QueueBinding, arguments: dict[str, Any]) -> None:
        if binding.queue in self.down:
            raise QueueIsDown("its node is down")
        self.there.add(binding.queue)
        self.bindings.append(binding)
        self.arguments = arguments

    def consume(self, queue: str, **options: Any) -> Consumer:
        self.consumers.append(options)
        return Consumer(queue, f"tag {len(self.consumers)}")

    def delete_queue(self, name: str) -> None:
        self.there.discard(name)


@pytest.fixture
def broker() -> Any:
    return Broker()


def reply_queue(persistent: bool = True) -> ReplyQueue:
    return ReplyQueue("server", "client", {"x-queue-type": "quorum"}, 1000, persistent)


def test_it_expires_and_is_declared_as_the_user_wants(broker: Any) -> None:
    consumer, replies_lost = reply_queue().open(broker)

    assert consumer.queue == QUEUE
    assert not replies_lost
    assert broker.arguments == {"x-expires": 1_800_000, "x-queue-type": "quorum"}
    assert broker.consumers == [{"priority": 0, "no_ack": False, "max_bytes": 1000}]


def test_replies_that_nobody_keeps_are_not_acknowledged(broker: Any) -> None:
    reply_queue(persistent=False).open(broker)

    assert broker.consumers[0]["no_ack"]


def test_each_connection_consumes_with_a_higher_priority_than_the_last(broker: Any) -> None:
    queue = reply_queue()
    for _ in range(3):
        assert not queue.open(broker)[1]

    assert [each["priority"] for each in broker.consumers] == [0, 1, 2]


@pytest.mark.parametrize("told", [True, False])
def test_that_replies_were_lost_with_it_is_told_once(broker: Any, told: bool) -> None:
    queue = reply_queue()
    queue.open(broker)
    broker.there.clear()
    if told:
        assert QUEUE in str(queue.deleted())

    assert queue.open(broker)[1]
    assert not queue.open(broker)[1]


def test_while_its_node_is_down_another_takes_its_place_under_the_same_key(broker: Any) -> None:
    # given
    queue = reply_queue()
    queue.open(broker)
    broker.down.add(QUEUE)

    # when
    consumer, replies_lost = queue.open(broker)

    # then
    assert consumer.queue != QUEUE
    assert not replies_lost
    assert len({each.routing_key for each in broker.bindings}) == 1

    # and in the end neither is left behind
    queue.delete(broker)
    assert broker.there == set()


def test_where_the_broker_does_not_answer_twice_another_takes_its_place(broker: Any) -> None:
    # given
    queue = reply_queue()
    queue.open(broker)
    broker.silent.add(QUEUE)
    for _ in range(2):
        with pytest.raises(QAMConnectionException, match="no answer"):
            queue.open(broker)
    # when
    consumer, replies_lost = queue.open(broker)
    # then
    assert consumer.queue != QUEUE
    assert replies_lost
    assert len({each.routing_key for each in broker.bindings}) == 1
