"""How an exception is looked at: nothing that its class defines is run."""

import builtins
import json
import sys
from collections.abc import Iterable
from typing import Any

from qam._common.plain_values import Allowance, NotPlainError
from qam._common.static_looks import (
    Name,
    base_of,
    is_class,
    mro_of,
    name_of,
    namespace_of,
    own_class,
)
from qam.exceptions import QAMException, RemoteException

#: Of a text that a peer sends, in octets of UTF-8; and of a name.
MAX_TEXT, MAX_NAME = 65_536, 500

BUILTIN = {id(found): found for found in vars(builtins).values() if is_class(found)}
# Who catches one of these does not think of calls.
_CONTROL_FLOW = (StopIteration, StopAsyncIteration)

_MAX_COLUMN, _MAX_LINE = 10_000, 2**31

_ARGS: Any = vars(BaseException)["args"]
ATTRIBUTES: Any = vars(BaseException)["__dict__"]
NOTES = "__notes__"


# --- classes ------------------------------------------------------------------------------


def is_error_class(thing: Any) -> bool:
    """Return True if *thing* is the class of an exception."""
    return is_class(thing) and issubclass(thing, BaseException)


def find_class(name: Name) -> type[BaseException] | None:
    """Return the exception class *name* if it is a builtin one, or imported already."""
    module = sys.modules.get(name[0])
    found = None if module is None else own_class(module, name)
    return found if found is not None and issubclass(found, BaseException) else None


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Return the args of *error*, whatever its class has under that name."""
    args: tuple[Any, ...] = _ARGS.__get__(error)
    return args


def notes_of(error: BaseException) -> Any:
    """Return the notes of *error*, whatever they are; None if it has none."""
    return ATTRIBUTES.__get__(error).get(NOTES)


def full_name(cls: type) -> str:
    """Return the name of *cls* as the wire carries it."""
    return ".".join(name_of(cls))


def may_be_raised(cls: type) -> bool:
    """Return True if a call may raise exceptions of *cls*: they are not those of a peer's own."""
    mro = mro_of(cls)
    return Exception in mro and not any(kept in mro for kept in (QAMException, *_CONTROL_FLOW))


def defines(cls: type, name: str) -> bool:
    """Return True if what instances of *cls* do under *name* is not that of a builtin class."""
    defining = next(each for each in mro_of(cls) if name in (namespace_of(each) or {}))
    return id(defining) not in BUILTIN


def hashes_itself(value: Any) -> bool:
    """Return True if to hash the exception *value* runs code of its class."""
    return issubclass(type(value), BaseException) and defines(type(value), "__hash__")


def says_itself(cls: type) -> bool:
    """Return True if the text of exceptions of *cls* is made by code that is not builtin."""
    return defines(cls, "__str__")


# --- what the builtin ones keep in C ------------------------------------------------------


def are(values: Iterable[Any], *kinds: type) -> bool:
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
        are((args[0], filename, text), str, type(None))
        and is_number(line, _MAX_LINE)
        and is_number(last_line, _MAX_LINE)
        and is_number(column, _MAX_COLUMN)
        and is_number(last_column, _MAX_COLUMN)
    )


def reaches_too_far(error: BaseException) -> bool:
    """Return True if *error* marks a place of a program's text that is far outside of it."""
    if not isinstance(error, SyntaxError):
        return False
    place = (error.filename, error.lineno, error.offset, error.text)
    return not is_syntax_error((error.msg, (*place, error.end_lineno, error.end_offset)))


# --- exceptions ---------------------------------------------------------------------------


def taken_apart(error: BaseException) -> tuple[tuple[Any, ...], Any]:
    """Return the arguments and the attributes of *error*, as a pickle would have them."""
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
    """Return what an exception of plain *args* says; empty if they are not."""
    if not args:
        return ""
    try:  # of an exception among them the text is its class's affair
        plain = Allowance().copy(args[0] if len(args) == 1 else args)
    except NotPlainError:
        return ""
    return str(plain)
