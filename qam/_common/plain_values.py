"""Copies of plain values, bounded in size: the arguments and attributes of sent errors.

A copy shares no mutable object with its original.  An object that occurs twice in the
original is copied twice, so the bound on the size also bounds the copy's text.
"""

import datetime
import decimal
import ipaddress
import sys
import uuid
from collections.abc import Callable, Sized
from typing import Any

#: Bounds on all the values of one error together.
MAX_ITEMS, MAX_OCTETS, MAX_DEPTH = 1_000, 65_536, 10
#: Bits of an int.  Python converts ints of that length to and from text without a limit.
_MAX_BITS = 2_048
# How many values are visited in all, whether they are kept or not.
_MAX_VISITS = 10 * MAX_ITEMS
_COST_OF_CONTAINER = 10  # its memory, in items
# How many octets cost as much as one item: to be read, and to be copied.
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
    """Ignore *cost*: used where the cost of a message is not counted."""


class Allowance:
    """The size that the values of one error may have together; each copied value reduces it.

    :param copy_other: called with a value that is not plain, its depth and this allowance;
        returns the copy.  By default it raises NotPlainError.
    :param spend: called with the cost of each copy, in items.
    """

    __slots__ = ("_copy_other", "_items", "_octets", "_spend", "_visits")

    def __init__(
        self,
        copy_other: Callable[[Any, int, "Allowance"], Any] = _copy_nothing,
        spend: Callable[[int], None] = spend_nothing,
    ) -> None:
        self._items, self._octets, self._visits = MAX_ITEMS, MAX_OCTETS, _MAX_VISITS
        self._copy_other = copy_other
        self._spend = spend

    def copy(self, value: Any, depth: int = 0) -> Any:
        """Return a copy of *value*, which is nested *depth* deep.

        :raises NotPlainError: *value* is not plain or does not fit; the allowance is not reduced.
        """
        before = self._items, self._octets
        try:
            return self._copy(value, depth)
        except NotPlainError:
            self._items, self._octets = before
            raise

    def copy_cut(self, value: Any, depth: int = 0) -> Any:
        """Return a copy of *value*; of a text that is too long, a copy of its beginning."""
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
        self._visits -= 1
        if self._items < 0 or self._visits < 0 or depth > MAX_DEPTH:
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
        # A text with too many characters is not encoded just to learn its length in octets.
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
        except Exception:  # a pickle may have filled it with anything, unchecked
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
    # A pickle sets the attributes of a UUID, perhaps only later, perhaps to anything.
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
    """Return *text* if it fits into so many *octets* of UTF-8, else a beginning that does."""
    if len(text) <= octets and _octets_of(text) <= octets:
        return text
    kept = octets - len("…".encode()) if text.isascii() else octets // 4 - 1
    return f"{text[:kept]}…" if kept > 0 else ""
