"""Checks of the arguments of proxies and servers; every error names the argument."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard


def check_timeout(timeout: object, name: str = "timeout") -> float:
    """Return *timeout* as float seconds; raise TypeError or ValueError naming *name*."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {timeout!r}")
    if not 0 < timeout <= sys.float_info.max:
        raise ValueError(f"{name} must be a positive, finite number of seconds, not {timeout!r}")
    return float(timeout)


def check_timeout_or_none(timeout: object) -> float | None:
    """Return *timeout* as float seconds, None for no timeout; raise as :func:`check_timeout`."""
    return None if timeout is None else check_timeout(timeout)


def check_wait(seconds: object, name: str) -> float:
    """Return *seconds* as float, 0 for no wait; raise as :func:`check_timeout` naming *name*."""
    is_zero = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds == 0
    return 0.0 if is_zero else check_timeout(seconds, name)


# Seconds.  AMQP has 16 bits for a heartbeat.
_LONGEST_HEARTBEAT = 65535


def check_heartbeat(heartbeat: object) -> None:
    """Raise TypeError or ValueError unless *heartbeat* is a whole number of seconds."""
    if isinstance(heartbeat, bool) or not isinstance(heartbeat, int):
        raise TypeError(f"heartbeat must be a whole number of seconds, not {heartbeat!r}")
    if not 0 < heartbeat <= _LONGEST_HEARTBEAT:
        raise ValueError(f"heartbeat must be 1 to {_LONGEST_HEARTBEAT} seconds, not {heartbeat!r}")


# The largest count that a header may have: it can be incremented and sent again.
_MAX_COUNT = 2**53

# AMQP names have 255 bytes; this library adds up to 60 to the name that the user chose.
_MAX_SHORT_TEXT, _MAX_NAME = 255, 190


def check_entity_name(value: object, name: str) -> None:
    """Raise TypeError or ValueError unless *value* can be part of a queue's name."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")
    if value.lower().startswith(("amqp://", "amqps://", "memory://")):
        # Without the value, which may have a password in it.
        raise ValueError(f"{name} is a URL; pass it as hostname=")
    if not is_short_text(value) or not 0 < len(value.encode("utf-8")) <= _MAX_NAME:
        raise ValueError(f"{name} must have 1 to {_MAX_NAME} bytes, not {value!r}")


def check_count(value: object, name: str, most: int | None = None, least: int = 1) -> int:
    """Return *value*; raise TypeError or ValueError naming *name* unless in *least* to *most*."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, not {value!r}")
    return value


def check_flag(value: object, name: str) -> bool:
    """Return *value*; raise TypeError naming *name* unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def check_queue_arguments(value: object) -> dict[str, Any]:
    """Return *value* as a dict, empty for None; raise TypeError unless its keys are texts."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"queue_arguments must be a dict with names as keys, not {value!r}")
    return dict(value)


def is_short_text(value: object) -> bool:
    """Return True if *value* fits into a short string of AMQP, such as a routing key."""
    if not isinstance(value, str):
        return False
    if value.isascii():
        return len(value) <= _MAX_SHORT_TEXT
    try:
        return len(value.encode("utf-8")) <= _MAX_SHORT_TEXT
    except UnicodeEncodeError:  # lone surrogates
        return False


def is_count(value: object) -> TypeGuard[int]:
    """Return True if *value*, from a received header, is a count that a peer may send."""
    return type(value) is int and 0 <= value <= _MAX_COUNT


def check_exceptions(types: object, name: str) -> tuple[type[BaseException], ...]:
    """Return *types* as a tuple; raise TypeError naming *name* unless all are exception classes."""
    found = tuple(types) if isinstance(types, Iterable) else (types,)
    for each in found:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise TypeError(f"{name} must be classes of exceptions, as (KeyError,), not {each!r}")
    return found
