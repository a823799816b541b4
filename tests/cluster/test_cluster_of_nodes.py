"""The cluster that tests of whole clusters use."""

import time

import amqp
import pytest

from tests.support.cluster import Cluster
from tests.support.rabbitmq import RabbitMQNode

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.rabbitmq]

CHOOSES_A_LEADER_WITHIN = 20.0  # seconds


def connect(node: RabbitMQNode) -> amqp.Connection:
    return amqp.Connection(f"{node.host}:{node.port}", node.username, node.password)


def publish(node: RabbitMQNode, queue: str, body: str) -> None:
    """Publish until the broker confirms it; each time on a new channel."""
    deadline = time.monotonic() + CHOOSES_A_LEADER_WITHIN
    while not confirmed(node, queue, body):
        assert time.monotonic() < deadline, f"nacked for {CHOOSES_A_LEADER_WITHIN} s"


def confirmed(node: RabbitMQNode, queue: str, body: str) -> bool:
    with connect(node) as connection:
        channel = connection.channel()
        channel.confirm_select()
        message = amqp.Message(body, delivery_mode=2)
        try:
            channel.basic_publish_confirm(message, routing_key=queue)
        except amqp.exceptions.MessageNacked:
            return False
        return True


def get(node: RabbitMQNode, queue: str) -> str:
    with connect(node) as connection:
        message = connection.channel().basic_get(queue, no_ack=True)
        assert message is not None
        body: str = message.body
        return body


def test_a_quorum_queue_survives_the_kill_of_the_node_that_a_client_is_connected_to(
    cluster: Cluster,
) -> None:
    first, second, third = cluster.nodes
    names = {node.name for node in cluster.nodes}
    assert [node.running_nodes() for node in cluster.nodes] == [names] * 3
    # given a quorum queue with a message
    connection = connect(first)
    connection.connect()
    connection.channel().queue_declare(
        "quorum", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
    )
    publish(first, "quorum", "before")
    # when
    cluster.kill(0)
    # then the client's connection is closed
    with pytest.raises((ConnectionError, amqp.ConnectionForced)):
        connection.drain_events(timeout=20)
    connection.collect()
    # and the others go on, with what was in the queue
    publish(second, "quorum", "after")
    assert [get(third, "quorum"), get(second, "quorum")] == ["before", "after"]
    assert second.running_nodes() == {second.name, third.name}
    # and the node comes back
    cluster.restart(0)
    assert third.running_nodes() == names
    publish(first, "quorum", "again")
    assert get(third, "quorum") == "again"
