"""What a name in a pickle stands for here, and what may be done with it.

Much of it is a stand-in: it takes what picklers write, and nothing else.
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

#: Of a whole number that is given to a call.
MAX_BITS = 16_384
_MAX_RANGE = 10**9
_MAX_DIGITS = 4_300  # of a Decimal or a Fraction; what Python reads in a whole number
_ZONE = re.compile(r"\w[\w+-]*(/\w[\w+-]*){0,3}", re.ASCII)
_FRACTION = re.compile(rf"-?\d{{1,{_MAX_DIGITS}}}(/\d{{1,{_MAX_DIGITS}}})?")


def today(name: Name) -> Name:
    """Return what Python 3 calls the *name* that Python 2 wrote."""
    if name in NAME_MAPPING:
        return NAME_MAPPING[name]
    return IMPORT_MAPPING.get(name[0], name[0]), name[1]


def _value(name: Name) -> Any:
    """Return the thing behind a name in the tables; None where this Python has it not."""
    try:
        module = importlib.import_module(name[0])
    except ImportError:
        return None
    return vars(module).get(name[1])


# --- stand-ins: what a name is bound to in place of what it says ----------------------

_LATIN_1 = ("latin1", "latin-1")


class _Encode:
    """In place of ``_codecs.encode``, by which protocol 2 writes bytes.

    An object without attributes, which no message can change.
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
    """Return what it costs to shorten a Fraction, in items: that grows with the square."""
    bits = sum(part.bit_length() for part in parts if type(part) is int)
    return int((bits // 64) ** 2 // 64)


def _bytes(*octets: bytes) -> bytes:
    """Python 3 writes an empty one like this for Python 2."""
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
    """In place of ``ZoneInfo._unpickle``, which imports what it does not find in a folder."""
    if type(key) is not str or not _ZONE.fullmatch(key) or not _is_at_hand(key):
        raise pickle.UnpicklingError("a time zone is not known to this process")
    return zone_info()(key)


def _is_at_hand(key: str) -> bool:
    """Return True if the data of a zone are in a folder, or in a package that is imported."""
    package = ".".join(["tzdata.zoneinfo", *key.split("/")[:-1]])
    folders = imported("zoneinfo._tzpath", "TZPATH")
    return package in sys.modules or any(os.path.isfile(f"{each}/{key}") for each in folders)


class _DoneByTheUnpickler:
    """In place of a function whose work the unpickler does itself, with a look at it."""

    __slots__ = ()


#: ``UnicodeDecodeError`` of Python 2, whose byte string may have been read as text.
unicode_decode_error = _DoneByTheUnpickler()
#: ``copyreg.__newobj__``, by which protocols 0 and 1 write objects.
new_object = _DoneByTheUnpickler()
#: ``copyreg._reconstructor``, the same for what has no ``__reduce__`` of its own.
reconstructor = _DoneByTheUnpickler()
#: ``getattr``, by which protocols before 4 write what stands in a class.
attribute = _DoneByTheUnpickler()


# --- what a name stands for --------------------------------------------------------------

VALUES = {name: found for name in VALUE_TYPES if (found := _value(name)) is not None}

# Also by the names that they have had before, as IOError.
EXCEPTIONS: dict[Name, Any] = {
    ("builtins", name): found
    for name, found in vars(builtins).items()
    if isinstance(found, type) and issubclass(found, Exception)
}
# What takes the place of the function that is named.
_STAND_INS: dict[Name, Any] = {
    ("_codecs", "encode"): _encode,
    ("builtins", "getattr"): attribute,
    ("builtins", "object"): object,
    ("copyreg", "__newobj__"): new_object,
    ("copyreg", "_reconstructor"): reconstructor,
}
#: What is called in place of a class.
CONSTRUCTORS: dict[Any, Callable[..., Any]] = {
    array.array: _array,
    bytearray: _bytearray,
    bytes: _bytes,
    range: _range,
    decimal.Decimal: _decimal,
    fractions.Fraction: _fraction,
}
CONSTRUCTORS |= {cls: partial(pure_path, cls) for cls in PATHS}

#: They are named only, as the default_factory of a defaultdict or the base of a class.
NAMED_ONLY = frozenset({bool, dict, float, int, list, object, str, tuple})
#: What an object of protocols 0 and 1 may be besides.
BASES = frozenset({bytes, dict, float, int, list, set, str, tuple})
#: What frees its items by a call for each in the other, until there is no stack.
FREED_BY_RECURSION = (deque, defaultdict)
#: They are called without arguments, and get what they hold afterwards.
FILLED_LATER = frozenset({ChainMap, SimpleNamespace, UserDict, UserList, UserString})
_WITH_STATE = {*FILLED_LATER, Counter, OrderedDict, defaultdict, deque, uuid.UUID}
#: No state follows for their instances, and some are one for the whole process.
WITHOUT_STATE = frozenset(VALUES.values()) - _WITH_STATE
#: What a call from the tables may be given, in containers of exactly the builtin types.
CONTAINERS = frozenset({list, tuple, dict, set, frozenset, deque})
LEAVES = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
LEAVES |= {datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone}


def stand_in(name: Name) -> Any:
    """Return what takes the place of what *name* says; None if nothing does."""
    return zone_info() if name == ("zoneinfo", "ZoneInfo") else _STAND_INS.get(name)


#: Asking anything else for its length could run its code.
SIZED = CONTAINERS | {str, bytes, bytearray, range}
#: What a message may call of the tables.
CALLED_WITH_VALUES = frozenset(VALUES.values()) - CONSTRUCTORS.keys()


def parts_of(value: Any) -> Iterable[Any]:
    """Return what *value* consists of, and what its hash or its text would be made of."""
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
    """Return the attributes of *value*, without asking it."""
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
