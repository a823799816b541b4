"""Who is believed to make a call; tests/scenarios/test_identity.py has RabbitMQ verify it."""

from typing import Any

import pytest

from qam._broker.messages import Delivery
from qam._protocol.users import carry_user, user_of

HEADER = {"x-qam-user": "ann"}


def request_of(sender: Any, headers: dict[str, Any] | None = None) -> Delivery:
    """A request whose sender says, or does not say, as whom it is connected."""
    return Delivery(b"{}", 1, properties={"user_id": sender, "headers": headers or {}})


@pytest.mark.parametrize("odd", [None, "", 7, "x" * 256], ids=["none", "empty", "int", "long"])
def test_who_does_not_say_as_whom_it_is_connected_is_nobody(odd: Any) -> None:
    assert user_of(request_of(odd), "server") is None


@pytest.mark.parametrize(
    ("sender", "headers", "own", "user"),
    [
        ("bob", {}, "server", "bob"),
        ("server", {}, "server", "server"),
        # a server of the same user has published it anew
        ("server", HEADER, "server", "ann"),
        # somebody else says so
        ("bob", HEADER, "server", "bob"),
        (None, HEADER, "server", None),
        # whose user the server does not know
        ("server", HEADER, None, "server"),
        (None, HEADER, None, None),
        ("server", {"x-qam-user": 5}, "server", None),
        ("server", {"x-qam-user": "x" * 256}, "server", None),
    ],
)
def test_a_header_says_who_the_user_is_only_if_a_server_has_sent_it(
    sender: str | None, headers: dict[str, Any], own: str | None, user: str | None
) -> None:
    assert user_of(request_of(sender, headers), own) == user


def test_a_request_that_is_published_anew_is_still_that_of_its_user() -> None:
    properties: dict[str, Any] = {"headers": {"trace": "a1"}}

    carry_user("ann", "server", properties)

    assert properties["headers"]["trace"] == "a1"
    assert user_of(Delivery(b"{}", 1, properties=properties), "server") == "ann"
    # RabbitMQ refuses what says to be of another user than of its connection
    assert properties["user_id"] == "server"


@pytest.mark.parametrize(("user", "own"), [(None, "server"), ("ann", None)])
def test_nobody_is_named_where_it_is_not_known_who(user: str | None, own: str | None) -> None:
    properties: dict[str, Any] = {"headers": {}}

    carry_user(user, own, properties)

    assert properties == {"headers": {}}
