"""The names that a pickle may use: those of this library, and those that the application trusts.

No module is imported because a message names it, and no attribute is looked up along a path:
a name is in a table, or it is refused.
"""

import importlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, TypeVar

from qam._common.static_inspection import Name, own_class


def _names(**names_by_module: str) -> frozenset[Name]:
    return frozenset(
        (module, name) for module, names in names_by_module.items() for name in names.split()
    )


#: The types of the standard library whose values applications send; all are plain data.
VALUE_TYPES = _names(
    array="array _array_reconstructor",
    builtins="Ellipsis NotImplemented bool bytearray bytes complex dict float frozenset "
    "int list range set slice str tuple",
    collections="ChainMap Counter OrderedDict UserDict UserList UserString defaultdict deque",
    datetime="date datetime time timedelta timezone",
    decimal="Decimal",
    fractions="Fraction",
    ipaddress="IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network",
    pathlib="PurePath PurePosixPath PureWindowsPath",
    time="struct_time",
    types="SimpleNamespace",
    uuid="SafeUUID UUID",
) | {("pathlib._local", f"Pure{kind}Path") for kind in ("", "Posix", "Windows")}


class Trusted:
    """The classes and functions that the application trusts.

    :param things: classes, functions and modules, or names of them.  A module stands for the
        classes that it defines itself.
    :param parent: more things that are trusted.
    """

    def __init__(self, things: Iterable[Any] = (), parent: "Trusted | None" = None) -> None:
        # Changed by single assignments only, so readers need no lock.
        self._things: dict[Name, Any] = {}
        self._modules: dict[str, ModuleType] = {}
        self._parent = parent
        if isinstance(things, (str, type)) or not isinstance(things, Iterable):
            raise TypeError(
                f"trusted must be a list of classes, functions, modules or names, not {things!r}"
            )
        for thing in things:
            self.add(thing)

    def add(self, thing: Any) -> None:
        """Trust *thing* from now on: a class, a function, a module, or the name of one."""
        if isinstance(thing, str):
            self._add_name(thing)
        elif isinstance(thing, ModuleType):
            self._modules[thing.__name__] = thing
        elif isinstance(thing, type) or hasattr(thing, "__qualname__"):
            if "<" in thing.__qualname__:
                raise ValueError(
                    f"{thing!r} can't be trusted: it is local to a function or has no name, "
                    "and pickle can't find such a thing by its name"
                )
            self._things[thing.__module__, thing.__qualname__] = thing
        else:
            raise TypeError(f"trust takes classes, functions, modules and names, not {thing!r}")

    def _add_name(self, name: str) -> None:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(
                f"{name!r} is not the name of a module, or of a class or function in one"
            )
        module, inner_names = _imported(name)
        found: Any = module
        for inner_name in inner_names:
            found = getattr(found, inner_name, None)
        if found is None:
            raise ValueError(f"{name!r} is neither a module nor a class or function in one")
        self.add(found)

    def find(self, name: Name) -> Any:
        """Return the class or function that is trusted as *name*; None if there is none."""
        found = self._things.get(name)
        if found is None and name[0] in self._modules:
            found = own_class(self._modules[name[0]], name)
        if found is None and self._parent is not None:
            found = self._parent.find(name)
        return found


def _imported(name: str) -> tuple[ModuleType, list[str]]:
    """Import the module at the beginning of *name*; return it, and the names after it."""
    try:
        return importlib.import_module(name), []
    except ModuleNotFoundError as error:
        outer, _, inner_name = name.rpartition(".")
        # Try the outer name only if this name is no module, not if the module lacks an import.
        if not outer or not f"{name}.".startswith(f"{error.name}."):
            raise
        module, inner_names = _imported(outer)
        return module, [*inner_names, inner_name]


#: The things that every proxy and server of this process trusts.
EVERYWHERE = Trusted()


Thing = TypeVar("Thing")


def trust(*things: Thing) -> Thing:
    """Allow pickled messages to build instances of classes of the application.

    Write ``qam.trust(Point)``, or ``qam.trust('myapp.models')`` for all classes that this
    module defines, or ``@qam.trust`` before a class.  Every proxy and server of this process
    trusts them from then on; the argument ``trusted`` of a proxy or server is for that one
    alone.  Does not block, except to import a module.

    A pickle can build a trusted class with any values, by its ``__new__``, ``__init__``,
    ``__setstate__`` or none of them.  So trust classes of plain data, and no class that does
    something when it is built.

    :param things: classes, functions, modules, or their full names (str).  A named module is
        imported at once.  A module stands for the classes that it defines itself.
    :returns: the first of *things*, so that it can be used as a decorator.
    :raises TypeError: *things* is empty, or one of them is none of the above.
    :raises ValueError: pickle can't find one of them by its name.
    :raises ImportError: a named module does not exist.
    """
    if not things:
        raise TypeError(
            "qam.trust() got nothing to trust; write the decorator as @qam.trust, "
            "without parentheses"
        )
    for thing in things:
        EVERYWHERE.add(thing)
    return things[0]


def imported(module: str, name: str) -> Any:
    """Return the value of *name* in *module*; None if it has none, or is not imported.

    Only a plain module is searched: others, such as lazy modules, may run code at a lookup.
    """
    found = sys.modules.get(module)
    return vars(found).get(name) if type(found) is ModuleType else None
