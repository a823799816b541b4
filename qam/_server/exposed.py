"""Marks functions that servers are to offer, and finds those that are marked.

Finding runs no code of an instance, as in ``offered_methods``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partialmethod, singledispatchmethod
from types import FunctionType, ModuleType
from typing import Any, TypeVar, overload

from qam._common.checks import check_flag
from qam._common.static_inspection import is_class
from qam._server.offered_methods import (
    Method,
    attributes_of,
    bound,
    is_called,
    is_method,
    is_public,
    layers_of,
    own_attributes,
)

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "_qam_exposed"
_ALSO_METHODS = (classmethod, partialmethod, singledispatchmethod)  # which can't be called


@dataclass(frozen=True, slots=True)
class Mark:
    """How a function is to be offered."""

    #: The name by which it is called; None for its own.
    name: str | None = None
    #: It may run again for the same call.
    idempotent: bool = False

    def name_or(self, own: str) -> str:
        """Return the name by which a function is called that has its *own* name."""
        return own if self.name is None else self.name


#: A function or method with the name under which it is to be offered.
Offered = dict[str, tuple[Method, Mark]]


@overload
def expose(name: Function, /) -> Function: ...
@overload
def expose(
    name: str | None = None, *, idempotent: bool = False
) -> Callable[[Function], Function]: ...
def expose(name: Any = None, *, idempotent: bool = False) -> Any:
    """Mark a function or method that servers are to offer; registers nothing.

    ``@expose``, or ``@expose(name='plus', idempotent=True)``.  If methods of a class are marked,
    :meth:`QAMServer.register_class <qam.qam_server.QAMServer.register_class>` offers only those,
    and if functions of a module are marked,
    :meth:`~qam.qam_server.QAMServer.register_module` offers only those.  A subclass that
    overrides a marked method has to mark its own.

    :param name: the name by which it is called; by default its own.
    :param idempotent: True if running it again for the same call does no harm.
    :raises TypeError: what is marked is no function or method, or an argument has a wrong type.
    """
    if name is None or isinstance(name, str):
        mark = Mark(name, check_flag(idempotent, "idempotent"))
        return lambda method: _marked(method, mark)
    return _marked(name, Mark())


def _marked(method: Any, mark: Mark) -> Any:
    is_function = callable(method) or isinstance(method, _ALSO_METHODS)
    if not is_function or is_class(method):
        raise TypeError(f"expose marks functions and methods, not {method!r:.100}")
    try:
        setattr(method, _MARK, mark)
    except AttributeError:
        raise TypeError(f"{method!r:.100} can't be marked; register it by its name") from None
    return method


def mark_of(method: Any) -> Mark | None:
    """Return the mark of *method*, or of what it wraps; None if it has none."""
    for layer in layers_of(method):
        mark = own_attributes(layer).get(_MARK)
        if type(mark) is Mark:
            return mark
    return None


def exposed_methods(instance: Any) -> Offered:
    """Return the marked methods of the type of *instance*, bound to it; empty if none is marked.

    :raises TypeError: what is marked is no method.
    :raises ValueError: two have the same name.
    """
    found: Offered = {}
    for name, attribute in attributes_of(type(instance)).items():
        mark = mark_of(attribute)
        if mark is not None:
            if not is_method(attribute):
                raise TypeError(f"instance: {name!r} is marked by expose, and is no method")
            _add(found, mark.name_or(name), bound(attribute, instance, name), mark)
    return found


def functions_of(module: ModuleType) -> Offered:
    """Return the functions that *module* offers: those that are marked, or else the public ones.

    :raises TypeError: it is no module, or offers nothing.
    :raises ValueError: two have the same name, or ``__all__`` names what is not there.
    """
    if not isinstance(module, ModuleType):
        raise TypeError(f"module must be a module, not {module!r:.100}")
    listed, own = _listed_by(module), _defined_by(module)
    marked: Offered = {}
    for name, function in {**own, **(listed or {})}.items():
        mark = mark_of(function)
        if mark is not None:
            _add(marked, mark.name_or(name), function, mark)
    public = own if listed is None else listed
    offered = marked or {
        name: (function, Mark()) for name, function in public.items() if is_public(name)
    }
    if not offered:
        raise TypeError(f"module: {module.__name__} has no public functions")
    return offered


def _defined_by(module: ModuleType) -> dict[str, Method]:
    """Return the functions that *module* defines itself."""
    return {
        name: found
        for name, found in vars(module).items()
        if any(type(layer) is FunctionType for layer in layers_of(found))
        and getattr(found, "__module__", None) == module.__name__
    }


def _listed_by(module: ModuleType) -> dict[str, Method] | None:
    """Return the functions that ``__all__`` names; None if there is no ``__all__``."""
    names = vars(module).get("__all__")
    if names is None:
        return None
    if missing := [name for name in names if not hasattr(module, name)]:
        raise ValueError(f"module: {module.__name__} has no {missing[0]!r}, which __all__ names")
    found = {name: getattr(module, name) for name in names}
    return {name: each for name, each in found.items() if is_called(each)}


def _add(offered: Offered, name: str, method: Method, mark: Mark) -> None:
    if name in offered and offered[name][0] is not method:
        raise ValueError(f"two functions are marked by expose to be called {name!r}")
    offered[name] = (method, mark)
