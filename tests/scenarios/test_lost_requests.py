"""An operator or a policy takes requests out of their queue, or puts them back too late."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import amqp
import pytest

from qam import QAMProxy, QAMServer, QAMTimeoutException
from qam._protocol.entities import request_binding
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import serving
from tests.support.waiting import until

pytestmark = pytest.mark.rabbitmq


@contextmanager
def channel_of(node: RabbitMQNode) -> Iterator[amqp.Channel]:
    with amqp.Connection(f"{node.host}:{node.port}") as connection:
        yield connection.channel()


@pytest.fixture
def known(place: dict[str, Any], server_id: str) -> str:
    """The request queue of a server that was there, and is not now."""
    with QAMServer(server_id=server_id, **place):
        return request_binding(server_id).queue


def assert_served(server_id: str, place: dict[str, Any], proxy: QAMProxy) -> None:
    """A server that comes now answers that proxy."""
    with serving(server_id=server_id, **place):
        assert proxy.set_timeout(60).add(2, 3) == 5


# --- where no client can know ---------------------------------------------------------------


def deleted(node: RabbitMQNode, queue: str) -> None:
    node.delete_queue(queue)


def purged(node: RabbitMQNode, queue: str) -> None:
    with channel_of(node) as channel:
        assert channel.queue_purge(queue) == 1


@pytest.mark.parametrize("fault", [deleted, purged], ids=["deleted", "purged"])
def test_a_call_whose_request_an_operator_deletes_ends_by_its_timeout(
    fault: Callable[[RabbitMQNode, str], None],
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    known: str,
) -> None:
    # given a request that waits in its queue
    errors: list[Exception] = []
    with QAMProxy(server_id, **place) as proxy:
        uid = proxy.callback(None, errors.append).set_timeout(2).add(1, 2)
        until(lambda: rabbitmq_node.queues()[known] == 1)

        # when
        fault(rabbitmq_node, known)
        until(lambda: proxy.get_callback_state(uid) == 2)

        # then
        [error] = errors
        assert type(error) is QAMTimeoutException
        assert error.executed == "unknown"
        assert_served(server_id, place, proxy)


@pytest.mark.parametrize("definition", ['{"message-ttl":0}', '{"max-length":0}'])
def test_a_call_whose_request_a_policy_drops_ends_by_its_timeout(
    definition: str,
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    known: str,
) -> None:
    with QAMProxy(server_id, **place) as proxy:
        with (
            rabbitmq_node.policy(f"^{known}$", "queues", definition),
            pytest.raises(QAMTimeoutException) as late,
        ):
            proxy.set_timeout(1).add(1, 2)

        assert late.value.executed == "unknown"
        assert_served(server_id, place, proxy)


def test_a_call_whose_request_an_alternate_exchange_takes_ends_by_its_timeout(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str, known: str
) -> None:
    # given: the alternate exchange has a queue, so that no request comes back
    exchange, other = request_binding(server_id).exchange, f"{server_id}_other"
    with channel_of(rabbitmq_node) as channel:
        channel.queue_delete(known)
        channel.exchange_declare(other, "fanout", durable=True, auto_delete=False)
        channel.queue_declare(other, durable=True, auto_delete=False)
        channel.queue_bind(other, other)

        # when
        definition = f'{{"alternate-exchange":"{other}"}}'
        with (
            rabbitmq_node.policy(f"^{exchange}$", "exchanges", definition),
            QAMProxy(server_id, **place) as proxy,
            pytest.raises(QAMTimeoutException) as late,
        ):
            proxy.set_timeout(1).add(1, 2)

        # then
        assert late.value.executed == "unknown"
        channel.queue_delete(other)
        channel.exchange_delete(other)


def test_a_queue_that_is_full_and_refuses_gets_the_request_later(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    # given a queue that refuses from the first message on, as one of quorum does not
    queue = request_binding(server_id).queue
    results: list[Any] = []
    full = '{"max-length":0,"overflow":"reject-publish"}'
    classic = {"x-queue-type": "classic"}
    with (
        serving(server_id=server_id, queue_arguments=classic, **place),
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        assert proxy.add(1, 2) == 3

        # when the queue takes nothing, and then does again
        with rabbitmq_node.policy(f"^{queue}$", "queues", full):
            proxy.callback(results.append, results.append).add(3, 4)
            until(lambda: any(call.times_refused for call in open_calls(proxy)))
        until(lambda: bool(results))

        # then
        assert results == [7]


def open_calls(proxy: QAMProxy) -> list[Any]:
    return [slot["call"] for slot in proxy._results.slots if slot["call"] is not None]


# --- where the server knows ----------------------------------------------------------------


def test_a_server_whose_queue_is_deleted_warns_and_serves_on(
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(server_id=server_id, **place), QAMProxy(server_id, timeout=60, **place) as proxy:
        assert proxy.add(1, 2) == 3

        # when
        rabbitmq_node.delete_queue(request_binding(server_id).queue)

        # then
        warning = re.compile(
            f"the request queue of {server_id!r} was (deleted|cancelled, .*), "
            "(or the queue is being deleted, )?perhaps with requests in it"
        )
        until(lambda: warning.search(caplog.text))
        levels = {each.levelname for each in caplog.records if warning.search(each.message)}
        assert levels == {"WARNING"}
        assert proxy.add(2, 3) == 5


# --- dead-lettered requests -------------------------------------------------------------------


def move_back(channel: amqp.Channel, source: str, server_id: str) -> None:
    """Move all messages of a queue into the request queue, as an operator does."""
    binding = request_binding(server_id)
    while (message := channel.basic_get(source, no_ack=True)) is not None:
        channel.basic_publish(message, binding.exchange, binding.routing_key)


@pytest.mark.parametrize(
    "definition",
    ["", ',"message-ttl":0', ',"max-length":0'],
    ids=["expired by itself", "expired by a policy", "dropped by a policy"],
)
def test_a_dead_lettered_request_that_is_moved_back_is_not_started_after_its_callers_time(
    definition: str,
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    known: str,
) -> None:
    # given a request that went to a queue of dead letters, and whose caller has gone
    dead = f"{server_id}_dead"
    letters = f'{{"dead-letter-exchange":"","dead-letter-routing-key":"{dead}"{definition}}}'
    with channel_of(rabbitmq_node) as channel, QAMProxy(server_id, **place) as proxy:
        channel.queue_declare(dead, durable=True, auto_delete=False)
        with rabbitmq_node.policy(f"^{known}$", "queues", letters):
            with pytest.raises(QAMTimeoutException):
                proxy.set_timeout(1).add(6, 7)
            until(lambda: rabbitmq_node.queues()[dead] == 1)

        # when it is moved back, and a server comes
        move_back(channel, dead, server_id)
        until(lambda: rabbitmq_node.queues()[known] == 1)
        with serving(server_id=server_id, **place) as service:
            assert proxy.set_timeout(60).add(2, 3) == 5

            # then
            assert service.runs == [(2, 3)]
            until(lambda: rabbitmq_node.queues()[known] == 0)
        channel.queue_delete(dead)


def test_one_whose_caller_has_no_timeout_is_answered(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str, known: str
) -> None:
    # given
    dead, results = f"{server_id}_dead", list[Any]()
    dropped = f'{{"dead-letter-exchange":"","dead-letter-routing-key":"{dead}","message-ttl":0}}'
    with channel_of(rabbitmq_node) as channel, QAMProxy(server_id, **place) as proxy:
        channel.queue_declare(dead, durable=True, auto_delete=False)
        with rabbitmq_node.policy(f"^{known}$", "queues", dropped):
            proxy.callback(results.append, results.append).add(6, 7)
            until(lambda: rabbitmq_node.queues()[dead] == 1)

        # when
        move_back(channel, dead, server_id)
        with serving(server_id=server_id, **place):
            until(lambda: bool(results))

        # then
        assert results == [13]
        channel.queue_delete(dead)


# --- what a quorum queue has delivered too often ---------------------------------------------


def delivered_in_vain(node: RabbitMQNode, queue: str) -> None:
    """Somebody takes the one message of that queue, and goes without an ack."""
    taken: list[amqp.Message] = []
    with amqp.Connection(f"{node.host}:{node.port}") as connection:
        connection.channel().basic_consume(queue, callback=taken.append)
        while not taken:
            connection.drain_events(timeout=60)


def why_dead(channel: amqp.Channel, queue: str) -> Any:
    """The reason for which the first message of that queue is there; it stays there."""
    message = channel.basic_get(queue)
    channel.basic_reject(message.delivery_tag, requeue=True)
    return message.headers["x-first-death-reason"]


# RabbitMQ 4 has a limit of 20 where nothing else is said.
TWICE_AT_MOST = {"x-queue-type": "quorum", "x-delivery-limit": 1}


def test_a_request_that_is_delivered_too_often_is_a_dead_letter(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    # given
    queue, dead, results = request_binding(server_id).queue, f"{server_id}_dead", list[Any]()
    letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    kind = {**place, "queue_arguments": TWICE_AT_MOST | letters}
    with QAMServer(server_id=server_id, **kind):
        pass
    with channel_of(rabbitmq_node) as channel, QAMProxy(server_id, **place) as proxy:
        channel.queue_declare(dead, durable=True, auto_delete=False)
        uid = proxy.callback(results.append, results.append).add(6, 7)
        until(lambda: rabbitmq_node.queues()[queue] == 1)

        # when
        delivered_in_vain(rabbitmq_node, queue)
        delivered_in_vain(rabbitmq_node, queue)

        # then its caller is not told
        until(lambda: rabbitmq_node.queues()[dead] == 1)
        assert proxy.get_callback_state(uid) == 0

        # and when it is moved back
        assert why_dead(channel, dead) == "delivery_limit"
        move_back(channel, dead, server_id)
        with serving(server_id=server_id, **kind):
            until(lambda: bool(results))

        # then
        assert results == [13]
        channel.queue_delete(dead)


def test_a_method_that_runs_is_answered_if_its_request_was_delivered_too_often(
    rabbitmq_node: RabbitMQNode, place: dict[str, Any], server_id: str
) -> None:
    # given a method that runs
    queue, results = request_binding(server_id).queue, list[Any]()
    with (
        serving(server_id=server_id, **place, queue_arguments=TWICE_AT_MOST) as service,
        QAMProxy(server_id, timeout=60, **place) as proxy,
    ):
        proxy.callback(results.append, results.append).hold("done")
        assert service.holding.wait(60)

        # when the connection of its server is lost so often that the broker drops the request
        while rabbitmq_node.queues()[queue]:
            rabbitmq_node.close_all_connections("tests")
            until(lambda: rabbitmq_node.queues()[queue] == 0 or rabbitmq_node.consumers(queue) == 1)
        service.go_on.set()

        # then
        until(lambda: bool(results))
        assert results == ["done"]
