"""Sets the state of an instance from a pickle: plain attributes, no special ones."""

import pickle  # for its errors only  # nosec B403
import uuid
from inspect import getattr_static
from types import GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

from qam._serialization.enum_members import is_member
from qam._serialization.known_names import LEAVES, WITHOUT_STATE, zone_info

# Types of the attributes that a type of C keeps outside of a dict.
_FIELDS_OF_C = (MemberDescriptorType, GetSetDescriptorType)


def may_be_shared(instance: Any) -> bool:
    """Return True if the whole process may share *instance*, so that no message may change it."""
    kind = type(instance)
    return is_process_wide(instance) or kind in WITHOUT_STATE or kind is zone_info()


def is_process_wide(instance: Any) -> bool:
    """Return True if *instance* is a module or a member of an enumeration."""
    return is_member(instance) or issubclass(type(instance), ModuleType)


def set_state(instance: Any, state: Any) -> None:
    """Set the state of *instance* as pickle does; only its class may provide ``__setstate__``."""
    setstate = getattr(type(instance), "__setstate__", None)
    if setstate is BaseException.__setstate__:
        _set_exception_state(instance, state)
    elif setstate is not None:
        if type(instance) is uuid.UUID:
            _check_uuid(state)
        setstate(instance, state)
    else:
        in_two = isinstance(state, tuple) and len(state) == 2
        attributes, slots = state if in_two else (state, {})
        if attributes is not None:
            vars(instance).update(_checked_attributes(attributes))
        for name, value in _checked_attributes(slots).items():
            _set_slot(instance, name, value)


def _set_slot(instance: Any, name: str, value: Any) -> None:
    """Set a slot of a Python class, or another attribute, but no field of a C type."""
    found = getattr_static(type(instance), name, None)
    if found is None:
        vars(instance)[name] = value  # setattr would intern the name, perhaps for ever
    elif isinstance(found, _FIELDS_OF_C) and "__slots__" not in vars(found.__objclass__):
        raise pickle.UnpicklingError(f"a message may not set {name!r} of a {type(instance)}")
    else:
        setattr(instance, name, value)


def _check_uuid(state: Any) -> None:
    number = state.get("int") if type(state) is dict else None
    if type(number) is not int or not 0 <= number < 2**128:
        raise pickle.UnpicklingError("a UUID is no number of 128 bits")


def _checked_attributes(attributes: Any) -> dict[str, Any]:
    """Return *attributes*; refuse special names."""
    if type(attributes) is not dict or not all(type(name) is str for name in attributes):
        raise pickle.UnpicklingError("a state is no dict of attributes")
    if any(name.startswith("__") and name.endswith("__") for name in attributes):
        raise pickle.UnpicklingError("a message may not set special attributes")
    return attributes


def _set_exception_state(error: BaseException, state: Any) -> None:
    """Set the attributes of an exception; its fields in C only to plain values."""
    notes = state.pop("__notes__", []) if type(state) is dict else []
    if type(notes) is not list or not all(isinstance(note, str) for note in notes):
        raise pickle.UnpicklingError("the notes of an exception are no texts")
    for name, value in _checked_attributes(state).items():
        if not isinstance(getattr_static(type(error), name, None), _FIELDS_OF_C):
            vars(error)[name] = value
        elif type(value) in LEAVES:
            setattr(error, name, value)
        else:
            raise pickle.UnpicklingError(
                f"a message may not set {name!r} of an exception to such a value"
            )
    for note in notes:
        BaseException.add_note(error, note)
