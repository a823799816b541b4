"""The model of the broker does what a RabbitMQ node does: small stories, played on both."""

import uuid
from collections.abc import Callable
from dataclasses import asdict

import pytest

from tests.simulation.stages import ModelStage, Stage, on_node
from tests.support.rabbitmq import RabbitMQNode

#: How often each is played on the model, each time with other luck.
_TIMES = 20


def everything_is_delivered_in_order_and_confirmed(stage: Stage) -> None:
    stage.declare("publisher")
    stage.consume("one")
    stage.publish("publisher", *"abcdef")
    stage.hears("publisher", lambda heard: len(heard.confirmed) == 6)
    stage.hears("one", lambda heard: len(heard.delivered) == 6)


def what_no_queue_takes_is_returned_and_the_rest_confirmed(stage: Stage) -> None:
    stage.declare("publisher")
    stage.publish("publisher", "a")
    stage.hears("publisher", lambda heard: heard.confirmed)
    stage.connection("publisher").delete_queue(stage.binding.queue)
    stage.publish("publisher", "b", "c")
    stage.hears("publisher", lambda heard: len(heard.returned) == 2)


def what_no_queue_takes_and_nobody_misses_is_confirmed(stage: Stage) -> None:
    stage.connection("publisher").declare_exchange(stage.binding.exchange)
    stage.publish("publisher", "a", mandatory=False)
    stage.hears("publisher", lambda heard: heard.confirmed)


def a_consumer_holds_no_more_than_its_prefetch(stage: Stage) -> None:
    stage.declare("publisher")
    stage.publish("publisher", *"abcde")
    stage.hears("publisher", lambda heard: len(heard.confirmed) == 5)
    stage.consume("one", prefetch=2)
    stage.hears("one", lambda heard: len(heard.delivered) == 2)
    stage.state(messages=3, consumers=1)
    stage.nothing_more("one")
    stage.acknowledge("one", 1)
    stage.hears("one", lambda heard: len(heard.delivered) == 3)
    stage.acknowledge("one", 2, multiple=True)
    stage.hears("one", lambda heard: len(heard.delivered) == 5)


def what_a_lost_connection_had_comes_again_marked_and_first(stage: Stage) -> None:
    stage.declare("publisher")
    stage.publish("publisher", *"abcd")
    stage.hears("publisher", lambda heard: len(heard.confirmed) == 4)
    stage.consume("one", prefetch=3)
    stage.hears("one", lambda heard: len(heard.delivered) == 3)
    stage.acknowledge("one", 1)
    stage.hears("one", lambda heard: len(heard.delivered) == 4)
    stage.cut("one")
    stage.state(messages=3, consumers=0)
    stage.publish("publisher", "e")
    stage.hears("publisher", lambda heard: len(heard.confirmed) == 5)
    stage.consume("other")
    stage.hears("other", lambda heard: len(heard.delivered) == 4)


def what_was_not_delivered_is_not_marked(stage: Stage) -> None:
    stage.declare("publisher")
    stage.publish("publisher", *"abc")
    stage.hears("publisher", lambda heard: len(heard.confirmed) == 3)
    stage.consume("one", prefetch=1)
    stage.hears("one", lambda heard: heard.delivered)
    stage.connection("one").close()
    stage.state(messages=3, consumers=0)
    stage.consume("other")
    stage.hears("other", lambda heard: len(heard.delivered) == 3)


def what_has_expired_is_not_delivered(stage: Stage) -> None:
    stage.declare("publisher")
    stage.publish("publisher", "a", expiration="1")
    stage.publish("publisher", "b", expiration="600000")
    stage.publish("publisher", "c")
    stage.hears("publisher", lambda heard: len(heard.confirmed) == 3)
    stage.state(messages=2, consumers=0)
    stage.consume("one")
    stage.hears("one", lambda heard: len(heard.delivered) == 2)


def what_expires_behind_another_waits_for_it(stage: Stage) -> None:
    stage.declare("publisher")
    stage.publish("publisher", "a")
    stage.publish("publisher", "b", expiration="1")
    stage.hears("publisher", lambda heard: len(heard.confirmed) == 2)
    stage.state(messages=2, consumers=0)
    stage.consume("one", prefetch=1)
    stage.hears("one", lambda heard: heard.delivered)
    stage.acknowledge("one", 0)
    stage.state(messages=0, consumers=1)
    stage.nothing_more("one")


def who_consumes_learns_that_the_queue_is_deleted(stage: Stage) -> None:
    stage.declare("publisher")
    stage.consume("one")
    stage.consume("other")
    stage.publish("publisher", "a")
    stage.hears("publisher", lambda heard: heard.confirmed)
    stage.connection("inspector").delete_queue(stage.binding.queue)
    stage.hears("one", lambda heard: heard.cancelled)
    stage.hears("other", lambda heard: heard.cancelled)
    stage.publish("publisher", "b")
    stage.hears("publisher", lambda heard: heard.returned)


def who_has_the_higher_priority_gets_all(stage: Stage) -> None:
    stage.declare("publisher")
    stage.consume("one")
    stage.consume("other", priority=1)
    stage.publish("publisher", *"abc")
    stage.hears("other", lambda heard: len(heard.delivered) == 3)
    stage.nothing_more("one")


def two_consumers_take_turns(stage: Stage) -> None:
    stage.declare("publisher")
    stage.consume("one")
    stage.consume("other")
    stage.publish("publisher", *"abcd")
    stage.hears("one", lambda heard: len(heard.delivered) == 2)
    stage.hears("other", lambda heard: len(heard.delivered) == 2)


def what_is_rejected_does_not_come_again(stage: Stage) -> None:
    stage.declare("publisher")
    stage.consume("one")
    stage.publish("publisher", *"ab")
    stage.hears("one", lambda heard: len(heard.delivered) == 2)
    connection = stage.connection("one")
    connection.reject(stage._tags["one"][0])
    connection.flush()
    connection.inspect_queue(stage.binding.queue)  # it has arrived then
    stage.cut("one")
    stage.state(messages=1, consumers=0)
    stage.consume("other")
    stage.hears("other", lambda heard: heard.delivered)


def what_a_cancelled_consumer_has_can_be_acknowledged(stage: Stage) -> None:
    stage.declare("publisher")
    consumer = stage.consume("one", prefetch=1)
    stage.publish("publisher", *"ab")
    stage.hears("one", lambda heard: heard.delivered)
    stage.connection("one").cancel(consumer)
    stage.state(messages=1, consumers=0)
    stage.acknowledge("one", 0)
    stage.connection("one").inspect_queue(stage.binding.queue)
    stage.connection("one").close()
    stage.consume("other")
    stage.hears("other", lambda heard: heard.delivered)


def a_quorum_queue_marks_what_was_delivered(stage: Stage) -> None:
    stage.declare("publisher", **{"x-queue-type": "quorum"})
    stage.publish("publisher", *"abc")
    stage.hears("publisher", lambda heard: len(heard.confirmed) == 3)
    stage.consume("one", prefetch=2)
    stage.hears("one", lambda heard: len(heard.delivered) == 2)
    stage.cut("one")
    stage.state(messages=3, consumers=0)
    stage.consume("other")
    stage.hears("other", lambda heard: len(heard.delivered) == 3)


def a_quorum_queue_drops_what_came_back_too_often(stage: Stage) -> None:
    stage.declare("publisher", **{"x-queue-type": "quorum", "x-delivery-limit": 1})
    stage.publish("publisher", "a")
    stage.hears("publisher", lambda heard: heard.confirmed)
    for name in ("one", "other"):
        stage.consume(name)
        stage.hears(name, lambda heard: heard.delivered)
        stage.cut(name)
    stage.state(messages=0, consumers=0)


def a_killed_broker_marks_all_that_it_recovers(stage: Stage) -> None:
    stage.declare("publisher")
    stage.publish("publisher", *"abcd")
    stage.hears("publisher", lambda heard: len(heard.confirmed) == 4)
    stage.consume("one", prefetch=1)
    stage.hears("one", lambda heard: heard.delivered)
    stage.kill_and_restart()
    stage.hears("one", lambda heard: heard.lost)
    stage.consume("other")
    stage.hears("other", lambda heard: len(heard.delivered) == 4)


STORIES: list[Callable[[Stage], None]] = [
    everything_is_delivered_in_order_and_confirmed,
    what_no_queue_takes_is_returned_and_the_rest_confirmed,
    what_no_queue_takes_and_nobody_misses_is_confirmed,
    a_consumer_holds_no_more_than_its_prefetch,
    what_a_lost_connection_had_comes_again_marked_and_first,
    what_was_not_delivered_is_not_marked,
    what_has_expired_is_not_delivered,
    what_expires_behind_another_waits_for_it,
    who_consumes_learns_that_the_queue_is_deleted,
    who_has_the_higher_priority_gets_all,
    two_consumers_take_turns,
    what_is_rejected_does_not_come_again,
    what_a_cancelled_consumer_has_can_be_acknowledged,
    a_quorum_queue_marks_what_was_delivered,
    a_quorum_queue_drops_what_came_back_too_often,
]


def journal_of(story: Callable[[Stage], None], stage: Stage) -> dict[str, object]:
    """What each connection has heard when *story* was played on *stage*."""
    story(stage)
    return {name: asdict(heard) for name, heard in sorted(stage.heard.items())}


def compare(story: Callable[[Stage], None], node: RabbitMQNode) -> None:
    with on_node(f"{story.__name__}_{uuid.uuid4().hex[:8]}", node) as stage:
        real = journal_of(story, stage)
    for seed in range(_TIMES):
        assert journal_of(story, ModelStage("queue", seed)) == real
    assert any(heard != asdict(type(stage.heard["nobody"])()) for heard in real.values())


@pytest.mark.parametrize("story", STORIES, ids=lambda story: str(story.__name__))
def test_a_story_goes_the_same_way_on_the_model_and_on_a_node(
    story: Callable[[Stage], None], rabbitmq_node: RabbitMQNode
) -> None:
    compare(story, rabbitmq_node)


def test_and_so_does_one_in_which_the_broker_is_killed(own_node: RabbitMQNode) -> None:
    compare(a_killed_broker_marks_all_that_it_recovers, own_node)
