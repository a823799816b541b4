import copy
import pickle
from typing import Any

import pytest

from qam._client.call_options import CallOptions
from qam._client.remote_names import _RemoteNames


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
        return "sent"


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
