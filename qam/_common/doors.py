"""What a public module offers has its name, wherever it is made."""

from typing import Any


def offer(door: str, *things: Any) -> None:
    """Have classes and functions say that they come from *door*, as they are documented.

    So they are shown, pickled and looked up by a path that stays.
    """
    for thing in things:
        thing.__module__ = door
