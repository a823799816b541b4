import copy
import pickle
from typing import Any

import pytest

from qam._client.call_options import CallOptions
from qam._client.remote_names import _RemoteNames, caller_at, caller_of, with_other_options


class Names(_RemoteNames):
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def close(self) -> None:
        """Has a name that a remote method may have, too."""

    def _send(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        self.sent.append((method_name, args, kwargs))
        self.last_options = options
        return "sent"


class Caller(Names):
    """Is a proxy that can make its calls in other ways."""

    @property
    def _caller(self) -> "Caller":  # type: ignore[override]
        return self


def test_every_public_name_is_a_remote_method() -> None:
    names = Names()

    assert names.add(1, b=2) == "sent"
    assert names.shop.buy() == "sent"

    assert names.sent == [("add", (1,), {"b": 2}), ("shop.buy", (), {})]
    assert repr(names.shop.buy) == "<remote method shop.buy>"


def test_a_name_that_the_object_has_itself_is_reached_by_its_text() -> None:
    names = Names()

    names["close"]()
    names["shop.close"]()

    assert [name for name, _, _ in names.sent] == ["close", "shop.close"]


@pytest.mark.parametrize("name", ["_private", "__len__"])
def test_a_private_name_is_no_remote_method(name: str) -> None:
    names = Names()
    for look in (
        lambda: getattr(names, name),
        lambda: getattr(names.shop, name),
        lambda: names[name],
        lambda: names[f"shop.{name}"],
    ):
        with pytest.raises(
            AttributeError, match="begins with an underscore, so it can't be called remotely"
        ):
            look()


def test_what_is_no_text_names_no_method() -> None:
    with pytest.raises(TypeError, match="must be a str, not 0"):
        Names()[0]  # type: ignore[index]


def test_it_looks_like_no_sequence_and_is_not_copied() -> None:
    names = Names()
    with pytest.raises(TypeError):
        list(names)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        "add" in names  # type: ignore[operator]  # noqa: B015
    for copying in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="can't be copied or pickled"):
            copying(names)  # type: ignore[operator]
    assert names.sent == []


def test_a_name_that_notebooks_ask_each_object_for_is_reached_by_its_text() -> None:
    names = Names()
    for look in (lambda: names.getdoc, lambda: names.shop.getdoc):
        with pytest.raises(AttributeError, match=r"is proxy\['getdoc'\]"):
            look()

    names["getdoc"]()

    assert names.sent == [("getdoc", (), {})]


# --- other options ------------------------------------------------------------


def test_other_options_are_those_of_the_calls_and_the_object_keeps_its_own() -> None:
    names = Names()
    hurried = with_other_options(names, {"timeout": 5})

    assert hurried.add(2, 3) == "sent"

    assert names.sent == [("add", (2, 3), {})]
    assert names.last_options == CallOptions(timeout=5)
    assert names._options == CallOptions()
    assert "other options on <" in repr(hurried)


def test_options_that_are_changed_twice_have_both_changes() -> None:
    names = Names()
    hurried = with_other_options(names, {"timeout": 5})

    with_other_options(hurried, {"wait_for_server": 7}).add()

    assert names.last_options == CallOptions(timeout=5, wait_for_server=7)


def test_what_has_no_remote_methods_has_no_options() -> None:
    with pytest.raises(TypeError, match="target must be a proxy, not 'text'"):
        with_other_options("text", {"timeout": 5})


# --- who makes the calls -------------------------------------------------------


def test_a_remote_method_says_who_makes_its_calls_and_how() -> None:
    proxy = Caller()
    hurried = with_other_options(proxy, {"timeout": 5})

    assert caller_of(proxy.shop.buy, "submit") == (proxy, CallOptions(), "shop.buy")
    assert caller_of(hurried.add, "submit") == (proxy, CallOptions(timeout=5), "add")


def test_what_is_no_remote_method_says_how_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"as in submit\(proxy\.add, 2, 3\), not 5"):
        caller_of(5, "submit")


@pytest.mark.parametrize("target", [Names(), 5], ids=["with callbacks", "no proxy"])
def test_what_returns_no_results_makes_no_calls_in_other_ways(target: object) -> None:
    with pytest.raises(TypeError, match="submit needs a proxy whose calls return results"):
        caller_at(target, "submit")
