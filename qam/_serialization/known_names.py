"""The tables of names that a pickle may use without trust, and of how each may be used.

Many names stand for a stand-in: a function that takes only the arguments that picklers write.
"""

import array
import builtins
import datetime
import decimal
import fractions
import importlib
import os.path
import pickle  # for its errors only  # nosec B403
import re
import sys
import uuid
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import (
    ChainMap,
    Counter,
    OrderedDict,
    UserDict,
    UserList,
    UserString,
    defaultdict,
    deque,
)
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import chain
from types import MemberDescriptorType, SimpleNamespace
from typing import Any

from qam._common.error_inspection import args_of
from qam._common.static_inspection import Name
from qam._serialization.pure_paths import PATHS, pure_path
from qam._serialization.trust import VALUE_TYPES, imported

#: Bits of an int that is passed to a call.
MAX_BITS = 16_384
_MAX_RANGE = 10**9
_MAX_DIGITS = 4_300  # of a Decimal or a Fraction; Python's own limit for an int
_ZONE = re.compile(r"\w[\w+-]*(/\w[\w+-]*){0,3}", re.ASCII)
_FRACTION = re.compile(rf"-?\d{{1,{_MAX_DIGITS}}}(/\d{{1,{_MAX_DIGITS}}})?")


def python_3_name(name: Name) -> Name:
    """Return the name in Python 3 of the *name* that Python 2 wrote."""
    if name in NAME_MAPPING:
        return NAME_MAPPING[name]
    return IMPORT_MAPPING.get(name[0], name[0]), name[1]


def _value(name: Name) -> Any:
    """Return the class or function that *name* stands for; None if this Python lacks it."""
    try:
        module = importlib.import_module(name[0])
    except ImportError:
        return None
    return vars(module).get(name[1])


# --- stand-ins: checked functions in place of the named ones -------------------------------

_LATIN_1 = ("latin1", "latin-1")


class _Encode:
    """Stands in for ``_codecs.encode``, by which protocol 2 writes bytes.

    An object without attributes, so that no message can change it.
    """

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if not isinstance(text, str) or encoding not in _LATIN_1:
            raise pickle.UnpicklingError("_codecs.encode serves only to write bytes as latin1")
        return text.encode("latin1")


_encode = _Encode()


def _range(*numbers: int) -> range:
    found = range(*numbers)
    if not -_MAX_RANGE < found.start < _MAX_RANGE or not -_MAX_RANGE < found.stop < _MAX_RANGE:
        raise pickle.UnpicklingError("a range is too long for a message")
    return found


def _decimal(text: str) -> decimal.Decimal:
    if not isinstance(text, str) or len(text) > _MAX_DIGITS:
        raise pickle.UnpicklingError("a Decimal is not in its plain form")
    return decimal.Decimal(text)


def _fraction(*parts: Any) -> fractions.Fraction:
    in_one = len(parts) == 1 and isinstance(parts[0], str) and _FRACTION.fullmatch(parts[0])
    in_two = len(parts) == 2 and all(
        type(part) is int and part.bit_length() <= MAX_BITS for part in parts
    )
    if not (in_one or in_two):
        raise pickle.UnpicklingError("a Fraction is not in its plain form")
    return fractions.Fraction(*parts)


def cost_of_fraction(parts: Any) -> int:
    """Return the cost of reducing a Fraction, in items: it grows with the square of its length."""
    bits = sum(part.bit_length() for part in parts if type(part) is int)
    return int((bits // 64) ** 2 // 64)


def _bytes(*octets: bytes) -> bytes:
    """Stand in for ``bytes``, by which Python 3 writes empty bytes for Python 2."""
    if octets not in ((), (b"",)):
        raise pickle.UnpicklingError("bytes are not in their plain form")
    return b""


def _bytearray(octets: Any = b"", encoding: str = "") -> bytearray:
    if isinstance(octets, str) and encoding in _LATIN_1:
        octets = octets.encode("latin1")
    if not isinstance(octets, bytes):
        raise pickle.UnpicklingError("a bytearray is not in its plain form")
    return bytearray(octets)


def _array(typecode: Any, items: Any) -> Any:
    if not isinstance(items, (list, str, bytes)):
        raise pickle.UnpicklingError("an array is not in its plain form")
    return array.array(typecode, items)


def zone_info() -> Any:
    """Return zoneinfo.ZoneInfo, if the process has imported it."""
    return imported("zoneinfo", "ZoneInfo")


def named_zone(key: str, from_cache: bool = True) -> Any:
    """Stand in for ``ZoneInfo._unpickle``, which would import a zone that no folder has."""
    if type(key) is not str or not _ZONE.fullmatch(key) or not _is_at_hand(key):
        raise pickle.UnpicklingError("a time zone is not known to this process")
    return zone_info()(key)


def _is_at_hand(key: str) -> bool:
    """Return True if the data of a zone are in a folder or an imported package."""
    package = ".".join(["tzdata.zoneinfo", *key.split("/")[:-1]])
    folders = imported("zoneinfo._tzpath", "TZPATH")
    return package in sys.modules or any(os.path.isfile(f"{each}/{key}") for each in folders)


class _HandledByUnpickler:
    """Stands in for a function whose work the unpickler does itself, with checks."""

    __slots__ = ()


#: ``UnicodeDecodeError`` of Python 2, whose byte string may have been read as text.
unicode_decode_error = _HandledByUnpickler()
#: ``copyreg.__newobj__``, by which protocols 0 and 1 write objects.
new_object = _HandledByUnpickler()
#: ``copyreg._reconstructor``, the same for objects without a ``__reduce__`` of their own.
reconstructor = _HandledByUnpickler()
#: ``getattr``, by which protocols before 4 write a name inside a class.
attribute = _HandledByUnpickler()


# --- the tables ----------------------------------------------------------------------------

VALUES = {name: found for name in VALUE_TYPES if (found := _value(name)) is not None}

# Includes former names, such as IOError.
EXCEPTIONS: dict[Name, Any] = {
    ("builtins", name): found
    for name, found in vars(builtins).items()
    if isinstance(found, type) and issubclass(found, Exception)
}
# Stand-ins by the name that they stand in for.
_STAND_INS: dict[Name, Any] = {
    ("_codecs", "encode"): _encode,
    ("builtins", "getattr"): attribute,
    ("builtins", "object"): object,
    ("copyreg", "__newobj__"): new_object,
    ("copyreg", "_reconstructor"): reconstructor,
}
#: Stand-ins by the class that they are called in place of.
CONSTRUCTORS: dict[Any, Callable[..., Any]] = {
    array.array: _array,
    bytearray: _bytearray,
    bytes: _bytes,
    range: _range,
    decimal.Decimal: _decimal,
    fractions.Fraction: _fraction,
}
CONSTRUCTORS |= {cls: partial(pure_path, cls) for cls in PATHS}

#: Types that a message may name but not call: as the default_factory of a defaultdict, or as the
#: base of a class.
NAMED_ONLY = frozenset({bool, dict, float, int, list, object, str, tuple})
#: Builtin bases that an object written by protocols 0 and 1 may have.
BASES = frozenset({bytes, dict, float, int, list, set, str, tuple})
#: Containers that C frees recursively: nested deep enough, they overflow the stack.
FREED_BY_RECURSION = (deque, defaultdict)
#: Types that a message calls without arguments, and fills afterwards.
FILLED_LATER = frozenset({ChainMap, SimpleNamespace, UserDict, UserList, UserString})
_WITH_STATE = {*FILLED_LATER, Counter, OrderedDict, defaultdict, deque, uuid.UUID}
#: Types whose instances get no state; some instances are shared by the whole process.
WITHOUT_STATE = frozenset(VALUES.values()) - _WITH_STATE
#: Types of the arguments that a call of the tables may get: containers, and then leaves.
CONTAINERS = frozenset({list, tuple, dict, set, frozenset, deque})
LEAVES = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
LEAVES |= {datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone}


def stand_in(name: Name) -> Any:
    """Return the stand-in for *name*; None if it has none."""
    return zone_info() if name == ("zoneinfo", "ZoneInfo") else _STAND_INS.get(name)


#: Types with a length; ``len`` of any other object could run its code.
SIZED = CONTAINERS | {str, bytes, bytearray, range}
#: Types and functions of the tables that a message may call directly.
CALLED_WITH_VALUES = frozenset(VALUES.values()) - CONSTRUCTORS.keys()


def parts_of(value: Any) -> Iterable[Any]:
    """Return the parts of *value*, from which its hash or its text would be computed."""
    kind = type(value)
    if kind is tuple or kind is list:
        return value  # type: ignore[no-any-return]
    if issubclass(kind, BaseException):
        return args_of(value)
    if issubclass(kind, dict):
        return chain(dict.keys(value), dict.values(value))
    for each in _ITERABLE:
        if issubclass(kind, each):
            return each.__iter__(value)  # type: ignore[no-any-return]
    if issubclass(kind, type) or kind in LEAVES:
        return ()
    return chain(_attributes_of(value).values(), _slots_of(value))


def _attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes of *value* without running code of its class."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


_ITERABLE: tuple[Any, ...] = (list, tuple, set, frozenset, deque)


def _slots_of(value: Any) -> Iterable[Any]:
    for cls in type(value).__mro__:
        for slot in vars(cls).values():
            if type(slot) is MemberDescriptorType:
                with suppress(AttributeError):  # it may be empty
                    yield slot.__get__(value)
