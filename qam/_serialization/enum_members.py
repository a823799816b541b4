"""Members of enumerations: they are found, and a message adds none that stay."""

import pickle  # for its errors only  # nosec B403
from enum import Enum, EnumType, Flag
from typing import Any

# How many combinations of its flags a class may keep: they are compared by what they are.
_MAX_COMBINATIONS = 4_096


def is_enum(found: Any) -> bool:
    """Return True for a class of members."""
    return issubclass(type(found), EnumType)


def is_member(value: Any) -> bool:
    """Return True for a member, which is one for the whole process."""
    return issubclass(type(value), Enum)


def member(cls: Any, args: Any) -> Any:
    """Return the member of *cls* that *args* say.

    :raises pickle.UnpicklingError: it is a combination of flags that would be one too many.
    """
    if not issubclass(cls, Flag) or len(args) != 1:
        return cls(*args)
    known = cls._value2member_map_
    if type(args[0]) is not int:
        raise pickle.UnpicklingError("a combination of flags is no whole number")
    if args[0] in known:
        return known[args[0]]
    if issubclass(cls, int):
        return _unkept(cls, args[0])
    if len(known) >= _MAX_COMBINATIONS + len(cls.__members__):
        raise pickle.UnpicklingError("a class of flags has too many combinations")
    return cls(args[0])


def _unkept(cls: Any, number: int) -> Any:
    """Return the combination *number*, which is equal to any other of that number."""
    made = cls(number)
    for each in {number, made._value_}:
        if cls._value2member_map_.get(each) is made and made not in cls.__members__.values():
            cls._value2member_map_.pop(each, None)
    return made
