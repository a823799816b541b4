"""Declares exchanges and queues on a channel of py-amqp.

If the broker refuses, it closes the channel; py-amqp then opens it again, but without its
consumers and confirms.
"""

from typing import Any

import amqp
from kombu import Exchange, Queue

from qam._broker.connect_errors import error_text
from qam._broker.connection import NotPermitted, QueueIsDown
from qam._broker.endpoint import Endpoint
from qam._broker.messages import QueueBinding, QueueState
from qam.exceptions import QAMConnectionException


def declare_exchange(channel: Any, endpoint: Endpoint, name: str) -> None:
    """Declare a durable direct exchange; if the user may not, check that it exists."""
    exchange = Exchange(name, type="direct", durable=True)(channel)
    try:
        exchange.declare()
    except amqp.AccessRefused:
        _expect_exchange(exchange, endpoint)


def _expect_exchange(exchange: Exchange, endpoint: Endpoint) -> None:
    try:
        exchange.declare(passive=True)
    except amqp.NotFound as error:
        raise amqp.NotFound(
            f"the exchange {exchange.name!r} does not exist, and the user "
            f"{endpoint.username!r} may not declare it; a server declares it when it starts, as a "
            "user that may"
        ) from error


def declare_queue(
    channel: Any, endpoint: Endpoint, binding: QueueBinding, arguments: dict[str, Any] | None
) -> None:
    """Declare a durable queue and bind it to its exchange.

    :raises QueueIsDown: the node of the cluster that has the queue is down.
    :raises NotPermitted: the user may not declare it.
    :raises QAMConnectionException: the queue exists with other arguments.
    """
    exchange = Exchange(binding.exchange, type="direct", durable=True, no_declare=True)
    queue = Queue(
        binding.queue,
        exchange=exchange,
        routing_key=binding.routing_key,
        durable=True,
        queue_arguments=arguments,
    )(channel)
    try:
        queue.declare()
    except amqp.NotFound as error:
        raise QueueIsDown(error_text(error)) from error
    except amqp.AccessRefused as error:
        raise NotPermitted(
            f"the user {endpoint.username!r} may not declare the queue {binding.queue} at "
            f"{endpoint}: {error_text(error)}",
            executed="no",
        ) from error
    except amqp.PreconditionFailed as error:
        failure = QAMConnectionException(
            f"the queue {binding.queue} at {endpoint} can't be declared with "
            f"these arguments: {error_text(error)}; pass the same queue_arguments on all sides, or "
            "delete the queue",
            executed="no",
        )
        failure.refused = True
        raise failure from error


def inspect_queue(channel: Any, queue: str) -> QueueState | None:
    """Return how many messages and consumers *queue* has; None if it does not exist."""
    try:
        found = channel.queue_declare(queue, passive=True)
    except amqp.NotFound:
        return None
    return QueueState(found.message_count, found.consumer_count)
