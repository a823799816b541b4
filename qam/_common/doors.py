"""Public names belong to the public module that offers them, wherever they are defined."""

from typing import Any


def offer(door: str, *things: Any) -> None:
    """Set the ``__module__`` of classes and functions to *door*, their documented module.

    Their reprs, pickles and documentation then name a path that does not change.
    """
    for thing in things:
        thing.__module__ = door
