"""What a value is, as text: the same text in every process for what is the same in all.

Types are told exactly, floats to the bit, and which containers and instances are one and the same.
Of exceptions only the name of the class is told: they are rebuilt by rules of their own.
"""

import hashlib
import struct
import types
from collections.abc import Callable, Iterable
from typing import Any

from qam._serialization.envelope import Nothing
from qam._serialization.known_names import _STAND_INS, named_zone, unicode_decode_error
from qam.exceptions import RemoteException

MOST_PARTS, DEEPEST = 20_000, 100
TOO_LARGE = "too large to be told"
_LONG = 80  # of a text; of longer ones the length and a hash are told

#: By id, what stands for a name and has no name itself.
STANDS_FOR = {id(stand_in): ".".join(name) for name, stand_in in _STAND_INS.items()}
STANDS_FOR[id(unicode_decode_error)] = "exceptions.UnicodeDecodeError"
STANDS_FOR[id(named_zone)] = "zoneinfo.ZoneInfo._unpickle"


class _TooLargeError(Exception):
    """It has too many parts, or lies too deep."""


def describe(value: Any) -> str:
    """Say what *value* is."""
    try:
        return _Description([MOST_PARTS]).of(value)
    except _TooLargeError:
        return TOO_LARGE


class _Description:
    """Knows what has been met already."""

    def __init__(self, left: list[int], depth: int = 0) -> None:
        self._left = left  # shared with the descriptions of what is in a set
        self._depth = depth
        self._met: dict[int, int] = {}
        self._kept = list[Any]()  # so that no other thing gets the same id

    def of(self, value: Any) -> str:
        self._left[0] -= 1
        if self._left[0] < 0 or self._depth > DEEPEST:
            raise _TooLargeError
        kind = type(value)
        if (scalar := _SCALARS.get(kind)) is not None:
            return scalar(value)
        if (name := _name(value)) is not None:
            return name
        if kind in (tuple, frozenset) and not value:  # there may be but one of it
            return f"{kind.__name__}()"
        if id(value) in self._met:
            return f"<{self._met[id(value)]}>"
        self._met[id(value)] = len(self._met)
        self._kept.append(value)
        self._depth += 1
        try:
            return _CONTAINERS.get(kind, _Description._instance)(self, value)
        finally:
            self._depth -= 1

    def _items(self, values: Iterable[Any]) -> str:
        return f"[{','.join(map(self.of, values))}]"

    def _list(self, value: list[Any]) -> str:
        return "list" + self._items(value)

    def _tuple(self, value: tuple[Any, ...]) -> str:
        return "tuple" + self._items(value)

    def _dict(self, value: dict[Any, Any]) -> str:
        return "dict" + self._pairs(value.items())

    def _pairs(self, pairs: Iterable[tuple[Any, Any]]) -> str:
        return "{" + ",".join(f"{self.of(key)}:{self.of(item)}" for key, item in pairs) + "}"

    def _set(self, value: set[Any] | frozenset[Any]) -> str:
        # Their order is another one in each process; so each item is told by itself.
        items = sorted(_Description(self._left, self._depth).of(item) for item in value)
        return f"{type(value).__name__}[{','.join(items)}]"

    def _bytearray(self, value: bytearray) -> str:
        return "bytearray" + _octets(bytes(value))

    def _instance(self, value: Any) -> str:
        """By what its pickle would say."""
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:  # an instance that never got what it needs
            return f"{name} without what it needs, {type(error).__name__}"
        if type(reduced) is str:
            return reduced
        made_by, args, state, items, pairs, *_ = (*reduced, None, None, None)
        self._kept += [args, state]
        parts = [self.of(made_by), self.of(args), self.of(state), self._items(items or ())]
        return f"{name}({','.join(parts)}{self._pairs(pairs or ())})"


def _name(value: Any) -> str | None:
    """Return the name of what is known by one: a class, a function, the like of an exception."""
    if (name := STANDS_FOR.get(id(value))) is not None:
        return name
    if type(value) is Nothing or getattr(type(value), "is_named", False):
        return "what is named"
    if type(value) is RemoteException:
        return f"error {value.type_name}"
    if issubclass(type(value), BaseException):
        return f"error {_name_of_error(type(value))}"
    if issubclass(type(value), type) and issubclass(value, BaseException):
        return _name_of_error(value)
    if issubclass(type(value), type) or type(value) in _FUNCTIONS:
        return f"{value.__module__}.{value.__qualname__}"
    return None


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def _name_of_error(cls: type) -> str:
    # Which of them it is depends on the number that it gets.
    return (
        "builtins.OSError" if issubclass(cls, OSError) else f"{cls.__module__}.{cls.__qualname__}"
    )


def _octets(value: bytes) -> str:
    return repr(value) if len(value) <= _LONG else _long(value)


def _long(octets: bytes) -> str:
    return f"{len(octets)} bytes {hashlib.sha256(octets).hexdigest()}"


def _text(value: str) -> str:
    if len(value) <= _LONG:
        return ascii(value)
    return "text of " + _long(value.encode("utf-8", "surrogatepass"))


def _number(value: int) -> str:
    return hex(value) if value.bit_length() <= 4 * _LONG else _long(hex(value).encode())


def _float(value: float) -> str:
    return "float " + struct.pack(">d", value).hex()


def _complex(value: complex) -> str:
    return "complex " + struct.pack(">dd", value.real, value.imag).hex()


_SCALARS: dict[type, Callable[[Any], str]] = {
    **dict.fromkeys((type(None), bool), repr),
    int: _number,
    float: _float,
    complex: _complex,
    str: _text,
    bytes: _octets,
}
_CONTAINERS: dict[type, Callable[[_Description, Any], str]] = {
    list: _Description._list,
    tuple: _Description._tuple,
    dict: _Description._dict,
    set: _Description._set,
    frozenset: _Description._set,
    bytearray: _Description._bytearray,
}
