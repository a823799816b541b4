"""Turns names that are no attributes into remote methods."""

from typing import Any, NoReturn

from qam._client.call_options import CallOptions
from qam._protocol.hidden_names import OF_NOTEBOOKS


class _Method:
    """A remote method: the object by which it is called, and its name.

    Calling this object calls the method.  Its attributes are the methods of the remote
    instance that has its name.
    """

    __slots__ = ("_name", "_target")

    def __init__(self, target: "_RemoteNames", name: str) -> None:
        self._target = target
        self._name = name

    def __getattr__(self, name: str) -> "_Method":
        part = _attribute(name)  # first: an object that is being copied has no _name yet
        return _Method(self._target, f"{self._name}.{part}")

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        target = self._target
        return target._send(target._options, self._name, args, kwargs)

    def __repr__(self) -> str:
        return f"<remote method {self._name}>"


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

    #: How its calls are made.
    _options = CallOptions()
    #: The proxy that can make its calls in other ways; None if it has functions for the outcomes.
    _caller: Any = None

    def _send(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Make a call by this object, as the *options* say; return what its caller gets."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, _attribute(name))

    def __getitem__(self, name: str) -> _Method:
        """Return the remote method *name*, even if the object has an attribute of that name."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a remote method must be a str, not {name!r}")
        for part in name.split("."):
            _public(part)
        return _Method(self, name)

    # __getitem__ alone would make it look like a sequence
    __iter__ = None
    __contains__ = None

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} can't be copied or pickled: it owns threads and connections"
        )


class _WithOptions(_RemoteNames):
    """Calls the methods of another object, with other options.

    :param target: the object, which is not changed.
    :param options: the options of the calls.
    """

    def __init__(self, target: _RemoteNames, options: CallOptions) -> None:
        self._target = target
        self._options = options
        self._caller = target._caller

    def _send(
        self,
        options: CallOptions,
        method_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        return self._target._send(options, method_name, args, kwargs)

    def __repr__(self) -> str:
        return f"<other options on {self._target!r}>"


def with_other_options(target: object, changes: dict[str, Any]) -> _RemoteNames:
    """Return an object that calls the methods of *target* with changed options.

    :raises TypeError: *target* has no remote methods, or a value has a wrong type.
    :raises ValueError: a value is wrong.
    """
    if not isinstance(target, _RemoteNames):
        raise TypeError(
            f"target must be a proxy, not {target!r:.100}; "
            "as in with_options(proxy, timeout=5).add(2, 3)"
        )
    options = target._options.changed(**changes)
    return _WithOptions(target._target if isinstance(target, _WithOptions) else target, options)


def caller_of(method: object, function: str) -> tuple[Any, CallOptions, str]:
    """Return the proxy that makes the calls of a remote *method*, its options, and its name.

    :param function: the function that got *method*, for the text of the error.
    :raises TypeError: *method* is no remote method of a proxy.
    """
    if type(method) is not _Method:
        raise TypeError(
            f"{function} takes a remote method and then its arguments, as in "
            f"{function}(proxy.add, 2, 3), not {method!r:.100}"
        )
    target = method._target
    return caller_at(target, function), target._options, method._name


def caller_at(target: object, function: str) -> Any:
    """Return the proxy that makes the calls of *target*.

    :param function: the function that got *target*, for the text of the error.
    :raises TypeError: *target* is no proxy, or has functions for the outcomes of its calls.
    """
    caller = target._caller if isinstance(target, _RemoteNames) else None
    if caller is None:
        raise TypeError(f"{function} needs a proxy whose calls return results, not {target!r:.100}")
    return caller
