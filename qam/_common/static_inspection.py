"""Inspects modules and classes without running code: no metaclass, property or lazy module."""

import struct
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_FIELDS: Any = vars(type)
_POINTER = struct.calcsize("P")


def is_class(thing: Any) -> bool:
    """Return True if *thing* is a class; isinstance would run a proxy object's ``__class__``."""
    return issubclass(type(thing), type)


def namespace_of(thing: Any) -> Mapping[str, Any] | None:
    """Return the namespace of a module or class, without its bases'; None for anything else."""
    if type(thing) is ModuleType:
        return vars(thing)
    return _FIELDS["__dict__"].__get__(thing) if is_class(thing) else None


def mro_of(cls: type) -> tuple[type, ...]:
    """Return the method resolution order of *cls*, which begins with *cls* itself."""
    found: tuple[type, ...] = _FIELDS["__mro__"].__get__(cls)
    return found


def name_of(cls: type) -> tuple[str, str]:
    """Return the module and the qualified name of *cls*; an empty module if it is no text."""
    module, name = (_FIELDS[field].__get__(cls) for field in ("__module__", "__qualname__"))
    return module if type(module) is str else "", name


def base_of(cls: type) -> type:
    """Return the base whose memory layout *cls* extends."""
    found: type = _FIELDS["__base__"].__get__(cls)
    return found


def layout_of(cls: type) -> tuple[int, int, int]:
    """Return the memory layout of an instance, without the pointer to its weak references."""
    size, of_items, of_dict, weakrefs_at = (
        _FIELDS[field].__get__(cls)
        for field in ("__basicsize__", "__itemsize__", "__dictoffset__", "__weakrefoffset__")
    )
    # Later versions of Python keep that pointer before the instance, at a negative offset.
    return size - (_POINTER if weakrefs_at > 0 else 0), of_items, of_dict


Name = tuple[str, str]  # module, qualified name


def own_class(module: ModuleType, name: Name) -> type | None:
    """Return the class that *module* itself defines under *name*; None if there is none.

    Only real modules and classes are searched: a proxy object would run its own code.
    """
    found: Any = module if type(module) is ModuleType else None
    for part in name[1].split("."):
        found = (namespace_of(found) or {}).get(part)
    return found if is_class(found) and name_of(found) == name else None
