"""A call as its method sees it, by value."""

import time
from concurrent.futures import CancelledError
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from qam._broker.messages import Delivery
from qam._common.served_call import served_call
from qam._server.call import Call
from qam._server.current_call import current_call, view_of


def call(**properties: Any) -> Call:
    """A request that has just arrived, for add()."""
    request = Call(Delivery(b"{}", 1, properties=properties), 1, arrived=time.monotonic())
    request.method_name = "add"
    return request


def test_it_says_what_was_called_by_whom() -> None:
    headers = {"trace": "a1", "x-qam-resent": 5, "number": 5}
    seen = view_of(call(correlation_id="label.of.a.client.1f:7", user_id="ann", headers=headers))

    assert (seen.method, seen.id) == ("add", "label.of.a.client.1f:7")
    assert (seen.client_id, seen.user) == ("label.of.a.client", "ann")
    assert seen.metadata == {"trace": "a1"}
    assert seen.remaining() is None
    assert not seen.cancelled


def test_it_cant_be_changed() -> None:
    seen: Any = view_of(call(headers={"a": "b"}))

    with pytest.raises(FrozenInstanceError):
        seen.user = "ann"
    with pytest.raises(TypeError):
        seen.metadata["a"] = "c"


@pytest.mark.parametrize("odd", [None, "", "7", "label:7", "label.1f:x", ".1f:7", 7], ids=str)
def test_who_is_no_proxy_has_no_label(odd: Any) -> None:
    assert view_of(call(correlation_id=odd)).client_id is None


def test_whom_to_believe_about_its_user_depends_on_the_user_of_the_server() -> None:
    request = call(user_id="server", headers={"x-qam-user": "ann"})
    request.server_user = "server"
    assert view_of(request).user == "ann"
    request.server_user = "other"
    assert view_of(request).user == "server"


def test_what_is_left_of_its_time_is_never_below_nothing() -> None:
    request = call(expiration="60000")
    seen = view_of(request)
    left = seen.remaining()

    assert left is not None
    assert 0 < left <= 60
    seen.raise_if_cancelled()

    request.arrived -= 61
    assert seen.remaining() == 0
    assert seen.cancelled
    with pytest.raises(CancelledError, match="add"):
        seen.raise_if_cancelled()


def test_it_is_cancelled_too_once_the_server_has_given_it_up() -> None:
    request = call()
    seen = view_of(request)
    request.given_up = True
    assert seen.cancelled


def test_it_is_there_only_where_a_method_runs() -> None:
    assert current_call() is None
    token = served_call.set(call(correlation_id="label.1f:7"))
    seen = current_call()
    served_call.reset(token)
    assert seen is not None
    assert seen.client_id == "label"
