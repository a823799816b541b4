"""Compares how this library reads a body with how CPython's own unpicklers read it.

What this library builds of a body, CPython builds of it as well, each of its unpicklers. What this
library refuses, CPython may read as it likes.
"""

from dataclasses import dataclass
from typing import Any

from qam._serialization import envelope, opcode_scan, unpickler
from qam._serialization.trust import Trusted
from tests.support.cpython_reader import NOT_ASKED, REFUSED, CPythonReader
from tests.support.described import describe

_NOTHING_TRUSTED = Trusted()


class DisagreementError(AssertionError):
    """Two readers take a body for different things."""


@dataclass
class Reading:
    """What this library makes of a body."""

    plain: bool
    built: str | None  # described; None if it is refused
    careful: str | None  # the same, by the careful unpickler alone
    envelope: str | None  # the same, by the reader of envelopes


def compare(reader: CPythonReader, body: bytes) -> str | None:
    """Return a description of what *body* is; None if this library refuses it.

    Raises DisagreementError if CPython takes it for anything else.
    """
    try:
        plain = opcode_scan.is_plain(body)
    except Exception:
        plain = False
        if (found := _read(body, plain)).built is None and found.envelope is None:
            return None
        raise DisagreementError(f"built although the scan refuses it: {body!r}") from None
    # What is plain is given to C, so it is tried in the other process first.
    theirs = reader.read(body) if plain else {}
    if theirs is None:
        raise DisagreementError(f"it ends CPython, and is taken for plain: {body!r}")
    if plain and theirs["has names"]:  # and C would look them up for itself
        raise DisagreementError(f"it names something, and is taken for plain: {body!r}")
    ours = _read(body, plain)
    if ours.built is None and ours.envelope is None and ours.careful is None:
        return None
    theirs = theirs or reader.read(body)
    if theirs is None and ours.built is None and ours.careful is None:
        # What ends it may be in what the reader of envelopes does not make.
        theirs = reader.read(body, naming=False)
    if theirs is None:
        raise DisagreementError(f"it ends CPython, and is built: {body!r}")
    if wrong := [*_differences(ours, theirs)]:
        raise DisagreementError("\n".join([repr(body), *wrong, f"{ours}", f"{theirs}"]))
    return ours.built


def _read(body: bytes, plain: bool) -> Reading:
    built = _tell(unpickler.loads, body, _NOTHING_TRUSTED)
    return Reading(
        plain,
        built,
        _tell(_read_carefully, body) if plain else built,
        _tell(envelope.load_envelope, body),
    )


def _read_carefully(body: bytes) -> Any:
    return unpickler.CarefulUnpickler(body, _NOTHING_TRUSTED, None).load()


def _tell(read: Any, *args: Any) -> str | None:
    try:
        value = read(*args)
    except Exception:
        return None
    return describe(value)


_NAMING, _NAMING_NOTHING = (
    ("python", "whole", "stream"),
    ("naming nothing", "stream naming nothing"),
)


def _differences(ours: Reading, theirs: dict[str, Any]) -> list[str]:
    """Say where two readers differ."""
    wrong = [
        f"{reader} is another reading than CPython's, {name}"
        for reader, built, names in (
            ("what is built", ours.built, _NAMING),
            ("what the careful unpickler builds", ours.careful, _NAMING),
            ("the envelope", ours.envelope, _NAMING_NOTHING),
        )
        for name in names
        if built is not None and not _is_same(built, theirs, name)
    ]
    if len(set(theirs.get("bytes", {}).values()) - {NOT_ASKED}) > 1:
        wrong.append("CPython's unpicklers differ in a byte string of Python 2")
    return wrong


def _is_same(built: str, theirs: dict[str, Any], name: str) -> bool:
    read = theirs[name]
    # The C unpickler reads all byte strings of Python 2 as text, or none.
    not_as_text = "bytes" in theirs and read == REFUSED + "UnicodeDecodeError"
    return read in (built, NOT_ASKED) or (not_as_text and name not in _TEXT_WHERE_IT_IS)


_TEXT_WHERE_IT_IS = ("python", "naming nothing")
