"""The library's loggers: received texts are made printable before a handler gets them.

Filters, handlers, record factories and classes of loggers are code of the application.  For the
records of the library's own threads they run in a thread of their own; every other thread logs
for itself.
"""

import logging
from collections.abc import Mapping
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


class _Logger(logging.Logger):
    """What the library logs to: it hands each record to the application's logger of that name.

    That one may be of a class of the application.  So a thread of the library reads its level,
    and calls none of its methods.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger.name)
        self.parent = self._logger = logger

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """Return True if a record of *level* would be handled.

        What ``logging`` remembers counts.  Only a thread of the application has it find that
        out: it takes a lock, which others hold while they configure handlers.
        """
        logger = self._logger
        remembered = logger._cache.get(level)  # type: ignore[attr-defined]
        if remembered is not None:
            return bool(remembered) and not logger.disabled
        if not in_own_thread():
            return logger.isEnabledFor(level)
        if logger.disabled or logger.manager.disable >= level:
            return False
        return level >= self.getEffectiveLevel()

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        options: dict[str, Any] = {"exc_info": exc_info, "extra": extra, "stack_info": stack_info}
        options["stacklevel"] = stacklevel + 1  # this method is not the place that logs
        if not in_own_thread():
            self._logger.log(level, msg, *args, **options)
            return
        try:
            super()._log(level, msg, args, **options)
        except BaseException as error:  # such as an exception of the application has for its text
            log_thread.put(partial(_raise, error))

    def makeRecord(  # noqa: N802
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        """Make a record of a thread of the library, without the application's factory."""
        record = logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
        vars(record).update(extra or {})
        return record

    def handle(self, record: logging.LogRecord) -> None:
        """Leave *record*, of a thread of the library, to the thread for that."""
        _make_printable.filter(record)
        log_thread.put(partial(_handle_later, self._logger, record))


def get_logger(name: str) -> logging.Logger:
    """Return a logger whose records are made printable, and reach the handlers of *name*.

    It has no handlers and no level of its own; those of ``logging.getLogger(name)`` count.
    """
    logger = logging.getLogger(name)
    if _make_printable not in logger.filters:
        logger.filters.insert(0, _make_printable)  # before those of the application
    return _Logger(logger)


def flush(timeout: float = FLUSH_TIMEOUT) -> None:
    """Wait until the records of the library's threads are handled, *timeout* seconds at most."""
    if not in_own_thread():
        log_thread.flush(timeout)


def _handle_later(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Handle *record*, made anew by the application's logger, with its own time and thread."""
    made = logger.makeRecord(
        *(record.name, record.levelno, record.pathname, record.lineno, record.msg),
        *(record.args or (), record.exc_info, record.funcName, None, record.stack_info),
    )
    vars(made).update(vars(record))
    logger.handle(made)


def _raise(error: BaseException) -> None:
    raise error


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
