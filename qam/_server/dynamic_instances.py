"""Instances whose methods are looked up when they are called."""

from collections.abc import Callable
from functools import partial
from typing import Any

from qam._server.offered_methods import Method, check_result
from qam.exceptions import QAMMethodNotFoundException


class NoSuchMethodError(QAMMethodNotFoundException):
    """No method of that name can be reached in an instance, as it is now."""


class DynamicInstance:
    """An instance of which everything can be called that has a public name.

    :param instance: the instance.
    :param waited_for: makes a plain function of a coroutine function.
    """

    def __init__(self, instance: Any, waited_for: Callable[[Method], Method]) -> None:
        self._instance = instance
        self._waited_for = waited_for

    def method(self, path: str) -> Method | None:
        """Return what looks up and calls the method at *path*; None if a name is not public."""
        parts = path.split(".")
        if any(part.startswith("_") or not part.isidentifier() for part in parts):
            return None
        return partial(self._call, parts)

    def _call(self, parts: list[str], /, *args: Any, **kwargs: Any) -> Any:
        found = self._instance
        for part in parts:
            found = _attribute(found, part)
        if not callable(found):
            raise NoSuchMethodError(f"{'.'.join(parts)!r} is no method of the instance")
        check_result(found, f"{'.'.join(parts)}()")
        return self._waited_for(found)(*args, **kwargs)


def _attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError as error:
        if error.name == name:  # else a property of it has failed
            raise NoSuchMethodError(f"the instance has no {name!r} that can be reached") from None
        raise
