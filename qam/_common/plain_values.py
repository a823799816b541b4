"""Copies of plain values that are bounded in size: what an error may be made of.

A copy shares nothing that can change with its original.  What stands in it twice is
there twice, so its text can't be longer than its size says.
"""

import datetime
import decimal
import ipaddress
import sys
import uuid
from collections.abc import Callable, Sized
from typing import Any

#: What all that one error is made of may come to.
MAX_ITEMS, MAX_OCTETS, MAX_DEPTH = 1_000, 65_536, 10
#: Python reads and writes numbers of that length without being asked twice.
_MAX_BITS = 2_048
# What is looked at in all, be it kept or not.
_MAX_LOOKS = 10 * MAX_ITEMS
_COST_OF_CONTAINER = 10  # about the memory that it takes, in items
# How many octets take about as long, or as much memory, as an item.
_OCTETS_LOOKED_AT, _OCTETS_KEPT = 64, 8

_SMALL = frozenset({type(None), bool, float, complex})
_UNCHANGEABLE = frozenset(
    {
        *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone),
        *(decimal.Decimal, ipaddress.IPv4Address, ipaddress.IPv6Address),
    }
)


class NotPlainError(Exception):
    """A value is not plain, or too large."""


def _copy_nothing(value: Any, depth: int, allowance: "Allowance") -> Any:
    raise NotPlainError


def spend_nothing(cost: int) -> None:
    """Where nobody counts what a message costs."""


class Allowance:
    """What one error may be made of: it becomes less with each value that is copied.

    :param copy_other: copies what is no plain value, that lies so deep, on this allowance;
        raises NotPlainError by default.
    :param spend: is told what the copies cost, in what about an item costs.
    """

    __slots__ = ("_copy_other", "_items", "_looks", "_octets", "_spend")

    def __init__(
        self,
        copy_other: Callable[[Any, int, "Allowance"], Any] = _copy_nothing,
        spend: Callable[[int], None] = spend_nothing,
    ) -> None:
        self._items, self._octets, self._looks = MAX_ITEMS, MAX_OCTETS, _MAX_LOOKS
        self._copy_other = copy_other
        self._spend = spend

    def copy(self, value: Any, depth: int = 0) -> Any:
        """Return a copy of *value*, which lies *depth* deep.

        :raises NotPlainError: it is no plain value, or does not fit; then it counts for nothing.
        """
        before = self._items, self._octets
        try:
            return self._copy(value, depth)
        except NotPlainError:
            self._items, self._octets = before
            raise

    def copy_cut(self, value: Any, depth: int = 0) -> Any:
        """Return a copy of *value*, the beginning of it where it is a text that is too long."""
        cut = cut_octets(value, self._octets) if type(value) is str else value
        if cut is not value:
            self._spend(len(cut) // _OCTETS_KEPT)
        return self.copy(cut, depth)

    def _copy(self, value: Any, depth: int) -> Any:
        self._count(depth)
        kind = type(value)
        if kind in _SMALL:
            return value
        if kind is int:
            bits = value.bit_length()
            return self._if_fits(value, bits <= _MAX_BITS, bits // 8)
        if kind is str:
            return self._copy_text(value)
        if kind is bytes:
            return self._if_fits(value, True, len(value))
        if kind is bytearray:
            return self._copy_octets(value)
        if kind in _COPIES:
            return self._copy_container(value, kind, depth)
        if kind in _UNCHANGEABLE:
            return self._copy_unchangeable(value)
        return _copy_uuid(value) if kind is uuid.UUID else self._copy_other(value, depth, self)

    def _count(self, depth: int) -> None:
        self._spend(1)
        self._items -= 1
        self._looks -= 1
        if self._items < 0 or self._looks < 0 or depth > MAX_DEPTH:
            raise NotPlainError

    def _if_fits(self, value: Any, small: bool, octets: int) -> Any:
        if not small or octets > self._octets:
            raise NotPlainError
        self._octets -= octets
        self._spend(octets // _OCTETS_LOOKED_AT)
        return value

    def _copy_octets(self, value: bytearray) -> bytearray:
        self._spend(min(len(value), MAX_OCTETS) // _OCTETS_KEPT)
        return bytearray(self._if_fits(value, True, len(value)))

    def _copy_text(self, text: str) -> Any:
        # Long ones are not encoded, only to find out how long they are.
        small = len(text) <= self._octets
        octets = len(text) if not small or text.isascii() else _octets_of(text)
        return self._if_fits(text, small, octets)

    def _copy_container(self, value: Any, kind: type, depth: int) -> Any:
        if len(value) > self._items:
            raise NotPlainError
        self._spend(_COST_OF_CONTAINER)
        return _COPIES[kind](value, lambda inner: self._copy(inner, depth + 1))

    def _copy_unchangeable(self, value: Any) -> Any:
        zone = getattr(value, "tzinfo", None)
        if zone is not None and type(zone) not in (datetime.timezone, _zone_info()):
            raise NotPlainError
        try:
            octets = len(repr(value))
        except Exception:  # what is in it was not checked
            raise NotPlainError from None
        return self._if_fits(value, True, octets)


def _copy_dict(value: dict[Any, Any], copy: Callable[[Any], Any]) -> dict[Any, Any]:
    return {copy(key): copy(each) for key, each in value.items()}


_COPIES: dict[type, Callable[[Any, Callable[[Any], Any]], Sized]] = {
    list: lambda value, copy: [copy(each) for each in value],
    tuple: lambda value, copy: tuple([copy(each) for each in value]),
    set: lambda value, copy: {copy(each) for each in value},
    frozenset: lambda value, copy: frozenset([copy(each) for each in value]),
    dict: _copy_dict,
}


def _copy_uuid(value: uuid.UUID) -> uuid.UUID:
    # A pickle fills its attributes, perhaps later, perhaps with anything.
    try:
        number = object.__getattribute__(value, "int")
        return uuid.UUID(int=number if type(number) is int else None)
    except (AttributeError, TypeError, ValueError):
        raise NotPlainError from None


def _zone_info() -> Any:
    return getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)


def _octets_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def cut_octets(text: str, octets: int) -> str:
    """Return the beginning of *text* that surely fits into so many octets of UTF-8."""
    if len(text) <= octets and _octets_of(text) <= octets:
        return text
    kept = octets - len("…".encode()) if text.isascii() else octets // 4 - 1
    return f"{text[:kept]}…" if kept > 0 else ""
