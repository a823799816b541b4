"""Exchanges and queues are declared, or it is told why not.  The test says what is refused."""

from dataclasses import dataclass, field
from typing import Any

import amqp
import pytest
from amqp.protocol import queue_declare_ok_t

from qam._broker.connection import NotPermitted, QueueIsDown
from qam._broker.declarations import declare_exchange, declare_queue, inspect_queue
from qam._broker.messages import QueueBinding, QueueState
from qam.exceptions import QAMConnectionException
from tests.support.endpoints import endpoint_of

ENDPOINT = endpoint_of("broker.example", 5672, "somebody", "secret")
BINDING = QueueBinding("queue", "exchange", "key")


@dataclass
class Channel:
    """Keeps what it was asked for, and refuses some of it."""

    #: Why it refuses: by the name of the method, or of its passive form.
    refusals: dict[str, Exception] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def _ask(self, method: str, name: str, how: dict[str, Any]) -> None:
        self.asked.append((method, name, how))
        if (error := self.refusals.get(method)) is not None:
            raise error

    def exchange_declare(self, exchange: str, passive: bool = False, **how: Any) -> None:
        self._ask("expect exchange" if passive else "declare exchange", exchange, how)

    def queue_declare(self, queue: str, passive: bool = False, **how: Any) -> Any:
        self._ask("inspect queue" if passive else "declare queue", queue, how)
        return queue_declare_ok_t(queue, 3, 2)

    def queue_bind(self, queue: str, **how: Any) -> None:
        self._ask("bind queue", queue, how)

    def prepare_queue_arguments(self, arguments: Any, **more: Any) -> Any:
        return arguments


# --- exchanges ----------------------------------------------------------------------------


def test_an_exchange_is_direct_and_durable() -> None:
    channel = Channel()

    declare_exchange(channel, ENDPOINT, "exchange")

    [(method, name, how)] = channel.asked
    assert (method, name) == ("declare exchange", "exchange")
    assert (how["type"], how["durable"]) == ("direct", True)


def test_who_may_not_declare_an_exchange_uses_the_one_that_is_there() -> None:
    channel = Channel({"declare exchange": amqp.AccessRefused("no right")})

    declare_exchange(channel, ENDPOINT, "exchange")

    assert [method for method, *_ in channel.asked] == ["declare exchange", "expect exchange"]


def test_who_may_not_declare_an_exchange_is_told_who_declares_it() -> None:
    refusals = {
        "declare exchange": amqp.AccessRefused("no right"),
        "expect exchange": amqp.NotFound("no exchange"),
    }

    with pytest.raises(amqp.NotFound, match="a server declares it") as told:
        declare_exchange(Channel(refusals), ENDPOINT, "exchange")

    assert "'exchange'" in str(told.value)
    assert "'somebody'" in str(told.value)


def test_any_other_refusal_is_told_as_it_is() -> None:
    refusal = amqp.PreconditionFailed("another type")

    with pytest.raises(amqp.PreconditionFailed) as told:
        declare_exchange(Channel({"declare exchange": refusal}), ENDPOINT, "exchange")

    assert told.value is refusal


# --- queues -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [None, {"x-queue-type": "quorum"}])
def test_a_queue_is_durable_and_bound_and_has_its_arguments(arguments: Any) -> None:
    channel = Channel()

    declare_queue(channel, ENDPOINT, BINDING, arguments)

    [(declared, name, how), (bound, bound_name, binding)] = channel.asked
    assert (declared, name) == ("declare queue", "queue")
    assert (how["durable"], how["exclusive"], how["auto_delete"]) == (True, False, False)
    assert (how["arguments"] or None) == arguments
    assert (bound, bound_name) == ("bind queue", "queue")
    assert (binding["exchange"], binding["routing_key"]) == ("exchange", "key")


def test_a_queue_whose_node_is_down_is_told_as_such() -> None:
    channel = Channel({"declare queue": amqp.NotFound("home node is down")})

    with pytest.raises(QueueIsDown, match="home node is down"):
        declare_queue(channel, ENDPOINT, BINDING, None)


def test_a_queue_that_exists_with_other_arguments_is_told_with_what_to_do() -> None:
    channel = Channel({"declare queue": amqp.PreconditionFailed("inequivalent arg")})

    with pytest.raises(QAMConnectionException, match="inequivalent arg") as told:
        declare_queue(channel, ENDPOINT, BINDING, {"x-max-length": 1})

    assert "pass the same queue_arguments on all sides" in str(told.value)
    assert "broker.example" in str(told.value)
    assert told.value.executed == "no"


def test_the_state_of_a_queue_is_the_number_of_its_messages_and_consumers() -> None:
    channel = Channel()

    assert inspect_queue(channel, "queue") == QueueState(3, 2)
    assert [(method, name) for method, name, _ in channel.asked] == [("inspect queue", "queue")]


def test_a_queue_that_does_not_exist_has_no_state() -> None:
    assert inspect_queue(Channel({"inspect queue": amqp.NotFound("no queue")}), "queue") is None


def test_who_may_not_declare_a_queue_is_told_which_and_by_whom() -> None:
    channel = Channel({"declare queue": amqp.AccessRefused("the broker's words")})

    with pytest.raises(NotPermitted, match="the broker's words") as told:
        declare_queue(channel, ENDPOINT, BINDING, None)

    assert "the user 'somebody' may not declare the queue queue at broker.example" in str(
        told.value
    )
    assert told.value.executed == "no"
