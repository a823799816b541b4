"""What a registered instance offers; to find that out, no code of the instance is run."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial, partialmethod, singledispatchmethod
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    WrapperDescriptorType,
)
from typing import Any

from qam._common.static_inspection import is_class, mro_of, name_of, namespace_of

Method = Callable[..., Any]

# What is returned by a call of these can't be sent, and would do nothing at the other side.
_NOT_CALLED_PLAINLY: dict[str, Callable[[object], bool]] = {
    "a coroutine function": inspect.iscoroutinefunction,
    "a generator function": inspect.isgeneratorfunction,
    "an asynchronous generator function": inspect.isasyncgenfunction,
}
_CACHE: type = type(lru_cache(len))
_METHODS = (
    *(FunctionType, staticmethod, classmethod, partialmethod, singledispatchmethod, _CACHE),
    *(MethodDescriptorType, ClassMethodDescriptorType, WrapperDescriptorType),
)
# How a method is bound to its instance.  A class derived from these may do it otherwise, and
# run its code when it is asked.
_BINDINGS = tuple(vars(kind)["__get__"] for kind in _METHODS)
_ROUTINES = (
    *(FunctionType, BuiltinFunctionType),
    *(MethodDescriptorType, ClassMethodDescriptorType, WrapperDescriptorType),
)


def check_instance(instance: Any, name: str) -> None:
    """Raise TypeError if *instance*, which is to be registered as *name*, is a class."""
    if is_class(instance):
        raise TypeError(
            f"instance: {type.__repr__(instance)} is a class; "
            f"pass an instance: register_class({_short_name(instance)}(), {name!r})"
        )


def public_methods(instance: Any) -> dict[str, Method]:
    """Return the public methods that the type of *instance* has, bound to it, by their names.

    :raises TypeError: there are none, or one can't be called plainly.
    """
    methods = {
        name: _bound(found, instance, name)
        for name, found in _attributes_of(type(instance)).items()
        if _is_public(name) and _is_method(found)
    }
    if not methods:
        raise TypeError(
            f"instance: {_short_name(type(instance))} has no public methods; "
            "what stands in the instance itself is offered where methods=[...] names it"
        )
    return methods


def named_methods(instance: Any, names: Iterable[str]) -> dict[str, Method]:
    """Return what *instance* has under *names*, which may stand in the instance itself.

    :raises TypeError: one can't be called plainly.
    :raises ValueError: one is private, or nothing that is called.
    """
    return {name: _named(instance, name) for name in names}


def _named(instance: Any, name: str) -> Method:
    in_type = _look_up(type(instance), name)
    found = _own_attributes(instance).get(name, in_type)
    if type(found) is MemberDescriptorType:  # it stands in a slot
        found = _in_slot(found, instance)
    is_method = found is in_type and _is_method(found)
    if not (_is_public(name) and (is_method or _is_called(found))):
        raise ValueError(f"methods: {name!r} is no public method of the instance")
    return _bound(found, instance, name) if found is in_type else _checked(found, name)


def _is_public(name: object) -> bool:
    return isinstance(name, str) and not name.startswith("_")


# --- looking without running code: `getattr` would, and `inspect.getattr_static` may -------


def _own_attributes(instance: Any) -> dict[str, Any]:
    """Return what stands in *instance* itself, but for its slots."""
    descriptor = _look_up(type(instance), "__dict__")
    if type(descriptor) not in (GetSetDescriptorType, MemberDescriptorType):
        return {}
    own = descriptor.__get__(instance)
    return own if type(own) is dict else {}


def _in_slot(slot: MemberDescriptorType, instance: Any) -> Any:
    try:
        return slot.__get__(instance)
    except AttributeError:  # empty
        return None


def _attributes_of(cls: type) -> dict[str, Any]:
    """Return what *cls* and its bases have, by name, as it stands there."""
    attributes: dict[str, Any] = {}
    for each in reversed(mro_of(cls)):
        attributes |= namespace_of(each) or {}
    return attributes


def _look_up(cls: type, name: str) -> Any:
    """Return what *cls* or a base has as *name*, as it stands there; None if nothing."""
    return _attributes_of(cls).get(name)


def _short_name(cls: type) -> str:
    return name_of(cls)[1].rpartition(".")[2]


# --- what is a method -----------------------------------------------------------------------


def _is_called(found: object) -> bool:
    return callable(found) and not any(map(is_class, _innermost(found)))


def _is_method(found: object) -> bool:
    """Return True if *found*, which stands in a class, is a method and nothing else."""
    binding = _binding_of(found)
    return any(binding is each for each in _BINDINGS) and all(
        issubclass(type(each), _ROUTINES) for each in _innermost(found)
    )


def _binding_of(found: object) -> Any:
    return _look_up(type(found), "__get__")


def _bound(found: Any, instance: Any, name: str) -> Method:
    _checked(found, name)
    binding = _binding_of(found)
    return found if binding is None else binding(found, instance, type(instance))  # type: ignore[no-any-return]


def _checked(found: Any, name: str) -> Method:
    check_called_plainly(
        found, f"instance: its method {name!r}", "; methods=[...] can leave it out"
    )
    return found  # type: ignore[no-any-return]


def check_called_plainly(method: object, what: str, hint: str = "") -> None:
    """Raise TypeError if a call of *method* returns a coroutine, or a generator.

    :param what: what the error calls it.
    :param hint: what there is to do instead.
    """
    for each in _innermost(method):
        call = _look_up(type(each), "__call__")
        for kind, is_kind in _NOT_CALLED_PLAINLY.items():
            if is_kind(each) or any(map(is_kind, _innermost(call))):
                raise TypeError(f"{what} is {kind}; a plain function is needed{hint}")


def _innermost(found: Any) -> Iterator[Any]:
    """Yield what is called in the end where *found* is: nearly always one function."""
    inside = _inside(found)
    if inside is None:
        yield found
    else:
        for each in inside:
            yield from _innermost(each)


def _inside(found: Any) -> Iterable[Any] | None:
    """Return what *found* wraps; None if it wraps nothing."""
    kind = type(found)
    if issubclass(kind, (staticmethod, classmethod, MethodType)):
        return (found.__func__,)
    if issubclass(kind, (partial, partialmethod)):
        return (found.func,)
    if issubclass(kind, singledispatchmethod):
        return found.dispatcher.registry.values()  # type: ignore[no-any-return]
    if issubclass(kind, _CACHE):
        return (found.__wrapped__,)
    return None
