"""Looks at modules and classes that run nothing: no metaclass, no property, no lazy module."""

import struct
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_FIELDS: Any = vars(type)
_POINTER = struct.calcsize("P")


def is_class(thing: Any) -> bool:
    """Return True if *thing* is a class; isinstance would ask a proxy what it stands for."""
    return issubclass(type(thing), type)


def namespace_of(thing: Any) -> Mapping[str, Any] | None:
    """Return what stands in a module or a class itself; None if *thing* is neither."""
    if type(thing) is ModuleType:
        return vars(thing)
    return _FIELDS["__dict__"].__get__(thing) if is_class(thing) else None


def mro_of(cls: type) -> tuple[type, ...]:
    """Return *cls* and its bases, in the order in which attributes are looked up."""
    found: tuple[type, ...] = _FIELDS["__mro__"].__get__(cls)
    return found


def name_of(cls: type) -> tuple[str, str]:
    """Return the module and the qualified name of *cls*; empty where they are no texts."""
    module, name = (_FIELDS[field].__get__(cls) for field in ("__module__", "__qualname__"))
    return module if type(module) is str else "", name


def base_of(cls: type) -> type:
    """Return the base whose memory layout *cls* extends."""
    found: type = _FIELDS["__base__"].__get__(cls)
    return found


def layout_of(cls: type) -> tuple[int, int, int]:
    """Return how large an instance is, but for the pointer to what refers to it weakly."""
    size, of_items, of_dict, weakrefs_at = (
        _FIELDS[field].__get__(cls)
        for field in ("__basicsize__", "__itemsize__", "__dictoffset__", "__weakrefoffset__")
    )
    # Later versions of Python keep that pointer before the instance, and say so by a number < 0.
    return size - (_POINTER if weakrefs_at > 0 else 0), of_items, of_dict


Name = tuple[str, str]  # module, qualified name


def own_class(module: ModuleType, name: Name) -> type | None:
    """Return the class that *module* itself defines under *name*; None if there is none.

    What is no class is not asked whether it is one: a proxy would ask what it stands for.
    """
    found: Any = module if type(module) is ModuleType else None
    for part in name[1].split("."):
        found = (namespace_of(found) or {}).get(part)
    return found if is_class(found) and name_of(found) == name else None
