"""Writes to the terminal: results to stdout, and one line to stderr for what went wrong."""

import json
import os
import sys
from collections.abc import Set
from contextlib import suppress
from datetime import date, time
from decimal import Decimal
from typing import Any, TextIO
from uuid import UUID

from qam._cli.exits import FAILED, Mistake


def write(text: str) -> None:
    """Write a line to stdout at once.

    :raises BrokenPipeError: nobody reads it any more.
    :raises Mistake: it can't be written.
    """
    try:
        print(_encodable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk
        discard_output()
        raise Mistake(f"stdout can't be written: {error.strerror}", FAILED) from error


def discard_output() -> None:
    """Let nothing be written to stdout any more, also not by the interpreter when it ends."""
    with suppress(OSError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


def tell(command: str, text: str) -> None:
    """Write one line to stderr: what is wrong in *command*."""
    line = shown(" ".join(text.split()))
    with suppress(OSError):  # nobody reads it
        print(_encodable(f"{command}: {line}", sys.stderr), file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """Return *text* with control characters escaped, since a terminal would obey them."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _encodable(text: str, stream: TextIO | None) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


# --- results --------------------------------------------------------------------------------


def as_json(value: Any) -> str:
    """Return *value* as JSON in one line; as a text what JSON does not have."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError):  # keys that are tuples; a list that contains itself
        text = json.dumps(repr(value))
    return text if text.isprintable() else json.dumps(json.loads(text))


def _plain(value: Any) -> Any:
    if isinstance(value, Set):
        return list(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, UUID)) else repr(value)
