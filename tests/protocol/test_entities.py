from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qam._broker.messages import Delivery, Publish, QueueBinding, Route, batch_length
from qam._common.checks import check_entity_name, is_short_text
from qam._protocol.entities import (
    presence_binding,
    reply_binding,
    reply_exchange,
    reply_routing_key,
    request_binding,
    siblings_binding,
)
from qam._protocol.properties import expiration, properties
from qam._serialization.serializers import get_serializer


def test_the_entities_have_the_names_that_deployed_peers_use() -> None:
    assert request_binding("shop") == QueueBinding(
        queue="shop_server_queue",
        exchange="shop_server_exchange",
        routing_key="shop_server_routing_key",
    )
    assert reply_binding("shop", "till") == QueueBinding(
        queue="till_client_queue",
        exchange="shop_client_exchange",
        routing_key="till_client_routing_key",
    )
    assert reply_exchange("shop") == "shop_client_exchange"
    assert reply_routing_key("till") == "till_client_routing_key"


def test_the_entities_of_servers_have_the_names_by_which_other_servers_find_them() -> None:
    assert siblings_binding("shop", "1f") == QueueBinding(
        queue="shop_server_siblings_queue.1f",
        exchange="shop_server_siblings_exchange",
        routing_key="shop_server_siblings_routing_key",
    )
    assert presence_binding("shop") == QueueBinding(
        queue="shop_server_presence_queue",
        exchange="shop_server_siblings_exchange",
        routing_key="shop_server_presence_routing_key",
    )


def test_a_route_is_the_way_into_a_queue() -> None:
    assert request_binding("shop").route == Route("shop_server_exchange", "shop_server_routing_key")


@pytest.mark.parametrize("name", ["a", "é" * 95, "a" * 190, "with space", "a.b-c"])
def test_a_name_of_1_to_190_bytes_is_good(name: str) -> None:
    check_entity_name(name, "server_id")

    longest = max((*request_binding(name), *reply_binding(name, name)), key=len)
    assert len(longest.encode()) <= 255


@pytest.mark.parametrize("name", ["", "a" * 191, "é" * 96])
def test_a_name_of_another_length_is_a_value_error_with_what_it_names(name: str) -> None:
    with pytest.raises(ValueError, match="server_id must have 1 to 190 bytes"):
        check_entity_name(name, "server_id")


@pytest.mark.parametrize("name", [None, 1, b"shop", ["shop"]])
def test_a_name_that_is_no_text_is_a_type_error_with_what_it_names(name: Any) -> None:
    with pytest.raises(TypeError, match="server_id must be a str"):
        check_entity_name(name, "server_id")


def test_a_name_with_a_lone_surrogate_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="server_id"):
        check_entity_name("shop\ud800", "server_id")


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("", True),
        ("a" * 255, True),
        ("a" * 256, False),
        ("é" * 128, False),
        ("\udcff", False),
        (None, False),
        (b"key", False),
    ],
)
def test_a_short_text_is_what_fits_into_255_bytes(value: Any, fits: bool) -> None:
    assert is_short_text(value) == fits


MEBIBYTE = bytes(1024 * 1024)


@pytest.mark.parametrize(
    ("bodies", "length"),
    [
        ([], 0),
        ([b""], 1),
        ([b"x"] * 3, 3),
        ([b""] * 1001, 1000),
        ([MEBIBYTE, b"x"], 1),
        ([MEBIBYTE * 2, b"x"], 1),
        ([b"x", MEBIBYTE, b"x"], 2),
        ([MEBIBYTE[1:], b"x", b"x"], 2),
    ],
    ids=["none", "empty", "few", "many", "large", "larger", "second", "sum"],
)
def test_a_batch_is_bounded_in_number_and_in_bytes(bodies: list[bytes], length: int) -> None:
    messages = [Publish(Route("exchange", "key"), body, {}) for body in bodies]

    assert batch_length(messages) == length


@pytest.mark.parametrize("name", ["pickle", "json"])
def test_a_message_is_persistent_and_says_what_is_in_it(name: str) -> None:
    serializer = get_serializer(name)

    assert properties(serializer) == {
        "content_type": serializer.content_type,
        "content_encoding": serializer.content_encoding,
        "delivery_mode": 2,
    }


def test_further_properties_are_added_where_they_are_not_none() -> None:
    made = properties(get_serializer("json"), correlation_id="a:1", expiration=None, reply_to="")

    assert made["correlation_id"] == "a:1"
    assert made["reply_to"] == ""
    assert "expiration" not in made


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, None),
        (1, "1000"),
        (1.5, "1500"),
        (0.0014, "1"),
        (0.0016, "2"),
        (0.0001, "1"),
        (0.0, "1"),
        (-3.0, "1"),
        (4294967.295, "4294967295"),
        (4294967.296, None),
        (1e300, None),
    ],
)
def test_an_expiration_is_a_text_of_whole_milliseconds_that_the_broker_takes(
    seconds: float | None, text: str | None
) -> None:
    assert expiration(seconds) == text


@given(st.floats(0.001, 4_000_000))
def test_an_expiration_is_read_as_what_it_was_written(seconds: float) -> None:
    delivery = Delivery(b"", 1, properties={"expiration": expiration(seconds)})

    assert delivery.time_to_live == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize("text", [None, "", "x", "1.5"])
def test_a_delivery_without_a_valid_expiration_has_no_end(text: str | None) -> None:
    assert Delivery(b"", 1, properties={"expiration": text}).time_to_live is None


DEATH = {"queue": "shop_server_queue", "reason": "expired", "original-expiration": "5000"}


@pytest.mark.parametrize("deaths", [[DEATH], [{"reason": "rejected"}, DEATH]], ids=["one", "two"])
@pytest.mark.parametrize("expiration", [{}, {"expiration": "60000"}], ids=["none", "a new one"])
def test_a_delivery_that_was_dead_lettered_with_an_expiration_has_no_time_left(
    deaths: Any, expiration: dict[str, Any]
) -> None:
    properties = {"headers": {"x-death": deaths}, **expiration}

    assert Delivery(b"", 1, properties=properties).time_to_live == 0


@pytest.mark.parametrize(
    "deaths", [[{"reason": "expired"}], [], None, "x-death", 3, {"original-expiration": "1"}, [[]]]
)
def test_other_dead_lettered_deliveries_have_the_time_that_they_say(deaths: Any) -> None:
    headers = {"headers": {"x-death": deaths}}

    assert Delivery(b"", 1, properties=headers).time_to_live is None
    assert Delivery(b"", 1, properties={**headers, "expiration": "60000"}).time_to_live == 60


def test_a_delivery_without_properties_has_neither_call_nor_end() -> None:
    delivery = Delivery(b"", 1)

    assert delivery.correlation_id is None
    assert delivery.time_to_live is None
    assert not delivery.redelivered


def test_a_delivery_knows_its_call_where_its_sender_said_so() -> None:
    assert Delivery(b"", 1, properties={"correlation_id": "a:1"}).correlation_id == "a:1"


def test_no_two_deliveries_share_their_properties() -> None:
    assert Delivery(b"", 1).properties is not Delivery(b"", 2).properties
