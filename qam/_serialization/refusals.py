"""Tells whose process does not trust which names of a message, and what to do about it."""

import pickle  # for its errors only  # nosec B403
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from qam._common.printable import printable
from qam._common.static_inspection import Name, is_class, namespace_of
from qam._serialization.trust import imported

# How many names of one kind a text lists.
_SHOWN = 50


class NotTrustedError(pickle.UnpicklingError):
    """A message names classes or functions that this process does not have or does not trust."""

    def __init__(self, names: Sequence[Name]) -> None:
        super().__init__(f"{_listed(names)} {'is' if len(names) == 1 else 'are'} not trusted")
        #: The names, in the order in which the message has them.
        self.names = tuple(names)


class Receiver(NamedTuple):
    """Whose process decodes a message: a ``"server"`` or a ``"client"``, and its id."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"the {self.kind} {self.id!r}"


def advice(names: Sequence[Name], receiver: Receiver) -> str:
    """Return a text that says that *receiver* does not trust *names*, and what to do about it."""
    by_hint: dict[str, list[Name]] = {}
    for name in names:
        by_hint.setdefault(_hint(name), []).append(name)
    where = f"the {receiver.kind}'s process"
    hints = [hint.format(names=_listed(each), where=where) for hint, each in by_hint.items()]
    return f"{receiver} does not trust {_listed(names)}: {'; '.join(hints)}"


def _listed(names: Sequence[Name]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(printable(".".join(name)) for name in names[:_SHOWN]) + more


_MAIN = ("__main__", "__mp_main__")

_OF_MAIN = (
    "put {names} into a module of its own, which both processes import, and call qam.trust() for "
    "it in {where}; __main__ is another module in each process"
)
_NO_VALUE = "{names}: not a class of values"
_CLASS = "call qam.trust({names}) in {where}"
_UNKNOWN = (
    "{names}: not imported in {where}; a class can be trusted there, and a function can't be sent"
)


def _hint(name: Name) -> str:
    """Return what to do about *name*, as far as this process knows what it is."""
    if name[0] in _MAIN:
        return _OF_MAIN
    found = _found(name)
    if name[0] == "builtins" or (found is not None and not is_class(found)):
        return _NO_VALUE
    if found is not None:
        return _CLASS
    if name[0].partition(".")[0] in sys.stdlib_module_names:
        return _NO_VALUE
    # A message imports nothing, so how it is written has to tell a class from a function.
    return _CLASS if name[1].rpartition(".")[2].lstrip("_")[:1].isupper() else _UNKNOWN


def _found(name: Name) -> Any:
    """Return what *name* stands for in this process; None if that is not imported."""
    outer, *inner_names = name[1].split(".")
    found = imported(name[0], outer)
    for inner_name in inner_names:
        found = (namespace_of(found) or {}).get(inner_name)
    return found
