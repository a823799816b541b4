"""Finds the methods that a registered instance offers, without running code of the instance."""

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

# A call of these returns an object that can't be sent, and that would do nothing at the caller.
_GENERATORS: dict[str, Callable[[object], bool]] = {
    "a generator function": inspect.isgeneratorfunction,
    "an asynchronous generator function": inspect.isasyncgenfunction,
}
_CACHE: type = type(lru_cache(len))
_METHODS = (
    *(FunctionType, staticmethod, classmethod, partialmethod, singledispatchmethod, _CACHE),
    *(MethodDescriptorType, ClassMethodDescriptorType, WrapperDescriptorType),
)
# The functions that bind a method to its instance.  A class derived from these types may have
# its own, which would run its code.
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
    """Return the public methods of the type of *instance*, bound to it, by their names.

    :raises TypeError: there are none, or one is a generator function.
    """
    methods = {
        name: bound(found, instance, name)
        for name, found in attributes_of(type(instance)).items()
        if is_public(name) and is_method(found)
    }
    if not methods:
        raise TypeError(
            f"instance: {_short_name(type(instance))} has no public methods; "
            "attributes of the instance itself are offered if methods=[...] names them"
        )
    return methods


def named_methods(instance: Any, names: Iterable[str]) -> dict[str, Method]:
    """Return the methods of *instance* with *names*; they may be attributes of the instance itself.

    :raises TypeError: one is a generator function.
    :raises ValueError: one is private, or can't be called.
    """
    return {name: _named(instance, name) for name in names}


def _named(instance: Any, name: str) -> Method:
    in_type = _look_up(type(instance), name)
    found = own_attributes(instance).get(name, in_type)
    if type(found) is MemberDescriptorType:  # its value is in a slot
        found = _in_slot(found, instance)
    is_of_type = found is in_type and is_method(found)
    if not (is_public(name) and (is_of_type or is_called(found))):
        raise ValueError(f"methods: {name!r} is no public method of the instance")
    return bound(found, instance, name) if found is in_type else _checked(found, name)


def is_public(name: object) -> bool:
    """Return True if an attribute with *name* may be offered."""
    return isinstance(name, str) and not name.startswith("_")


# --- lookups that run no code: `getattr` does, and `inspect.getattr_static` may ------------


def own_attributes(instance: Any) -> dict[str, Any]:
    """Return the attributes in the ``__dict__`` of *instance*."""
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


def attributes_of(cls: type) -> dict[str, Any]:
    """Return the attributes of *cls* and its bases by name, as they are stored."""
    attributes: dict[str, Any] = {}
    for each in reversed(mro_of(cls)):
        attributes |= namespace_of(each) or {}
    return attributes


def _look_up(cls: type, name: str) -> Any:
    """Return the attribute *name* of *cls* or a base, as it is stored; None if there is none."""
    for each in mro_of(cls):
        own = namespace_of(each) or {}
        if name in own:
            return own[name]
    return None


def _short_name(cls: type) -> str:
    return name_of(cls)[1].rpartition(".")[2]


# --- telling methods from other attributes --------------------------------------------------


def is_called(found: object) -> bool:
    """Return True if *found* can be called, and is no class."""
    return callable(found) and not any(map(is_class, _innermost(found)))


def is_method(found: object) -> bool:
    """Return True if *found*, an attribute of a class, is a method and no other callable."""
    binding = _binding_of(found)
    return any(binding is each for each in _BINDINGS) and all(
        issubclass(type(each), _ROUTINES) for each in _innermost(found)
    )


def _binding_of(found: object) -> Any:
    return _look_up(type(found), "__get__")


def bound(found: Any, instance: Any, name: str) -> Method:
    """Return *found*, a method of the type of *instance*, bound to it.

    :raises TypeError: what it returns can't be sent.
    """
    _checked(found, name)
    binding = _binding_of(found)
    method = found if binding is None else binding(found, instance, type(instance))
    hides_it = is_coroutine_function(found) and not is_coroutine_function(method)
    return _awaiting(method) if hides_it else method


def _awaiting(method: Method) -> Method:
    """Return *method*, of which some of several are coroutine functions, as one of these."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return call


def _checked(found: Any, name: str) -> Method:
    check_result(found, f"instance: its method {name!r}", "; methods=[...] can leave it out")
    return found  # type: ignore[no-any-return]


def check_result(method: object, what: str, hint: str = "") -> None:
    """Raise TypeError if what *method* returns can't be sent.

    :param what: the name of the method in the error's text.
    :param hint: the end of the error's text: what to do instead.
    """
    for kind, is_kind in _GENERATORS.items():
        if any(map(is_kind, _called(method))):
            raise TypeError(f"{what} is {kind}; return a list{hint}")
    if is_coroutine_function(method) and _is_cached(method):
        raise TypeError(f"{what} is a cache of a coroutine, which can be awaited only once{hint}")


def check_called_plainly(method: object, what: str) -> None:
    """Raise TypeError if a call of *method* returns a generator or a coroutine."""
    check_result(method, what)
    if is_coroutine_function(method):
        raise TypeError(f"{what} is a coroutine function; a plain function is needed")


def is_coroutine_function(method: object) -> bool:
    """Return True if what *method* returns has to be awaited."""
    return any(map(inspect.iscoroutinefunction, _called(method)))


def _called(method: object) -> Iterator[Any]:
    """Yield the functions that a call of *method* runs, also if it is an object with a call."""
    for each in _innermost(method):
        yield each
        yield from _innermost(_look_up(type(each), "__call__"))


def _is_cached(found: object) -> bool:
    return any(isinstance(each, _CACHE) for each in layers_of(found))


def layers_of(found: Any) -> Iterator[Any]:
    """Yield *found*, what it wraps, and what that wraps."""
    yield found
    for each in _inside(found) or ():
        yield from layers_of(each)


def _innermost(found: Any) -> Iterator[Any]:
    """Yield the functions that a call of *found* runs: nearly always one."""
    inside = _inside(found)
    if inside is None:
        yield found
    else:
        for each in inside:
            yield from _innermost(each)


def _inside(found: Any) -> Iterable[Any] | None:
    """Return the functions that *found* wraps; None if it wraps none."""
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
