"""The library's loggers: received texts are made printable before a handler gets them.

Filters, handlers and record factories are code of the application.  For the records of the
library's own threads they run in a thread of their own; every other thread logs for itself.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from qam._common.error_texts import text_of, traceback_of
from qam._common.log_thread import log_thread
from qam._common.own_threads import in_own_thread
from qam._common.printable import printable

_INDENT = "    "
# An attribute of records that were made printable already.
_IS_PRINTABLE = "qam_is_printable"
#: Seconds that closing waits for the records that were logged before.
FLUSH_TIMEOUT = 1.0


class _MakePrintable(logging.Filter):
    """Makes the texts, errors and tracebacks of a record printable before any handler sees it.

    The record keeps the exception itself, for handlers that need more than its text.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if _IS_PRINTABLE in vars(record):
            return True
        vars(record)[_IS_PRINTABLE] = True
        if isinstance(record.args, tuple):
            record.args = tuple(map(_clean, record.args))
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = printable_traceback(record.exc_info[1])
        return True


_make_printable = _MakePrintable()


def get_logger(name: str) -> logging.Logger:
    """Return the logger *name*; its records are made printable, and no handler is added."""
    logger: Any = logging.getLogger(name)
    if _make_printable not in logger.filters:
        logger.filters.insert(0, _make_printable)  # before those of the application
        make_record, handle = logger.makeRecord, logger.handle
        logger.makeRecord = partial(_make_record, make_record)
        logger.handle = partial(_handle, make_record, handle)
    return logger  # type: ignore[no-any-return]


def flush(timeout: float = FLUSH_TIMEOUT) -> None:
    """Wait until the records of the library's threads are handled, *timeout* seconds at most."""
    if not in_own_thread():
        log_thread.flush(timeout)


def _make_record(make: Callable[..., logging.LogRecord], *args: Any) -> logging.LogRecord:
    """Make a record; in one of the library's threads without the application's factory."""
    if not in_own_thread():
        return make(*args)
    extra, stack = args[-2:]
    record = logging.LogRecord(*args[:-2], stack)  # type: ignore[call-arg]
    vars(record).update(extra or {})
    return record


def _handle(
    make: Callable[..., logging.LogRecord],
    handle: Callable[[logging.LogRecord], object],
    record: logging.LogRecord,
) -> None:
    """Handle *record*; those of the library's threads in the thread for that."""
    if not in_own_thread():
        handle(record)
        return
    _make_printable.filter(record)
    log_thread.put(partial(_handle_later, make, handle, record))


def _handle_later(
    make: Callable[..., logging.LogRecord],
    handle: Callable[[logging.LogRecord], object],
    record: logging.LogRecord,
) -> None:
    """Handle *record*, made anew by the application's factory, with its own time and thread."""
    made = make(
        *(record.name, record.levelno, record.pathname, record.lineno, record.msg, record.args),
        *(record.exc_info, record.funcName, None, record.stack_info),
    )
    vars(made).update(vars(record))
    handle(made)


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
