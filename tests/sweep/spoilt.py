"""Shows that the sweep sees what it looks for: each time with a rule of the library taken out."""

import configparser
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from qam._serialization import remote_errors
from tests.sweep.child import Sweep


@dataclass(frozen=True)
class Spoilt:
    """A rule that is not held to, and what the sweep has to say then."""

    what: str
    owner: Any
    name: str  # of what is replaced in the owner
    value: Any
    cls: type
    found: tuple[str, ...]


def _checks_without(kind: type) -> dict[type, Any]:
    return {cls: check for cls, check in remote_errors._CHECKS.items() if cls is not kind}


def _python_minds_places() -> bool:
    """Whether Python fails to show a SyntaxError with such a place, as it did until some 3.13."""
    try:
        traceback.format_exception(SyntaxError("why", ("file", 1, "no number", "text", 1, 1)))
    except TypeError:
        return True
    return False


def spoilt() -> Iterator[Spoilt]:
    yield Spoilt(
        "an exception is made by its class",
        remote_errors._Recipe,
        "instance",
        lambda recipe, args: recipe.cls(*args),
        configparser.NoOptionError,
        ("code of the class ran",),
    )
    # until some 3.13 a traceback minds the place; since 3.14 it reads the file that is named
    if _python_minds_places() or sys.version_info >= (3, 14):
        yield Spoilt(
            "a place in a program's text may be anywhere",
            remote_errors,
            "_CHECKS",
            _checks_without(SyntaxError),
            SyntaxError,
            ("can't be shown", "too much is shown", "an exception acted"),
        )
    if sys.version_info >= (3, 12):  # before, a traceback does not look for names
        texts = {**remote_errors._TEXTS_IN_C, ImportError: frozenset({"name", "name_from"})}
        yield Spoilt(
            "the names of an ImportError may be set",
            remote_errors,
            "_TEXTS_IN_C",
            texts,
            ImportError,
            ("an exception acted",),
        )


def said_of(sweep: Sweep, each: Spoilt) -> str:
    """What the sweep finds with this rule taken out."""
    with patch.object(each.owner, each.name, each.value):
        try:
            sweep.receive_all_of([each.cls])
        except AssertionError as error:
            return str(error)
    return "nothing"


def main() -> None:
    sweep = Sweep(few=False)
    for each in spoilt():
        said = said_of(sweep, each)
        if not any(found in said for found in each.found):
            raise SystemExit(f"the sweep does not see that {each.what}, but {said}")
        print(f"seen: {each.what}", flush=True)


if __name__ == "__main__":
    main()
