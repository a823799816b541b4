"""Inspects exceptions and their classes without running any code that the class defines."""

import builtins
import json
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from qam._common.plain_values import Allowance, NotPlainError
from qam._common.static_inspection import (
    Name,
    base_of,
    is_class,
    mro_of,
    name_of,
    namespace_of,
    own_class,
)
from qam.exceptions import QAMException, RemoteException

#: Octets of UTF-8 that a text from a peer may have, and characters of a name.
MAX_TEXT, MAX_NAME = 65_536, 500

#: The builtin classes by their id: to compare or hash a class could run its metaclass.
BUILTIN = {id(found): found for found in vars(builtins).values() if is_class(found)}
# A call must not raise these: code that catches them uses them for iteration.
_CONTROL_FLOW = (StopIteration, StopAsyncIteration)

_MAX_COLUMN, _MAX_LINE = 10_000, 2**31

_ARGS: Any = vars(BaseException)["args"]
_TRACEBACK: Any = vars(BaseException)["__traceback__"]
ATTRIBUTES: Any = vars(BaseException)["__dict__"]
NOTES = "__notes__"


# --- classes ------------------------------------------------------------------------------


def is_error_class(thing: Any) -> bool:
    """Return True if *thing* is the class of an exception."""
    return is_class(thing) and issubclass(thing, BaseException)


def find_class(name: Name) -> type[BaseException] | None:
    """Return the exception class *name* if its module is already imported; imports nothing."""
    module = sys.modules.get(name[0])
    found = None if module is None else own_class(module, name)
    return found if found is not None and issubclass(found, BaseException) else None


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Return the args of *error*, even if its class defines another ``args``."""
    args: tuple[Any, ...] = _ARGS.__get__(error)
    return args


def frames_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of *error*, even if its class computes its attributes."""
    frames: TracebackType | None = _TRACEBACK.__get__(error)
    return frames


def notes_of(error: BaseException) -> Any:
    """Return the notes of *error*, of any type, as they are unchecked; None if it has none."""
    return ATTRIBUTES.__get__(error).get(NOTES)


def full_name(cls: type) -> str:
    """Return the full name of *cls* as a reply carries it: ``module.QualifiedName``."""
    return ".".join(name_of(cls))


def may_be_raised(cls: type) -> bool:
    """Return True if a call may raise exceptions of *cls* that a remote method raised.

    Exceptions of this library are excluded: they would look like failures of the call itself.
    """
    mro = mro_of(cls)
    return Exception in mro and not any(kept in mro for kept in (QAMException, *_CONTROL_FLOW))


def defines(cls: type, name: str) -> bool:
    """Return True if the attribute *name* of *cls* comes from a class that is not builtin."""
    defining = next(each for each in mro_of(cls) if name in (namespace_of(each) or {}))
    return id(defining) not in BUILTIN


def has_own_hash(value: Any) -> bool:
    """Return True if *value* is an exception whose hash is computed by code of its class."""
    return issubclass(type(value), BaseException) and defines(type(value), "__hash__")


def has_own_text(cls: type) -> bool:
    """Return True if the text of exceptions of *cls* is computed by code that is not builtin."""
    return defines(cls, "__str__")


# --- fields that builtin exceptions keep in C ---------------------------------------------


def all_of_type(values: Iterable[Any], *kinds: type) -> bool:
    return all(type(value) in kinds for value in values)


def is_number(value: Any, most: int, least: int = -1) -> bool:
    return value is None or (type(value) is int and least <= value <= most)


def is_syntax_error(args: tuple[Any, ...]) -> bool:
    if len(args) < 2:
        return True
    if len(args) != 2 or type(args[1]) is not tuple or len(args[1]) not in (4, 6):
        return False
    filename, line, column, text, *end = args[1]
    last_line, last_column = end or (None, None)
    return (
        all_of_type((args[0], filename, text), str, type(None))
        and is_number(line, _MAX_LINE)
        and is_number(last_line, _MAX_LINE)
        and is_number(column, _MAX_COLUMN)
        and is_number(last_column, _MAX_COLUMN)
    )


def has_huge_position(error: BaseException) -> bool:
    """Return True if *error* is a SyntaxError whose line or column is beyond any real source.

    Python would show such an error with a caret for each column that it claims to span.
    """
    if not isinstance(error, SyntaxError):
        return False
    place = (error.filename, error.lineno, error.offset, error.text)
    return not is_syntax_error((error.msg, (*place, error.end_lineno, error.end_offset)))


# --- exceptions ---------------------------------------------------------------------------


def args_and_state(error: BaseException) -> tuple[tuple[Any, ...], Any]:
    """Return the arguments and the attributes of *error*, as a pickle would hold them."""
    cls, attributes = type(error), ATTRIBUTES.__get__(error)
    if cls is RemoteException:
        own = attributes["type_name"], args_of(error), attributes["text"]
        return own, {NOTES: attributes[NOTES]} if NOTES in attributes else None
    if cls is json.JSONDecodeError:
        return tuple(attributes.get(field) for field in ("msg", "doc", "pos")), attributes
    base: Any = cls
    while id(base) not in BUILTIN:
        base = base_of(base)
    _, args, *state = base.__reduce__(error)
    return args, state[0] if state else None


def text_of_args(args: tuple[Any, ...]) -> str:
    """Return the text of an exception with *args*; empty if they are not plain values."""
    if not args:
        return ""
    try:  # refuses an exception among them: its class may compute its text
        plain = Allowance().copy(args[0] if len(args) == 1 else args)
    except NotPlainError:
        return ""
    return str(plain)
