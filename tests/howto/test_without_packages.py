"""Retries by hand, methods that may run again, and dead letters."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu
import pytest

from qam import (
    QAMConnectionException,
    QAMException,
    QAMMethodNotFoundException,
    QAMProxy,
    QAMServer,
    QAMServerLostException,
    QAMTimeoutException,
)
from tests.howto.examples import EXAMPLES, load
from tests.support.peer_0_2 import entities
from tests.support.rabbitmq import RabbitMQNode
from tests.support.waiting import until


class Failing:
    """A proxy whose first calls fail in these ways."""

    def __init__(self, *failures: Exception) -> None:
        self._failures, self.calls = list(failures), 0

    def take(self, item: str, number: int) -> int:
        self.calls += 1
        if self._failures:
            raise self._failures.pop(0)
        return 7


AGAIN = [
    QAMTimeoutException("not sent", executed="no"),
    QAMConnectionException("away", executed="no"),
]
AT_ONCE = [
    QAMTimeoutException("sent", executed="unknown"),
    QAMServerLostException("lost"),
    QAMMethodNotFoundException("none"),
    ValueError("raised by the method"),
]


@pytest.fixture
def take(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load("retrying_by_hand")
    monkeypatch.setattr(module, "PAUSES", (0.0,) * 4)
    return module.take


def test_a_call_whose_method_did_not_run_is_made_again(take: Any) -> None:
    stock = Failing(*AGAIN)

    assert take(stock, "apple", 1) == 7
    assert stock.calls == 3


def test_the_last_of_five_attempts_raises(take: Any) -> None:
    stock = Failing(*[QAMTimeoutException("not sent", executed="no")] * 9)

    with pytest.raises(QAMTimeoutException):
        take(stock, "apple", 1)
    assert stock.calls == 5


@pytest.mark.parametrize("failure", AT_ONCE, ids=lambda failure: type(failure).__name__)
def test_a_call_that_may_have_run_is_not_made_again(take: Any, failure: Exception) -> None:
    stock = Failing(failure)

    with pytest.raises(type(failure)):
        take(stock, "apple", 1)
    assert stock.calls == 1


def test_a_call_to_a_server_that_comes_later_is_made_again(take: Any, server_id: str) -> None:
    with (
        QAMServer(f"memory://{server_id}", server_id="other") as other,
        QAMProxy("stock", f"memory://{server_id}", timeout=60) as proxy,
    ):
        other.start()
        servers: list[QAMServer] = []

        class Stock:
            def take(self, item: str, number: int) -> Any:
                try:
                    return proxy.take(item, number)
                except QAMException:
                    servers.append(QAMServer(f"memory://{server_id}", server_id="stock"))
                    servers[0].register_function(lambda item, number: 99, "take")
                    servers[0].start()
                    raise

        assert take(Stock(), "apple", 1) == 99
        servers[0].close()


def test_an_order_with_the_same_key_is_the_same_order(server_id: str) -> None:
    place = f"memory://{server_id}"
    with (
        QAMServer(place, server_id="shop") as server,
        QAMProxy("shop", place, timeout=60) as shop,
    ):
        server.register_class(load("idempotent").orders, "orders")
        server.start()

        assert [shop.orders.order(key, "apple", 2) for key in ("a", "b", "a")] == [1, 2, 1]
        assert shop.orders.count() == 2
        shop.orders.set_price("apple", 0.5)
        methods = shop.system.describe()["methods"]
        assert {each["name"]: each["idempotent"] for each in methods} == {
            "orders.set_price": True,
            "orders.order": True,
            "orders.count": False,
        }


# --- dead letters -------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs/howto/dead-letters.md").read_text(encoding="utf-8")


@contextmanager
def shown_dead_letters(node: RabbitMQNode) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, "QAM_BROKER_URL": node.url}
    program = [sys.executable, EXAMPLES / "dead_letters.py"]
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as shown:
        try:
            assert shown.stdout is not None
            assert shown.stdout.readline() == "waiting\n"
            yield shown
        finally:
            shown.kill()
            node.delete_queue("dead_requests")
            node.delete_exchange("dead")


def test_dead_letters_are_collected_by_a_policy(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    (typed,) = re.findall(r"^rabbitmqctl (set_policy .*)$", PAGE, re.MULTILINE)
    queue = f"{server_id}_server_queue"
    words = [word.strip("'") for word in typed.replace("stock_server_queue", queue).split()]
    with QAMServer(rabbitmq_node.url, server_id=server_id):
        pass  # its queue stays
    with (
        shown_dead_letters(rabbitmq_node) as shown,
        QAMProxy(server_id, rabbitmq_node.url, client_id="shop") as proxy,
    ):
        assert shown.stdout is not None
        # when
        rabbitmq_node.ctl(*words)
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(0.3).count("apple")
        # then
        assert re.fullmatch(r"shop\.[0-9a-f]{32}:\d+ expired\n", shown.stdout.readline())

        # and when a server gets what it can't read
        with QAMServer(rabbitmq_node.url, server_id=server_id) as server:
            server.start()
            exchange = entities(server_id, "unused")[0].exchange
            with kombu.Connection(rabbitmq_node.url) as connection:
                producer = kombu.Producer(connection.channel(), exchange)
                producer.publish(b"?", f"{server_id}_server_routing_key", content_type="text/plain")
            assert shown.stdout.readline() == "None rejected\n"
        rabbitmq_node.ctl("clear_policy", "dead-requests")
        until(lambda: shown.poll() is None)
