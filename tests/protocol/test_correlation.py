import pytest

from qam._protocol.correlation import CallKey, correlation_id_of, number_of
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
