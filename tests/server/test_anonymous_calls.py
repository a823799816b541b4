"""Requests without a correlation id, while the broker may lack their acks."""

from qam._broker.messages import Delivery
from qam._server.anonymous_calls import AnonymousCalls
from qam._server.call import Call


def anonymous(body: bytes) -> Call:
    return Call(Delivery(body, 1), connection_number=1)


def test_one_is_safe_when_the_broker_surely_has_its_ack() -> None:
    calls, call = AnonymousCalls(), anonymous(b"one")
    calls.end([call], now=10.0)

    assert calls.take_safe(now=15.0) == []
    assert calls.take_safe(now=15.1) == [call.key]
    assert calls.take_safe(now=100.0) == []


def test_each_is_safe_by_itself_oldest_first() -> None:
    calls, one, other, late = AnonymousCalls(), *map(anonymous, (b"one", b"other", b"late"))
    calls.end([one, other], now=10.0)
    calls.end([late], now=14.0)

    assert calls.take_safe(now=16.0) == [one.key, other.key]
    assert calls.take_safe(now=20.0) == [late.key]


def test_one_that_ended_again_is_safe_later() -> None:
    calls, one, other = AnonymousCalls(), anonymous(b"one"), anonymous(b"other")
    calls.end([one, other], now=10.0)
    calls.end([one], now=14.0)

    assert calls.take_safe(now=16.0) == [other.key]


def test_what_a_new_connection_delivers_again_is_not_safe_yet() -> None:
    calls, call = AnonymousCalls(), anonymous(b"one")
    calls.end([call], now=10.0)

    calls.connection_opened(now=60.0)

    assert calls.take_safe(now=65.0) == []
    assert calls.take_safe(now=65.1) == [call.key]


def test_a_request_with_a_correlation_id_is_not_noted() -> None:
    calls = AnonymousCalls()

    calls.end([Call(Delivery(b"one", 1, properties={"correlation_id": "c:1"}), 1)], now=10.0)

    assert calls.take_safe(now=100.0) == []
