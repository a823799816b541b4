"""Logging as an application may have it: a filter that raises, and a handler that blocks.

Both strike the records of the library's threads only.  A thread of the application logs for itself,
and gets what its own filters raise.
"""

import itertools
import logging
import time

_RAISES_EACH, _BLOCKS_EACH = 5, 20  # records
_BLOCKS_FOR = 2.0  # seconds


class RaisingFilter(logging.Filter):
    """Raises for each fifth record; never for an error, which the verdict has to see."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)

    def filter(self, record: logging.LogRecord) -> bool:
        is_spoilt = _is_of_the_library(record) and record.levelno < logging.ERROR
        if is_spoilt and next(self._numbers) % _RAISES_EACH == 0:
            raise RuntimeError("a filter of the application is broken")
        return True


class BlockingHandler(logging.Handler):
    """Blocks for two seconds with each twentieth record."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)

    def emit(self, record: logging.LogRecord) -> None:
        if _is_of_the_library(record) and next(self._numbers) % _BLOCKS_EACH == 0:
            time.sleep(_BLOCKS_FOR)


def _is_of_the_library(record: logging.LogRecord) -> bool:
    return (record.threadName or "").startswith("qam ")


def spoil_logging() -> None:
    """Have the loggers of the library such a filter and such a handler."""
    for name in ("qam.qam_proxy", "qam.qam_server"):
        logging.getLogger(name).addFilter(RaisingFilter())
    logging.getLogger("qam").addHandler(BlockingHandler())
    logging.raiseExceptions = False  # what is printed counts as an error of the library
