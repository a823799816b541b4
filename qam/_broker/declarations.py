"""Exchanges and queues, declared on a channel of py-amqp.

A refusal closes the channel, and py-amqp then opens it again: without its consumers and confirms.
"""

from typing import Any

import amqp
from kombu import Exchange, Queue

from qam._broker.connect_errors import words
from qam._broker.connection import QueueIsDown
from qam._broker.endpoint import Endpoint
from qam._broker.messages import QueueBinding, QueueState
from qam.exceptions import QAMConnectionException


def declare_exchange(channel: Any, endpoint: Endpoint, name: str) -> None:
    """Declare a durable direct exchange; a user who may not do that needs only that it is there."""
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
            f"{endpoint.username!r} may not declare it; its server does that when it starts"
        ) from error


def declare_queue(
    channel: Any, endpoint: Endpoint, binding: QueueBinding, arguments: dict[str, Any] | None
) -> None:
    """Declare a durable queue and bind it to its exchange.

    :raises QueueIsDown: its node of a cluster is not there.
    :raises QAMConnectionException: it is there, with other arguments.
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
        raise QueueIsDown(words(error)) from error
    except amqp.PreconditionFailed as error:
        raise QAMConnectionException(
            f"the queue {binding.queue} at {endpoint} can't be declared like "
            f"this: {words(error)}; give the same queue_arguments on all sides, or "
            "delete the queue",
            executed="no",
        ) from error


def inspect_queue(channel: Any, queue: str) -> QueueState | None:
    """Return what waits in *queue*, and how many consumers it has; None if it is not there."""
    try:
        found = channel.queue_declare(queue, passive=True)
    except amqp.NotFound:
        return None
    return QueueState(found.message_count, found.consumer_count)
