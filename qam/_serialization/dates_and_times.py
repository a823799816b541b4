"""Checks dates and times: their types take the fields of a pickled state unchecked."""

import pickle  # for its errors only  # nosec B403
from datetime import date, datetime, time
from typing import Any


def check(made: Any) -> None:
    """Refuse a date or time with a field out of its range: C code that uses it may crash.

    :raises pickle.UnpicklingError: a field is out of its range.
    """
    kind = type(made)
    try:
        if issubclass(kind, datetime):
            datetime(*_date_of(made), *_time_of(made))
        elif issubclass(kind, date):
            date(*_date_of(made))
        elif issubclass(kind, time):
            time(*_time_of(made))
    except ValueError as error:
        raise pickle.UnpicklingError("a date or time is out of range") from error


def _fields(kind: Any, names: str) -> tuple[Any, ...]:
    return tuple(vars(kind)[name] for name in names.split())


_OF_DATE = _fields(date, "year month day")
_OF_TIME = _fields(time, "hour minute second microsecond")
_OF_DATETIME = _fields(datetime, "hour minute second microsecond")


def _date_of(made: Any) -> list[Any]:
    return [field.__get__(made) for field in _OF_DATE]


def _time_of(made: Any) -> list[Any]:
    fields = _OF_DATETIME if issubclass(type(made), datetime) else _OF_TIME
    return [field.__get__(made) for field in fields]
