"""The methods that a server offers: those that were registered, and no others."""

import functools
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from qam._common.checks import check_flag
from qam._common.logs import get_logger
from qam._common.printable import printable
from qam._protocol.hidden_names import is_hidden
from qam._protocol.requests import APPLY, MULTICALL, PING, SYSTEM
from qam._server.coroutines import Awaited, Coroutines
from qam._server.dynamic_instances import DynamicInstance
from qam._server.exposed import Mark, exposed_methods, functions_of, mark_of
from qam._server.offered_methods import (
    Method,
    check_instance,
    check_result,
    is_coroutine_function,
    named_methods,
    public_methods,
)
from qam.exceptions import QAMMethodNotFoundException, QAMSerializationException

log = get_logger("qam.qam_server")


class MethodRegistry:
    """The methods of a server, by the names under which they are called."""

    def __init__(self) -> None:
        # Changed in single steps only, so readers need no lock.
        self._methods: dict[str, Method] = {}
        # The names of the methods that may run again after the server that ran them died.
        self._idempotent: set[str] = set()
        # The methods that each instance offers, by its name.
        self._instances: dict[str, dict[str, Method]] = {}
        #: The registered instances themselves, by name.
        self.instances: dict[str, Any] = {}
        # The instances whose methods are looked up at the call, by name.
        self._dynamic: dict[str, DynamicInstance] = {}
        #: Runs the methods that are coroutine functions.
        self.coroutines = Coroutines()
        # The methods of the server itself, which no application can replace.
        self._system: dict[str, Method] = {PING: _pong}

    @property
    def names(self) -> list[str]:
        """The names of all methods, in order."""
        return sorted([*self._methods, *(f"{name}.*" for name in self._dynamic)])

    def items(self) -> list[tuple[str, Method, bool]]:
        """Return name, method, and whether it is idempotent, in the order of the names."""
        found = sorted(self._methods.items(), key=lambda item: item[0])
        return [(name, method, name in self._idempotent) for name, method in found]

    def add_system_methods(self, methods: Mapping[str, Method]) -> None:
        """Offer methods of the server itself, beside the ping that every server answers."""
        self._system.update(methods)

    @property
    def functions(self) -> dict[str, Method]:
        """The registered functions, without the methods of instances, by name."""
        of_instances = {key for methods in self._instances.values() for key in methods}
        return {name: each for name, each in self._methods.items() if name not in of_instances}

    def add_function(
        self, method: Method, name: str | None = None, idempotent: bool = False
    ) -> None:
        """Offer *method* under *name*; by default under its own name."""
        if not callable(method):
            raise TypeError(f"method must be callable, not {method!r}{_as_name(method)}")
        check_result(method, f"method: {method!r}")
        mark = mark_of(method) or Mark()
        name = mark.name if name is None else name
        if name is None:
            name = getattr(method, "__name__", None)
            if name is None:
                raise ValueError(f"name is needed: {method!r} has none of its own; pass name=")
        _check_name(name, method)
        check_flag(idempotent, "idempotent")
        _warn_if_hidden([name])
        self._methods[name] = self._waited_for(method)
        self._set_idempotent(name, idempotent or mark.idempotent)

    def add_module(self, module: ModuleType) -> None:
        """Offer the marked functions of *module*, or else its public ones."""
        functions = functions_of(module)
        for name, (function, _) in functions.items():  # first all checks
            check_result(function, f"module: {name!r}")
            _check_name(name, function)
        for name, (function, mark) in functions.items():
            self.add_function(function, name, mark.idempotent)

    def add_instance(
        self,
        instance: Any,
        name: str,
        only: Iterable[str] | None = None,
        idempotent: Iterable[str] = (),
        dynamic: bool = False,
    ) -> None:
        """Offer the public methods of *instance*, or *only* the named ones, as ``name.method``."""
        if issubclass(type(instance), str) and not issubclass(type(name), str):
            raise TypeError("register_class takes the instance first, and then its name")
        check_instance(instance, name)
        _check_name(name)
        _check_names(only, "methods")
        _check_names(idempotent, "idempotent")
        repeatable = set(idempotent)
        if check_flag(dynamic, "dynamic"):
            self._add_dynamic(instance, name, only, repeatable)
            return
        offered = _offered_by(instance, name, only, repeatable)
        for each in repeatable - offered.keys():
            raise ValueError(f"idempotent: {each!r} is none of the offered methods of the instance")
        methods = {f"{name}.{each}": self._waited_for(it) for each, it in offered.items()}
        _warn_if_hidden(list(methods))
        self._replace(name, methods)
        self._dynamic.pop(name, None)
        self.instances[name] = instance
        for each in offered:
            self._set_idempotent(f"{name}.{each}", each in repeatable)

    def _replace(self, name: str, methods: dict[str, Method]) -> None:
        """Offer *methods* of the instance *name*, and no others that an earlier one had."""
        before, self._instances[name] = self._instances.get(name, {}), methods
        self._methods.update(methods)
        for key in before.keys() - methods.keys():
            if self._methods.get(key) is before[key]:
                del self._methods[key]

    def _add_dynamic(
        self, instance: Any, name: str, only: Iterable[str] | None, repeatable: set[str]
    ) -> None:
        if only is not None:
            raise ValueError("methods: dynamic=True offers everything, so it names nothing")
        for each in repeatable:
            _check_name(f"{name}.{each}")
        self._dynamic[name] = DynamicInstance(instance, self._waited_for)
        self.instances[name] = instance
        self._replace(name, {})
        prefix = f"{name}."
        for each in [each for each in self._idempotent if each.startswith(prefix)]:
            self._idempotent.discard(each)
        self._idempotent.update(prefix + each for each in repeatable)

    def _waited_for(self, method: Method) -> Method:
        """Return *method*, or a plain function that waits for it if it is a coroutine function."""
        return Awaited(method, self.coroutines) if is_coroutine_function(method) else method

    def _set_idempotent(self, name: str, idempotent: bool) -> None:
        (self._idempotent.add if idempotent else self._idempotent.discard)(name)

    def is_idempotent(self, name: str, params: Sequence[Any]) -> bool:
        """Return True if the method that a request for *name* with *params* calls is idempotent."""
        first = params[0] if params else None
        if name == MULTICALL and isinstance(first, (list, tuple)):
            return all(isinstance(each, str) and each in self._idempotent for each in first)
        if name == APPLY and isinstance(first, str):
            name = first
        return name in self._idempotent

    def resolve(self, name: str, params: Sequence[Any]) -> Method:
        """Return the method that a request for *name* calls, with *params* bound to it.

        :raises QAMMethodNotFoundException: no method is registered as *name*.
        :raises QAMSerializationException: keyword arguments have a wrong form.
        """
        if name != APPLY:
            return functools.partial(self._find(name), *params)
        match params:
            case [str(inner_name), list() | tuple() as args, dict(kwargs)] if all(
                map(_is_text, kwargs)
            ):
                return functools.partial(self._find(inner_name), *args, **kwargs)
        raise QAMSerializationException(f"{APPLY} needs a method name, a list and a dict")

    def _reach(self, name: str) -> Method | None:
        """Return what looks up the method *name* in a dynamic instance; None if there is none."""
        for own_name, instance in list(self._dynamic.items()):
            if name.startswith(f"{own_name}."):
                return instance.method(name[len(own_name) + 1 :])
        return None

    def _find(self, name: str) -> Method:
        method = self._methods.get(name)
        if method is None:  # and not if it is false: one of the application may be that
            method = self._system.get(name) or self._reach(name)
        if method is None:
            name, place = printable(name), f"host {socket.gethostname()}, pid {os.getpid()}"
            raise QAMMethodNotFoundException(
                f"no method {name!r} is registered on this server ({place}); another server of "
                "this server_id may know it"
            )
        return method


def _offered_by(
    instance: Any, name: str, only: Iterable[str] | None, repeatable: set[str]
) -> dict[str, Method]:
    """Return the methods of *instance* to offer; add to *repeatable* those that are marked so."""
    if only is not None:
        return named_methods(instance, only)
    exposed = exposed_methods(instance)
    for each, (_, mark) in exposed.items():
        _check_name(f"{name}.{each}")
        if mark.idempotent:
            repeatable.add(each)
    return {each: method for each, (method, _) in exposed.items()} or public_methods(instance)


def _pong() -> None:
    """Answer a ping."""


def _as_name(method: object) -> str:
    return f"; a name is given as name={method!r}" if isinstance(method, str) else ""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _check_name(name: object, method: Method | None = None) -> None:
    """Raise TypeError or ValueError unless *name* can be called; *method* may be its origin."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    hint = "; pass name=" if getattr(method, "__name__", None) == name else ""
    for part in name.split("."):
        if not part.isidentifier():
            raise ValueError(
                f"name must be an identifier, or several with dots, not {name!r}{hint}"
            )
        if part.startswith("_"):
            raise ValueError(
                f"name: {name!r} begins with an underscore, so it can't be called{hint}"
            )
    if name.split(".")[0] == SYSTEM:
        raise ValueError(f"name: {SYSTEM!r} is reserved{hint}")


def _warn_if_hidden(names: Sequence[str]) -> None:
    """Warn of the *names* that callers can't write as attributes of a proxy."""
    hidden = [name for name in names if is_hidden(name)]
    if hidden:
        log.warning(
            "proxies have attributes of their own with such names, so callers have to write %s",
            ", ".join(f"proxy[{name!r}]" for name in hidden),
        )


def _check_names(names: object, argument: str) -> None:
    if isinstance(names, (str, bool)):
        raise TypeError(f"{argument} must be a list of names, not {names!r}")
