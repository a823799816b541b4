"""What the library logs of the stations of calls."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qam._common import logs

_LONG = 60.0  # seconds
CLIENT, SERVER = "qam.qam_proxy", "qam.qam_server"


class WatchedCalls(logging.Handler):
    """Keeps the records of stations, by side and by call."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._meanwhile = meanwhile

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "qam_station"):
            self.records.append(record)
            self._meanwhile()

    def in_order(self) -> list[logging.LogRecord]:
        """The records in the order in which the stations were passed.

        Two threads may log in another one, where the times differ by microseconds only.
        """
        return sorted(self.records, key=lambda record: record.qam_at)

    def stations(self, side: str) -> dict[str | None, list[str]]:
        """The names of the stations that calls passed on one side, by correlation id."""
        found: dict[str | None, list[str]] = defaultdict(list)
        for record in self.in_order():
            if record.name == side:
                found[record.qam_correlation_id].append(record.qam_station)
        return found


@contextmanager
def watching(
    meanwhile: Callable[[], object] = lambda: None, level: int = logging.DEBUG
) -> Iterator[WatchedCalls]:
    """Have both loggers log from *level* on; give what they say of stations."""
    handler = WatchedCalls(meanwhile)
    loggers = [logging.getLogger(name) for name in (CLIENT, SERVER)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
    try:
        yield handler
    finally:
        logs.flush(_LONG)
        for logger, before in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(before)
