"""The arguments of a call, as they are written at the terminal.  No I/O here."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from qam._cli.exits import Mistake

# What begins so is meant as JSON.
_BEGINNINGS = ("[", "{", '"')


def arguments_of(words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the keyword arguments that *words* are.

    ``NAME=VALUE`` is a keyword argument.  A value is JSON, or else a text.

    :raises Mistake: a name comes twice, or a word begins like JSON, and is none.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and name.isidentifier()):
            args.append(_value_of(word))
        elif name in kwargs:
            raise Mistake(f"the argument {name}= is given twice; leave one of them out")
        else:
            kwargs[name] = _value_of(value)
    return args, kwargs


def _value_of(word: str) -> Any:
    try:
        return json.loads(word, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        if word.lstrip().startswith(_BEGINNINGS):
            raise Mistake(
                f"{word!r:.100} begins like JSON, and is none: {error}; in a shell, put JSON into "
                "single quotes, and a text that begins so into double quotes within them"
            ) from error
        return word


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
