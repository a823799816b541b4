"""The library's loggers: received texts are made printable before a handler gets them."""

import logging
from typing import Any

from qam._common.error_texts import text_of, traceback_of
from qam._common.printable import printable

_INDENT = "    "


class _MakePrintable(logging.Filter):
    """Makes the texts, errors and tracebacks of a record printable before any handler sees it.

    The record keeps the exception itself, for handlers that need more than its text.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_clean, record.args))
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = printable_traceback(record.exc_info[1])
        return True


_make_printable = _MakePrintable()


def get_logger(name: str) -> logging.Logger:
    """Return the logger *name*, and make its records printable; add no handler."""
    logger = logging.getLogger(name)
    logger.addFilter(_make_printable)
    return logger


def _clean(argument: Any) -> Any:
    if isinstance(argument, BaseException):
        return printable(text_of(argument))
    return printable(argument) if isinstance(argument, str) else argument


def printable_traceback(error: BaseException) -> str:
    """Return the traceback of *error*, indented.

    Without the indent a line of it could be mistaken for the first line of a record.
    """
    text = traceback_of(error, error.__traceback__)
    return "\n".join(_INDENT + printable(line) for line in text.splitlines())
