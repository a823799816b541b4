"""Requests whose clients use their keys again, while the broker may lack the acks."""

from qam._broker.messages import Delivery
from qam._protocol.entities import reply_routing_key
from qam._server.call import Call
from qam._server.reused_keys import ReusedKeys


def anonymous(body: bytes) -> Call:
    return Call(Delivery(body, 1), connection_number=1)


def test_one_is_safe_when_the_broker_surely_has_its_ack() -> None:
    calls, call = ReusedKeys(), anonymous(b"one")
    calls.end([call], now=10.0)

    assert calls.take_safe(now=15.0) == []
    assert calls.take_safe(now=15.1) == [call.key]
    assert calls.take_safe(now=100.0) == []


def test_each_is_safe_by_itself_oldest_first() -> None:
    calls, one, other, late = ReusedKeys(), *map(anonymous, (b"one", b"other", b"late"))
    calls.end([one, other], now=10.0)
    calls.end([late], now=14.0)

    assert calls.take_safe(now=16.0) == [one.key, other.key]
    assert calls.take_safe(now=20.0) == [late.key]


def test_one_that_ended_again_is_safe_later() -> None:
    calls, one, other = ReusedKeys(), anonymous(b"one"), anonymous(b"other")
    calls.end([one, other], now=10.0)
    calls.end([one], now=14.0)

    assert calls.take_safe(now=16.0) == [other.key]


def test_what_a_new_connection_delivers_again_is_not_safe_yet() -> None:
    calls, call = ReusedKeys(), anonymous(b"one")
    calls.end([call], now=10.0)

    calls.connection_opened(now=60.0)

    assert calls.take_safe(now=65.0) == []
    assert calls.take_safe(now=65.1) == [call.key]


def call_of(correlation_id: str, reply_to: str) -> Call:
    properties = {"correlation_id": correlation_id, "reply_to": reply_to}
    return Call(Delivery(b"one", 1, properties=properties), connection_number=1)


def test_a_request_of_a_proxy_is_not_noted() -> None:
    calls = ReusedKeys()

    calls.end([call_of("client:1", reply_routing_key("client"))], now=10.0)

    assert calls.take_safe(now=100.0) == []


def test_one_of_a_client_that_numbers_its_requests_from_1_is_noted() -> None:
    calls, call = ReusedKeys(), call_of("1", "its queue")

    calls.end([call], now=10.0)

    assert calls.take_safe(now=100.0) == [call.key]
