"""Copies of plain values: equal to what they copy, of bounded size, and nothing shared."""

import datetime
import decimal
import ipaddress
import uuid
import zoneinfo
from typing import Any

import pytest

from qam._common.plain_values import (
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_OCTETS,
    Allowance,
    NotPlainError,
    cut_octets,
)

PLAIN = [
    *(None, True, 3, -(2**2048) + 1, 1.5, 1j, "text", "ä\ud800", b"\xff", bytearray(b"abc")),
    *([1, [2]], (1, (2,)), {"a": {1: 2}}, {1, 2}, frozenset("ab")),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
    *(datetime.date(2026, 1, 2), datetime.time(3, 4), datetime.timedelta(days=1), datetime.UTC),
    *(decimal.Decimal("1.50"), uuid.UUID(int=5)),
    *(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("::1")),
]


class Zone(datetime.tzinfo):
    """A time zone of an application, whose code would run."""

    def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
        raise AssertionError("it was asked")


class Text(str):
    """A text of an application."""

    __slots__ = ()


def filled(cls: Any, **attributes: Any) -> Any:
    """An instance of *cls* as a pickle may fill it: with anything."""
    made = cls.__new__(cls)
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made


NOT_PLAIN = [
    *(object(), Text("x"), ValueError("x"), range(3), int, 2**2048, -(2**2048)),
    *([object()], {"a": object()}, {object()}, (1, object())),
    datetime.datetime(2026, 1, 2, tzinfo=Zone()),
    datetime.time(3, 4, tzinfo=Zone()),
    *(filled(ipaddress.IPv4Address), filled(ipaddress.IPv4Address, _ip="x")),
    *(filled(uuid.UUID), *(filled(uuid.UUID, int=number) for number in (-1, 2**128, "1", None))),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_a_plain_value_is_copied(value: Any) -> None:
    copied = Allowance().copy(value)

    assert type(copied) is type(value)
    assert copied == value


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_any_other_value_is_refused_and_its_code_does_not_run(value: Any) -> None:
    with pytest.raises(NotPlainError):
        Allowance().copy(value)


def test_a_copy_shares_nothing_that_can_change() -> None:
    octets, inner = bytearray(b"abc"), [1]
    copied = Allowance().copy([octets, {"a": inner}, inner])

    octets.append(1)
    inner.append(2)

    assert copied == [b"abc", {"a": [1]}, [1]]
    assert copied[1]["a"] is not copied[2]


def test_what_is_not_plain_is_copied_as_the_caller_says() -> None:
    asked = []

    def copy_other(value: Any, depth: int, allowance: Allowance) -> Any:
        asked.append((value, depth))
        return allowance.copy("a stand-in")

    assert Allowance(copy_other).copy([1, [int]]) == [1, ["a stand-in"]]
    assert asked == [(int, 2)]


# --- bounds -------------------------------------------------------------------------------


def test_all_values_of_one_error_have_some_items_together() -> None:
    allowance = Allowance()
    allowance.copy([1] * (MAX_ITEMS - 2))
    allowance.copy(1)

    with pytest.raises(NotPlainError):
        allowance.copy(1)


@pytest.mark.parametrize(
    "make", [lambda size: "x" * size, bytes, bytearray], ids=["str", "bytes", "bytearray"]
)
def test_all_values_of_one_error_have_some_octets_together(make: Any) -> None:
    allowance = Allowance()
    allowance.copy(make(MAX_OCTETS - 1))

    with pytest.raises(NotPlainError):
        allowance.copy(make(2))
    assert allowance.copy(make(1)) == make(1)


def test_a_text_is_measured_in_octets() -> None:
    with pytest.raises(NotPlainError):
        Allowance().copy("ä" * (MAX_OCTETS // 2 + 1))
    assert len(Allowance().copy("ä" * (MAX_OCTETS // 2))) == MAX_OCTETS // 2


def test_values_are_nested_some_levels_deep_and_no_deeper() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert Allowance().copy(value) == value

    with pytest.raises(NotPlainError):
        Allowance().copy([value])
    with pytest.raises(NotPlainError):
        Allowance().copy(value, depth=1)


def test_a_container_that_does_not_fit_is_not_begun() -> None:
    spent: list[int] = []

    with pytest.raises(NotPlainError):
        Allowance(spend=spent.append).copy([1] * (MAX_ITEMS + 1))

    assert spent == [1]


def test_what_is_refused_takes_nothing_from_others() -> None:
    allowance = Allowance()
    with pytest.raises(NotPlainError):
        allowance.copy(["x" * MAX_OCTETS, *[1] * (MAX_ITEMS // 2), object()])

    assert len(allowance.copy("x" * MAX_OCTETS)) == MAX_OCTETS
    assert len(allowance.copy([1] * (MAX_ITEMS - 2))) == MAX_ITEMS - 2


def test_only_so_many_values_are_looked_at_whether_they_are_kept_or_not() -> None:
    allowance, not_kept = Allowance(), [*[1] * (MAX_ITEMS // 2), object()]
    for _ in range(19):
        with pytest.raises(NotPlainError):
            allowance.copy(not_kept)
    assert allowance.copy(1) == 1

    with pytest.raises(NotPlainError):
        allowance.copy([1] * MAX_ITEMS)
    with pytest.raises(NotPlainError):
        allowance.copy([1] * (MAX_ITEMS - 10))


def test_each_copy_is_paid_for_by_its_size() -> None:
    def cost_of(value: Any) -> int:
        spent: list[int] = []
        Allowance(spend=spent.append).copy(value)
        return sum(spent)

    assert cost_of(1) == 1
    assert cost_of([1, 2]) == 3 + 10
    assert cost_of("x" * 640) == 1 + 10
    assert cost_of(bytearray(640)) == 1 + 10 + 80  # it is copied, too


# --- texts that are too long --------------------------------------------------------------


def test_of_a_text_that_is_too_long_the_beginning_is_copied() -> None:
    allowance = Allowance()
    allowance.copy("x" * (MAX_OCTETS - 10))

    assert allowance.copy_cut("0123456789abc") == "0123456…"


def test_anything_else_that_is_too_long_is_refused_as_before() -> None:
    with pytest.raises(NotPlainError):
        Allowance().copy_cut(b"x" * (MAX_OCTETS + 1))


@pytest.mark.parametrize(
    ("text", "octets", "cut"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, ""),
        ("abcdef", 5, "ab…"),
        ("ä", 2, "ä"),
        ("ä" * 5, 9, "ä…"),
        ("\ud800" * 3, 9, "\ud800" * 3),
        ("😀" * 5, 16, "😀😀😀…"),
        ("", 0, ""),
    ],
)
def test_a_cut_text_fits_into_so_many_octets(text: str, octets: int, cut: str) -> None:
    assert cut_octets(text, octets) == cut
    assert len(cut.encode("utf-8", "surrogatepass")) <= octets
