"""What is shown of errors: text and traceback, of a bounded size.

An error of this process may hold what a message brought, so its text is not asked for
before it is known that it ends: a list that lies in itself twice, and so on, has a text
without end.  Beyond that the text of a class of one's own is its code, and trusted.
"""

import reprlib
import traceback
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from types import SimpleNamespace, TracebackType
from typing import Any

from qam._common.error_looks import (
    MAX_TEXT,
    args_of,
    reaches_too_far,
    says_itself,
    taken_apart,
    text_of_args,
)
from qam._common.plain_values import cut_octets
from qam._common.printable import printable
from qam.exceptions import RemoteException

# What is shown as it is: so many items, so many characters and octets.
_MAX_ITEMS, _MAX_LENGTH = 10_000, 2**20
_MAX_BITS = 2_048
# How many errors a traceback shows: causes, contexts and members of groups.
_MAX_ERRORS = 100

_CONTAINERS: tuple[type, ...] = (list, tuple, set, frozenset, deque)
_HOLDERS: tuple[type, ...] = (SimpleNamespace, UserDict, UserList, ChainMap)
_TEXTS: tuple[type, ...] = (str, bytes, bytearray)


class _ShortRepr(reprlib.Repr):
    """Shows a bit of a value, in bounded time."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 200, 200

    def repr_int(self, value: int, level: int) -> str:
        long = value.bit_length() > _MAX_BITS
        return f"<int of {value.bit_length()} bits>" if long else repr(value)

    def repr_instance(self, value: Any, level: int) -> str:
        said = _said(repr, value) if _ends((value,)) else None
        return f"<{type(value).__name__}>" if said is None else cut_octets(said, self.maxother)


def _said(say: Any, value: Any) -> str | None:
    """Return what *say* makes of *value*; None if it fails."""
    try:
        return str(say(value))
    except Exception:
        return None


def shown(value: Any) -> str:
    """Return the repr of *value*, or a bit of it where it is large."""
    said = _said(repr, value) if _ends((value,)) else _said(_ShortRepr().repr, value)
    return f"<{type(value).__name__}>" if said is None else fit(said)


def _ends(values: Iterable[Any]) -> bool:
    """Return True if the text of *values* is not longer than what can be shown."""
    left, items, length = list(values), _MAX_ITEMS, _MAX_LENGTH
    while left:
        value = left.pop()
        parts = _parts_of(value)
        items -= 1 + len(parts)
        length -= len(value) if issubclass(type(value), _TEXTS) else 0
        if items < 0 or length < 0 or (type(value) is int and value.bit_length() > _MAX_BITS):
            return False
        left += parts
    return True


def _parts_of(value: Any) -> list[Any]:
    kind = type(value)
    if issubclass(kind, BaseException):
        return _some(args_of(value))
    if issubclass(kind, _HOLDERS):
        return _some(vars(value).values())
    if issubclass(kind, dict):
        return _some(chain.from_iterable(dict.items(value)))
    iterable: Any = next((each for each in _CONTAINERS if issubclass(kind, each)), None)
    return [] if iterable is None else _some(iterable.__iter__(value))


def _some(values: Iterable[Any]) -> list[Any]:
    return list(islice(values, _MAX_ITEMS + 1))


# --- texts --------------------------------------------------------------------------------


def fit(text: str) -> str:
    """Return *text* as it can travel: cut, and without what UTF-8 does not have."""
    text = cut_octets(text, MAX_TEXT)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def text_of(error: BaseException) -> str:
    """Return the text of *error*, cut if it is long; empty if it has none or fails to say it."""
    if _text_ends(error):
        return fit(_said(str, error) or "")
    args = args_of(error)
    return fit(_said(_ShortRepr().repr, args[0] if len(args) == 1 else args) or "")


def _text_ends(error: BaseException) -> bool:
    return says_itself(type(error)) or _ends(taken_apart(error)[0])


def describe(error: BaseException) -> str:
    """Return *error* in one printable line: its type and, if there is one, its text."""
    text = text_of(error)
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def describe_received(error: BaseException) -> str:
    """Return *error*, which a call raised, in one printable line; its class says nothing of it."""
    if says_itself(type(error)) and not isinstance(error, RemoteException):
        return printable(f"{type(error).__name__}: {text_of_args(args_of(error))}")
    return describe(error)


# --- tracebacks -----------------------------------------------------------------------------


def traceback_of(error: BaseException, frames: TracebackType | None) -> str:
    """Return the traceback of *error* as Python shows it, its middle left out if it is long.

    :param frames: where it begins.
    """
    with suppress(Exception):  # an exception with odd attributes
        if all(map(_is_short, _shown_with(error))):
            return without_middle("".join(traceback.format_exception(type(error), error, frames)))
    return without_middle("".join(traceback.format_tb(frames)) + describe(error))


def _shown_with(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that a traceback of *error* shows.

    :raises RecursionError: there are too many.
    """
    left, seen = [error], set[int]()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        left += [one for one in (each.__cause__, each.__context__, *inner) if one is not None]
        if len(seen) > _MAX_ERRORS:
            raise RecursionError


def _is_short(error: BaseException) -> bool:
    notes = vars(error).get("__notes__", ())
    return _text_ends(error) and _ends((notes,)) and not reaches_too_far(error)


def without_middle(text: str) -> str:
    """Return *text*; its middle is left out if it is long, since the end says what happened."""
    if len(text) * (1 if text.isascii() else 4) > MAX_TEXT:
        part = MAX_TEXT // 16 - 10
        left_out = len(text) - 4 * part
        text = f"{text[:part]}\n… {left_out} characters …\n{text[-3 * part :]}"
    return fit(text)
