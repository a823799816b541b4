"""An operator deletes exchanges and bindings: they are declared again."""

from contextlib import suppress
from typing import Any

import amqp
import pytest

from qam import QAMConnectionException, QAMProxy, QAMServerNotFoundException
from qam._broker import upkeep
from qam._protocol.entities import reply_exchange, request_binding
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import serving
from tests.support.waiting import finish

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120)]


@pytest.mark.parametrize("which", ["requests", "replies"])
def test_a_deleted_exchange_costs_no_call_its_result(
    which: str,
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a server that has answered, and an upkeep that does not take its time
    monkeypatch.setattr(upkeep, "_INTERVAL", 1.0)
    results: list[Any] = []
    with serving(server_id=server_id, **place), QAMProxy(server_id, timeout=60, **place) as proxy:
        assert proxy.add(1, 2) == 3
        # when
        request_exchange = request_binding(server_id).exchange
        exchange = request_exchange if which == "requests" else reply_exchange(server_id)
        with amqp.Connection(f"{rabbitmq_node.host}:{rabbitmq_node.port}") as connection:
            connection.channel().exchange_delete(exchange)
        # then
        for number in range(5):
            proxy.callback(results.append, results.append).add(number, 1)
        assert proxy.add(5, 1) == 6
        finish(proxy)
        assert sorted(results) == [1, 2, 3, 4, 5]


def test_a_deleted_binding_too(
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep, "_INTERVAL", 1.0)
    with serving(server_id=server_id, **place), QAMProxy(server_id, timeout=60, **place) as proxy:
        assert proxy.add(1, 2) == 3
        binding = request_binding(server_id)
        with amqp.Connection(f"{rabbitmq_node.host}:{rabbitmq_node.port}") as connection:
            connection.channel().queue_unbind(binding.queue, binding.exchange, binding.routing_key)
        assert proxy.add(2, 3) == 5


@pytest.mark.parametrize("which", ["exchange", "binding"])
def test_a_proxy_that_never_heard_its_server_is_not_told_that_there_is_none(
    which: str,
    rabbitmq_node: RabbitMQNode,
    place: dict[str, Any],
    server_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep, "_INTERVAL", 1.0)
    binding = request_binding(server_id)
    with serving(server_id=server_id, **place), QAMProxy(server_id, timeout=60, **place) as proxy:
        # given what was deleted while the server serves
        if which == "exchange":
            rabbitmq_node.delete_exchange(binding.exchange)
            with suppress(QAMConnectionException):  # the broker closes the channel for the first
                proxy.add(1, 2)
        else:
            rabbitmq_node.unbind(*binding)
        # when, then
        assert proxy.add(2, 3) == 5


def test_a_proxy_of_no_server_is_told_so_and_can_go_on(
    place: dict[str, Any], server_id: str
) -> None:
    with QAMProxy(server_id, timeout=60, **place) as proxy:
        for _ in range(3):
            with pytest.raises(QAMServerNotFoundException) as raised:
                proxy.add(1, 2)
            assert raised.value.executed == "no"
        with serving(server_id=server_id, **place):
            proxy.publisher_thread._ask_at = 0.0
            assert proxy.add(1, 2) == 3
