"""Logs the way of each call at the level DEBUG: one line for each station that it passes."""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from qam._common.printable import printable

#: For how many calls the last station is remembered.
_MAX_CALLS = 10_000


@dataclass(slots=True, frozen=True)
class Station:
    """One call has passed one station."""

    name: str
    correlation_id: str | None
    #: Empty if it is not known.
    method_name: str
    #: When the call passed it, in seconds on the monotonic clock.
    at: float
    #: Seconds since the station before; None if that is not known.
    after: float | None

    def __str__(self) -> str:
        call = f"call {self.correlation_id}" if self.correlation_id else "a call without an id"
        method = f" of {self.method_name}()" if self.method_name else ""
        seconds = "" if self.after is None else f" +{self.after:.4f} s"
        return f"{call}{method}: {self.name}{seconds}"


class Stations:
    """The stations that the calls of one proxy or one server pass.

    A thread notes a station when the call passes it, perhaps while the thread holds a lock.
    The station is logged later: by the same thread once it holds no lock, or by another
    thread before that.  Callers of :meth:`note` check ``log.isEnabledFor(logging.DEBUG)``
    first, so that nothing is remembered otherwise.

    No lock is needed here: each use of a container is one atomic step.

    :param log: the logger that gets the stations.
    :param clock: returns seconds on a monotonic clock.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        # By correlation id: when the call passed its last station, and its method.  The oldest
        # call is the first.
        self._passed: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._unlogged: deque[Station] = deque()

    @property
    def remembered(self) -> int:
        """For how many calls the last station is remembered."""
        return len(self._passed)

    @property
    def has_unlogged(self) -> bool:
        """True if a station was noted and is not logged yet."""
        return bool(self._unlogged)

    def note(
        self, name: str, correlation_id: str | None, method_name: str = "", last: bool = False
    ) -> None:
        """Note that a call passes the station *name*.

        :param method_name: the method, if it is known here; later stations remember it.
        :param last: the call will pass no other station.
        """
        now = self._clock()
        if correlation_id is None:  # the call can't be recognized at its next station
            self._unlogged.append(Station(name, None, printable(method_name), now, None))
            return
        id = printable(correlation_id)
        before, known_name = self._passed.get(id, (None, ""))
        method = printable(method_name) or known_name
        if last:
            self._passed.pop(id, None)
        else:
            self._remember(id, now, method)
        after = None if before is None else now - before
        self._unlogged.append(Station(name, id, method, now, after))

    def _remember(self, id: str, now: float, method_name: str) -> None:
        self._passed[id] = (now, method_name)
        while len(self._passed) > _MAX_CALLS:
            self._passed.popitem(last=False)

    def log(self) -> None:
        """Log the stations noted so far; not later ones, which other threads may add endlessly."""
        for _ in range(len(self._unlogged)):
            station = self._next()
            if station is None:
                return
            # For filters and formatters.  The prefix keeps other libraries' names apart.
            extra = {
                "qam_station": station.name,
                "qam_correlation_id": station.correlation_id,
                "qam_at": station.at,
            }
            self._log.debug("%s", station, extra=extra)

    def _next(self) -> Station | None:
        try:
            return self._unlogged.popleft()
        except IndexError:  # another thread has logged it
            return None
