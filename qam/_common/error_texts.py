"""Texts and tracebacks of errors, bounded in size.

An error of this process may hold values that came in a message.  So their size is checked
before a text is made of them: a list that contains another one twice, which contains another
one twice, and so on, has a text of exponential length.  Classes of the application compute
their text by their own code, which is trusted.
"""

import reprlib
import traceback
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from types import SimpleNamespace, TracebackType
from typing import Any

from qam._common.error_inspection import (
    MAX_TEXT,
    args_and_state,
    args_of,
    full_name,
    has_huge_position,
    has_own_text,
    text_of_args,
)
from qam._common.plain_values import cut_octets
from qam._common.printable import printable
from qam.exceptions import RemoteException

# A value of up to so many items, and characters and octets, is shown in full.
_MAX_ITEMS, _MAX_LENGTH = 10_000, 2**20
_MAX_BITS = 2_048
# How many errors a traceback shows at most: causes, contexts and members of groups.
_MAX_ERRORS = 100

_CONTAINERS: tuple[type, ...] = (list, tuple, set, frozenset, deque)
_HOLDERS: tuple[type, ...] = (SimpleNamespace, UserDict, UserList, ChainMap)
_TEXTS: tuple[type, ...] = (str, bytes, bytearray)


class _ShortRepr(reprlib.Repr):
    """Shows the beginning of a value, in bounded time."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 200, 200

    def repr_int(self, value: int, level: int) -> str:
        long = value.bit_length() > _MAX_BITS
        return f"<int of {value.bit_length()} bits>" if long else repr(value)

    def repr_instance(self, value: Any, level: int) -> str:
        said = _text_or_none(repr, value) if _is_small((value,)) else None
        return f"<{type(value).__name__}>" if said is None else cut_octets(said, self.maxother)


def _text_or_none(say: Any, value: Any) -> str | None:
    """Return the text that *say* makes of *value*; None if *say* fails."""
    try:
        return str(say(value))
    except Exception:
        return None


def shown(value: Any) -> str:
    """Return the repr of *value*, or only its beginning if it is large."""
    said = (
        _text_or_none(repr, value)
        if _is_small((value,))
        else _text_or_none(_ShortRepr().repr, value)
    )
    return f"<{type(value).__name__}>" if said is None else fit(said)


def _is_small(values: Iterable[Any]) -> bool:
    """Return True if *values* are small enough to be shown in full."""
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
        return _first_items(args_of(value))
    if issubclass(kind, _HOLDERS):
        return _first_items(vars(value).values())
    if issubclass(kind, dict):
        return _first_items(chain.from_iterable(dict.items(value)))
    iterable: Any = next((each for each in _CONTAINERS if issubclass(kind, each)), None)
    return [] if iterable is None else _first_items(iterable.__iter__(value))


def _first_items(values: Iterable[Any]) -> list[Any]:
    return list(islice(values, _MAX_ITEMS + 1))


# --- texts --------------------------------------------------------------------------------


def fit(text: str) -> str:
    """Return *text* so that it can be sent: cut, with lone surrogates escaped."""
    text = cut_octets(text, MAX_TEXT)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def text_of(error: BaseException) -> str:
    """Return the text of *error*, cut if it is long; empty if it has none or ``str`` fails."""
    if _has_small_text(error):
        return fit(_text_or_none(str, error) or "")
    args = args_of(error)
    return fit(_text_or_none(_ShortRepr().repr, args[0] if len(args) == 1 else args) or "")


def _has_small_text(error: BaseException) -> bool:
    return has_own_text(type(error)) or _is_small(args_and_state(error)[0])


def describe(error: BaseException) -> str:
    """Return *error* in one printable line: its type and, if there is one, its text."""
    text = text_of(error)
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def describe_received(error: BaseException) -> str:
    """Return *error*, which a call raised, in one printable line; run no code of its class."""
    if has_own_text(type(error)) and not isinstance(error, RemoteException):
        return printable(f"{type(error).__name__}: {text_of_args(args_of(error))}")
    return describe(error)


# --- tracebacks -----------------------------------------------------------------------------


def traceback_of(error: BaseException, frames: TracebackType | None) -> str:
    """Return the traceback of *error* as Python shows it, its middle left out if it is long.

    :param frames: the first frame to show.
    """
    with suppress(Exception):  # attributes of the wrong type make the traceback module fail
        if all(map(_is_short, _shown_with(error))):
            return without_middle("".join(traceback.format_exception(type(error), error, frames)))
    return without_middle("".join(traceback.format_tb(frames)) + describe(error))


def bare_traceback_of(error: BaseException, frames: TracebackType | None) -> str:
    """Return the traceback of *error*, and its type; run no code of its class."""
    return without_middle("".join(traceback.format_tb(frames)) + full_name(type(error)))


def free_locals(error: BaseException) -> None:
    """Free the local variables of the frames that *error* and its causes have passed."""
    left: BaseException | None = error
    while left is not None:
        traceback.clear_frames(left.__traceback__)
        left = left.__cause__


def _shown_with(error: BaseException) -> Iterator[BaseException]:
    """Yield every error that a traceback of *error* shows: its causes, contexts and members.

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
    return _has_small_text(error) and _is_small((notes,)) and not has_huge_position(error)


def without_middle(text: str) -> str:
    """Return *text*, its middle left out if it is long: the end says what happened."""
    if len(text) * (1 if text.isascii() else 4) > MAX_TEXT:
        part = MAX_TEXT // 16 - 10
        left_out = len(text) - 4 * part
        text = f"{text[:part]}\n… {left_out} characters …\n{text[-3 * part :]}"
    return fit(text)
