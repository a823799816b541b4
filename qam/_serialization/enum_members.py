"""Looks up members of enumerations, and limits how many combinations of flags a message adds."""

import pickle  # for its errors only  # nosec B403
from enum import Enum, EnumType, Flag
from typing import Any

# How many combinations of its flags a class may keep for the life of the process.  It has to
# keep them, since combinations are compared by identity.
_MAX_COMBINATIONS = 4_096


def is_enum(found: Any) -> bool:
    """Return True if *found* is an enumeration."""
    return issubclass(type(found), EnumType)


def is_member(value: Any) -> bool:
    """Return True if *value* is a member of an enumeration; the whole process shares it."""
    return issubclass(type(value), Enum)


def member(cls: Any, args: Any) -> Any:
    """Return the member of *cls* whose value is in *args*.

    :raises pickle.UnpicklingError: it is a new combination of flags, and *cls* has too many.
    """
    if not issubclass(cls, Flag) or len(args) != 1:
        return cls(*args)
    known = cls._value2member_map_
    if type(args[0]) is not int:
        raise pickle.UnpicklingError("a combination of flags is no whole number")
    if args[0] in known:
        return known[args[0]]
    if issubclass(cls, int):
        return _unregistered(cls, args[0])
    if len(known) >= _MAX_COMBINATIONS + len(cls.__members__):
        raise pickle.UnpicklingError("a class of flags has too many combinations")
    return cls(args[0])


def _unregistered(cls: Any, number: int) -> Any:
    """Return the combination *number* without keeping it in *cls*: it is equal by its number."""
    made = cls(number)
    for each in {number, made._value_}:
        if cls._value2member_map_.get(each) is made and made not in cls.__members__.values():
            cls._value2member_map_.pop(each, None)
    return made
