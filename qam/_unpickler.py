"""Pickle, restricted: builds values and what the application has trusted, nothing else.

Three steps, each for fewer messages than the one before it:

1. :mod:`qam._pickle_scan` looks at the opcodes before any is obeyed.
2. The C unpickler builds what names nothing at all, or only types of C that nobody
   can change and that cost no more than what they are given.
3. All else is built by the unpickler in Python, which sees every call: what is called
   has to be one of the names in the tables, and is not changed by the message.
"""

import importlib
import io
import pickle  # nosec B403
import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import UserDict, UserList, deque
from collections.abc import Callable
from typing import Any, ClassVar

from qam import _pickle_scan
from qam._trust import NUMPY, VALUE_TYPES, Name, Trusted, imported_exception, refusal

# Types whose constructors copy, count or multiply what they are given.
_COPYING = {
    ("builtins", kind.__name__)
    for kind in (bytearray, bytes, dict, frozenset, int, list, range, set, str, tuple)
}
# Python 2 writes its bytes as a byte string, which is read as text where it is UTF-8.
_PYTHON_2_DECODE_ERROR = ("exceptions", "UnicodeDecodeError")
# Flags of a type: it was made at run time, and it can't be changed even so.
_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8

# How many items the calls of one message may be given: so many, and more for its size.
_BUDGET, _BUDGET_PER_BYTE = 100_000, 64

# What is counted against it; asking anything else for its length could run its code.
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset, range, deque)

_MAX_RANGE = 10**9
_FRACTION = re.compile(r"-?\d{1,4000}(/\d{1,4000})?")


class Stranger:
    """Stands for an instance of a class that this process does not have, or not trust."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Stranger":
        """Take any arguments: whatever its class is built with."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Take any state, and keep none."""


def loads(body: bytes, trusted: Trusted, strangers: list[str] | None = None) -> Any:
    """Return what *body* stands for; byte strings of Python 2 are text where they are UTF-8.

    :param trusted: what may be built beside the tables' values.
    :param strangers: where given, what is not trusted is no error: it is replaced by a
        :class:`Stranger`, and what to do about it is added to this list.
    :raises pickle.UnpicklingError: it names what is not trusted, or is none.
    :raises Exception: whatever else a broken pickle, or the building of a trusted
        class, leads to.
    """
    _pickle_scan.check(body)
    try:
        return _QuickUnpickler(_stream(body), encoding="utf-8").load()
    except (_NeedsCareError, UnicodeDecodeError):
        return _CarefulUnpickler(body, trusted, strangers).load()


def _stream(body: bytes) -> Any:
    # A BytesIO hands long strings out bit by bit; a BufferedReader over it does not.
    return io.BufferedReader(io.BytesIO(body))


class _NeedsCareError(Exception):
    """The quick unpickler met a name that it does not know as harmless."""


class _QuickUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _HARMLESS.get(_today((module, name)))
        if found is None or (module, name) == _PYTHON_2_DECODE_ERROR:
            raise _NeedsCareError
        return found


def _today(name: Name) -> Name:
    """Return what Python 3 calls the *name* that Python 2 wrote."""
    if name in NAME_MAPPING:
        return NAME_MAPPING[name]
    return IMPORT_MAPPING.get(name[0], name[0]), name[1]


def _is_harmless(found: Any) -> bool:
    """Return True for a type that no message can change."""
    if not isinstance(found, type):
        return False
    return not found.__flags__ & _HEAP_TYPE or bool(found.__flags__ & _IMMUTABLE_TYPE)


def _value(name: Name) -> Any:
    """Return the thing behind a name in the tables; None where this Python has it not."""
    try:
        module = importlib.import_module(name[0])
    except ImportError:
        return None
    return vars(module).get(name[1])


class _Encode:
    """In place of ``_codecs.encode``, by which protocol 2 writes bytes.

    An object without attributes, which no message can change.
    """

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("_codecs.encode serves only to write bytes as latin1")
        return text.encode("latin1")


_encode = _Encode()

_VALUES = {name: found for name in VALUE_TYPES if (found := _value(name)) is not None}
_HARMLESS: dict[Name, Any] = {("_codecs", "encode"): _encode}
_HARMLESS |= {
    name: found
    for name, found in _VALUES.items()
    if name[0] in ("builtins", "datetime", "decimal", "time")
    and name not in _COPYING
    and _is_harmless(found)
}
_HARMLESS |= {
    ("builtins", name): found
    for name, found in vars(sys.modules["builtins"]).items()
    if isinstance(found, type) and issubclass(found, Exception)
}


# --- stand-ins: what a name is bound to in place of what it says ----------------------


def _range(*numbers: int) -> range:
    found = range(*numbers)
    if not -_MAX_RANGE < found.start < _MAX_RANGE or not -_MAX_RANGE < found.stop < _MAX_RANGE:
        raise pickle.UnpicklingError("a range is too long for a message")
    return found


def _fraction(*parts: Any) -> Any:
    if len(parts) == 1 and isinstance(parts[0], str) and not _FRACTION.fullmatch(parts[0]):
        raise pickle.UnpicklingError("a fraction is not in its plain form")
    return _VALUES["fractions", "Fraction"](*parts)


def _reconstruct_object(cls: type, base: type, state: Any) -> Any:
    """In place of ``copyreg._reconstructor``, by which protocols 0 and 1 write objects."""
    if not isinstance(cls, type) or base is not object or state is not None:
        raise pickle.UnpicklingError("copyreg._reconstructor serves only for plain objects")
    return object.__new__(cls)


def _new_object(cls: type, *args: Any) -> Any:
    """In place of ``copyreg.__newobj__``, the same for what has a ``__new__``."""
    if not isinstance(cls, type):
        raise pickle.UnpicklingError("copyreg.__newobj__ serves only for classes")
    return cls.__new__(cls, *args)


def _zone(*args: Any) -> Callable[..., Any]:
    """In place of ``getattr``, by which a ZoneInfo is written; for that alone."""
    zone_info = getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)
    if zone_info is None or args != (zone_info, "_unpickle"):
        raise pickle.UnpicklingError("getattr is not trusted; no message may reach attributes")
    return _named_zone


def _named_zone(key: str, from_cache: bool = True) -> Any:
    return sys.modules["zoneinfo"].ZoneInfo(key)


def _empty_array(subtype: Any, shape: Any, kind: Any) -> Any:
    """In place of numpy's ``_reconstruct``: the state that follows says the shape."""
    numpy: Any = sys.modules["numpy"]
    if subtype is not numpy.ndarray or shape != (0,):
        raise pickle.UnpicklingError("numpy's _reconstruct serves only for plain arrays")
    return numpy.ndarray((0,), "b")


def _unicode_decode_error(encoding: str, source: Any, *rest: Any) -> UnicodeDecodeError:
    """In place of Python 2's own: its byte string may have been read as text."""
    octets = source.encode("utf-8") if isinstance(source, str) else source
    return UnicodeDecodeError(encoding, octets, *rest)


_STAND_INS: dict[Name, Any] = {
    ("_codecs", "encode"): _encode,
    ("builtins", "object"): object,
    ("builtins", "getattr"): _zone,
    ("builtins", "range"): _range,
    ("fractions", "Fraction"): _fraction,
    ("copyreg", "_reconstructor"): _reconstruct_object,
    ("copyreg", "__newobj__"): _new_object,
}
_NUMPY_STAND_INS: dict[Name, Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
}
_STAND_INS |= _NUMPY_STAND_INS


def _stand_in(name: Name) -> Any:
    if name == ("zoneinfo", "ZoneInfo"):
        return getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)
    return None if name in _NUMPY_STAND_INS and "numpy" not in sys.modules else _STAND_INS.get(name)


def _numpy(name: Name) -> Any:
    """Return what *name* is in numpy, if the process has imported it, old names and new."""
    if name not in NUMPY or "numpy" not in sys.modules:
        return None
    module = name[0] if name[0] in sys.modules else name[0].replace(".core.", "._core.")
    return getattr(sys.modules.get(module), name[1], None)


# --- the careful unpickler --------------------------------------------------------------

_PythonUnpickler: Any = pickle._Unpickler


class _CarefulUnpickler(_PythonUnpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, body: bytes, trusted: Trusted, strangers: list[str] | None) -> None:
        super().__init__(io.BytesIO(body), encoding="utf-8")
        self._trusted = trusted
        self._strangers = strangers
        self._budget = _BUDGET + _BUDGET_PER_BYTE * len(body)
        # What the message has named so far, and nothing else, may be called.
        self._named: dict[int, Any] = {id(_named_zone): _named_zone}

    def _decode_string(self, value: bytes) -> str | bytes:
        """Read one byte string of Python 2."""
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value

    def find_class(self, module: str, name: str) -> Any:
        found = self._find((module, name))
        self._named[id(found)] = found
        return found

    def _find(self, old_name: Name) -> Any:
        if old_name == _PYTHON_2_DECODE_ERROR:
            return _unicode_decode_error
        name = _today(old_name)
        for look_up in (_stand_in, _VALUES.get, self._trusted.find, imported_exception, _numpy):
            found = look_up(name)
            if found is not None:
                return found
        if self._strangers is None:
            raise pickle.UnpicklingError(refusal(name))
        self._strangers.append(refusal(name))
        return Stranger

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("the extension registry is not trusted")

    # --- calls: only of what was named, and within the budget --------------------------

    def _check_call(self, called: Any, args: Any) -> None:
        if self._named.get(id(called)) is not called or not isinstance(args, tuple):
            raise pickle.UnpicklingError("a message may call only what it names")
        if called in (bytes, bytearray, str) and not all(
            isinstance(arg, (str, bytes, bytearray)) for arg in args
        ):
            raise pickle.UnpicklingError(f"{called.__name__} serves only for text and bytes")
        self._budget -= sum(len(arg) for arg in args if isinstance(arg, _SIZED))
        if self._budget < 0:
            raise pickle.UnpicklingError("the message would build more than its size allows")

    def load_reduce(self) -> None:
        self._check_call(self.stack[-2], self.stack[-1])
        super().load_reduce()

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        self._check_call(self.stack[-2], self.stack[-1])
        super().load_newobj()

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self) -> None:
        cls, args, kwargs = self.stack[-3:]
        self._check_call(cls, (*args, *kwargs.values()))
        super().load_newobj_ex()

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def _instantiate(self, klass: Any, args: Any) -> None:
        self._check_call(klass, tuple(args))
        super()._instantiate(klass, args)

    # --- states: of instances only, and no attribute that changes what they are ---------

    def load_build(self) -> None:
        instance, state = self.stack[-2:]
        if isinstance(instance, type) or self._named.get(id(instance)) is instance:
            raise pickle.UnpicklingError("a message may not change what it names")
        slots = state[1] if isinstance(state, tuple) and len(state) == 2 else None
        if isinstance(slots, dict) and any(str(key).startswith("__") for key in slots):
            raise pickle.UnpicklingError("a message may not set special attributes")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    # --- items: of containers only -------------------------------------------------------

    def _check_container(self, container: Any, *kinds: type) -> None:
        if not isinstance(container, kinds):
            raise pickle.UnpicklingError("a message may fill only containers")

    def load_append(self) -> None:
        self._check_container(self.stack[-2], list, deque, UserList)
        super().load_append()

    dispatch[pickle.APPEND[0]] = load_append

    def load_appends(self) -> None:
        self._check_container(self.metastack[-1][-1], list, deque, UserList)
        super().load_appends()

    dispatch[pickle.APPENDS[0]] = load_appends

    def load_setitem(self) -> None:
        self._check_container(self.stack[-3], dict, UserDict)
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        self._check_container(self.metastack[-1][-1], dict, UserDict)
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_additems(self) -> None:
        self._check_container(self.metastack[-1][-1], set)
        super().load_additems()

    dispatch[pickle.ADDITEMS[0]] = load_additems
