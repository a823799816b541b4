"""A received request, by value, with a clock of the test's own."""

from typing import Any

import pytest

from qam._broker.messages import Delivery
from qam._common.deadline import NO_END, Deadline
from qam._server.call import Answer, Call

ARRIVED = 100.0


def call(body: bytes = b"{}", **properties: Any) -> Call:
    return Call(Delivery(body, 1, properties=properties), 1, arrived=ARRIVED)


def test_a_request_without_an_expiration_has_no_end() -> None:
    endless = call()

    assert endless.time_left(ARRIVED + 1e9) is None
    assert not endless.is_expired(ARRIVED + 1e9)
    assert not endless.is_cancelled(ARRIVED + 1e9)


def test_its_time_is_up_when_that_of_its_expiration_has_passed_here() -> None:
    request = call(expiration="5000")

    assert request.time_left(ARRIVED + 2) == 3.0
    assert not request.is_expired(ARRIVED + 4.9)
    assert request.is_expired(ARRIVED + 5)
    assert request.is_cancelled(ARRIVED + 5)


def test_one_that_was_given_up_is_cancelled_and_not_expired() -> None:
    request = call(expiration="5000")
    request.given_up = True

    assert request.is_cancelled(ARRIVED)
    assert not request.is_expired(ARRIVED)


def test_only_the_answer_of_a_request_with_an_id_may_be_sent_again() -> None:
    for request, may_be in ((call(correlation_id="c.1:1"), True), (call(), False)):
        request.answer = Answer("key", b"done")
        assert (request.repeatable_answer is not None) is may_be


@pytest.mark.parametrize(("expiration", "own_end"), [(None, ARRIVED + 9), ("5000", ARRIVED + 5)])
def test_a_call_that_its_method_makes_keeps_an_earlier_end(
    expiration: str | None, own_end: float
) -> None:
    request = call() if expiration is None else call(expiration=expiration)
    own = Deadline(1.0)
    own.at = own_end

    assert request.limit(own) is own


def test_a_call_that_its_method_makes_ends_with_its_own_time() -> None:
    request = call(expiration="5000")
    request.method_name = "add"

    limited = request.limit(NO_END)

    assert limited.at == ARRIVED + 5
    assert limited.served_method == "add"  # type: ignore[attr-defined]
