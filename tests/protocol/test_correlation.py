import pytest

from qam._protocol.correlation import (
    CallKey,
    correlation_id_of,
    key_of_body,
    label_of,
    number_of,
)
from qam._protocol.entities import reply_routing_key


def test_what_travels_says_whose_call_it_is() -> None:
    travels = correlation_id_of("client.1", 77)

    assert travels == "client.1:77"
    assert number_of(travels, "client.1") == 77
    assert number_of("a:b:77", "a:b") == 77


@pytest.mark.parametrize(
    "odd",
    [
        *(None, "", "77", "other:77", "client.1:", "client.1:-7", "client.1:7.5"),
        *("client.1:\u0667", "client.1:" + "1" * 17),
    ],
)
def test_what_is_none_of_the_client_has_no_number(odd: str | None) -> None:
    assert number_of(odd, "client.1") is None


def test_it_says_the_label_of_the_client() -> None:
    assert label_of(correlation_id_of("a.label.1f", 77)) == "a.label"


@pytest.mark.parametrize("odd", [None, "", "77", "label:77", "label.1f:x", ".1f:77"], ids=str)
def test_what_no_proxy_has_made_has_no_label(odd: str | None) -> None:
    assert label_of(odd) is None


def test_the_longest_number_is_one() -> None:
    assert number_of("client.1:" + "9" * 16, "client.1") == 10**16 - 1


def test_a_key_has_the_number_of_a_call_whose_client_is_answered_where_a_proxy_is() -> None:
    assert CallKey(reply_routing_key("client.1"), "client.1:77").number == 77
    assert CallKey(reply_routing_key("other"), "client.1:77").number == -1
    assert CallKey(reply_routing_key("client.1"), "client.1:odd").number == -1


def test_the_next_run_is_another_request_of_the_same_call() -> None:
    key = CallKey("key", "client.1:77")
    assert key.next_run == CallKey("key", "client.1:77", 2)
    assert key.next_run != key


def test_a_key_is_unique_if_it_has_the_number_of_a_call() -> None:
    assert CallKey(reply_routing_key("client.1"), "client.1:0").is_unique
    assert not CallKey("its queue", "1").is_unique
    assert not key_of_body(b"body").is_unique


def test_a_request_without_an_id_is_recognized_by_its_body() -> None:
    assert key_of_body(b"body") == key_of_body(b"body")
    assert key_of_body(b"body") != key_of_body(b"other")
    assert key_of_body(b"body", 2) == key_of_body(b"body").next_run
