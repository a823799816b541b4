"""Turns names that are no attributes into remote methods."""

from collections.abc import Callable
from typing import Any, NoReturn

from qam._protocol.hidden_names import OF_NOTEBOOKS

Send = Callable[[str, tuple[Any, ...], dict[str, Any]], Any]


class _Method:
    """A remote method, by its name; calling this object calls the method.

    Its attributes are the methods of the remote instance that has its name.
    """

    __slots__ = ("__name", "__send")

    def __init__(self, send: Send, name: str) -> None:
        self.__send = send
        self.__name = name

    def __getattr__(self, name: str) -> "_Method":
        part = _attribute(name)  # first: an object that is being copied has no __name yet
        return _Method(self.__send, f"{self.__name}.{part}")

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.__send(self.__name, args, kwargs)

    def __repr__(self) -> str:
        return f"<remote method {self.__name}>"


def _public(name: str) -> str:
    # copy, pickle, inspect and notebooks look up such names on every object
    if name.startswith("_"):
        raise AttributeError(f"{name!r} begins with an underscore, so it can't be called remotely")
    return name


def _attribute(name: str) -> str:
    # IPython asks each object for its getdoc(), and would call the server for it.
    if name in OF_NOTEBOOKS:
        raise AttributeError(
            f"{name} is no attribute; a remote method of that name is proxy[{name!r}]"
        )
    return name if name[:1] != "_" else _public(name)


class _RemoteNames:
    """The base of QAMProxy, Callback and SynchronTimeout: every public name is a remote method."""

    def _send(self, method_name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def __getattr__(self, name: str) -> _Method:
        return _Method(self._send, _attribute(name))

    def __getitem__(self, name: str) -> _Method:
        """Return the remote method *name*, even if the object has an attribute of that name."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a remote method must be a str, not {name!r}")
        for part in name.split("."):
            _public(part)
        return _Method(self._send, name)

    # __getitem__ alone would make it look like a sequence
    __iter__ = None
    __contains__ = None

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} can't be copied or pickled: it owns threads and connections"
        )
