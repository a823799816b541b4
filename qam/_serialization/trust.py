"""What a pickle may name: the tables of this library, and what the application adds.

Nothing is imported on behalf of a message, and nothing is reached by walking along
attributes: a name stands in a table, or it is refused.
"""

import importlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from qam._common.printable import printable
from qam._common.static_inspection import Name, own_class


def _names(**names_by_module: str) -> frozenset[Name]:
    return frozenset(
        (module, name) for module, names in names_by_module.items() for name in names.split()
    )


#: The values of the standard library that people send: plain data, all of them.
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
    """Classes and functions that the application has trusted.

    :param things: classes, functions, or names: of a module, for its own classes, or
        of one class or function in it.
    :param parent: what is trusted besides.
    """

    def __init__(self, things: Iterable[Any] = (), parent: "Trusted | None" = None) -> None:
        # Changed by single assignments only, so readers need no lock.
        self._things: dict[Name, Any] = {}
        self._modules: dict[str, ModuleType] = {}
        self._parent = parent
        if isinstance(things, (str, type)):
            raise TypeError(f"trusted must be a list of what is trusted, not {things!r}")
        for thing in things:
            self.add(thing)

    def add(self, thing: Any) -> None:
        """Trust *thing* from now on."""
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
            raise ValueError(f"{name!r} is no name of a module, or of something in one")
        module, inner_names = _imported(name)
        found: Any = module
        for inner_name in inner_names:
            found = getattr(found, inner_name, None)
        if found is None:
            raise ValueError(f"{name!r} is neither a module nor something in one")
        self.add(found)

    def find(self, name: Name) -> Any:
        """Return what is trusted as *name*; None if nothing is."""
        found = self._things.get(name)
        if found is None and name[0] in self._modules:
            found = own_class(self._modules[name[0]], name)
        if found is None and self._parent is not None:
            found = self._parent.find(name)
        return found


def _imported(name: str) -> tuple[ModuleType, list[str]]:
    """Import the module that *name* begins with; return it, and the names that follow."""
    try:
        return importlib.import_module(name), []
    except ModuleNotFoundError as error:
        outer, _, inner_name = name.rpartition(".")
        # Only where it is this very name that is no module, and not one that it imports.
        if not outer or not f"{name}.".startswith(f"{error.name}."):
            raise
        module, inner_names = _imported(outer)
        return module, [*inner_names, inner_name]


#: What is trusted by every proxy and server of this process.
EVERYWHERE = Trusted()


def trust(*things: Any) -> Any:
    """Let messages build instances of classes of the application.

    ``qam.trust(Point)``, ``qam.trust('myapp.models')`` for all classes that this module
    defines, or ``@qam.trust`` before a class.  It holds for every proxy and server of
    this process; their argument ``trusted`` is for one of them alone.  A pickle can
    build a trusted class with any values, by its ``__new__``, ``__init__``,
    ``__setstate__`` or none of them; so trust plain data, and nothing that acts when it
    is built.

    :param things: classes, functions, modules, or names (str) of them.  Modules that are
        named are imported here and now.  A module stands for the classes that it defines.
    :returns: the first of *things*, so that it can be used as a decorator.
    :raises TypeError: one of *things* is none of these.
    :raises ValueError: pickle could not find one by its name.
    :raises ImportError: there is no such module.
    """
    if not things:
        raise TypeError("trust needs something to trust; as a decorator it is written @qam.trust")
    for thing in things:
        EVERYWHERE.add(thing)
    return things[0]


def imported(module: str, name: str) -> Any:
    """Return what stands in *module* as *name*; None if there is nothing, or it is not imported.

    A module of another kind than usual may run code when it is asked, as one that is lazy does.
    """
    found = sys.modules.get(module)
    return vars(found).get(name) if type(found) is ModuleType else None


def refusal(name: Name) -> str:
    """Say that *name* is not trusted, and what to do."""
    full = printable(".".join(name))
    if _is_function_of_python(name):
        return f"{full} is not trusted, and does not stand for a value"
    return f"{full} is not trusted; call qam.trust({full}) in the process that receives it"


def _is_function_of_python(name: Name) -> bool:
    if name[0].partition(".")[0] not in sys.stdlib_module_names:
        return False
    return not issubclass(type(imported(*name)), type) or name[0] == "builtins"
