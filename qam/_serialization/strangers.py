"""What a decoder puts in place of instances that it does not build."""

from typing import Any


class Nothing:
    """Stands for any class or function that a pickle names, and for its instances and results.

    It can be filled like a list, a set and a dict, and keeps nothing.
    """

    __slots__ = ()

    def append(self, item: Any) -> None:
        """Take an item."""

    def extend(self, items: Any) -> None:
        """Take several items."""

    def add(self, item: Any) -> None:
        """Take a member."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take a key and its value."""


class Stranger(Nothing):
    """Stands for an instance of a class that this process does not have or does not trust."""

    __slots__ = ("args",)

    def __init__(self, *args: Any) -> None:
        #: The arguments of the class; texts in place of values that are not plain.
        self.args = args

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""
