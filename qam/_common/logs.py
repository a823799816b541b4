"""The library's loggers: what comes from elsewhere reaches a line of a log printable."""

import logging
from typing import Any

from qam._common.error_texts import text_of, traceback_of
from qam._common.printable import printable

_INDENT = "    "


class _MakePrintable(logging.Filter):
    """Cleans texts, errors and tracebacks of a record before any handler sees it.

    The record keeps the exception itself, for handlers that want more than its text.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_clean, record.args))
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = printable_traceback(record.exc_info[1])
        return True


_make_printable = _MakePrintable()


def get_logger(name: str) -> logging.Logger:
    """Return the logger *name*, whose records are made printable; it has no handler of ours."""
    logger = logging.getLogger(name)
    logger.addFilter(_make_printable)
    return logger


def _clean(argument: Any) -> Any:
    if isinstance(argument, BaseException):
        return printable(text_of(argument))
    return printable(argument) if isinstance(argument, str) else argument


def printable_traceback(error: BaseException) -> str:
    """Return the traceback of *error*, indented: none of its lines looks like a record's first."""
    text = traceback_of(error, error.__traceback__)
    return "\n".join(_INDENT + printable(line) for line in text.splitlines())
