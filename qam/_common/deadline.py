"""One point in time that all the waits of a call share."""

import math
import threading
import time

#: Seconds; epoll takes three weeks at most, a socket's timeout somewhat more.
_LONGEST_WAIT = 24 * 3600.0


class Deadline:
    """The moment at which a call's time is up, on the monotonic clock.

    :param timeout: seconds from now; None for never.
    """

    __slots__ = ("at", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.at = math.inf if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds that are left, at least 0.0; None if there is no end."""
        return self.left_at(time.monotonic())

    def left_at(self, now: float) -> float | None:
        """Seconds that are left at the time *now*, at least 0.0; None if there is no end."""
        return None if self.at == math.inf else max(0.0, self.at - now)

    def wait_time(self) -> float | None:
        """What is left, but no longer than everything that can wait takes: a day."""
        remaining = self.remaining()
        return None if remaining is None else min(remaining, _LONGEST_WAIT)

    def lock_time(self) -> float:
        """What is left, as the timeout of a lock: -1 if there is no end."""
        remaining = self.remaining()
        return -1 if remaining is None else min(remaining, threading.TIMEOUT_MAX)

    @property
    def expired(self) -> bool:
        """True once the time is up."""
        return time.monotonic() >= self.at


#: For what may take as long as it takes.
NO_END = Deadline(None)


def sooner(first: float | None, second: float | None) -> float | None:
    """Return the smaller of two numbers of seconds, of which None is without end."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


def backoff(times: int, first: float, longest: float) -> float:
    """Return the seconds to pause before what failed so many *times* is tried again.

    :param times: 0 gives *first*; each further one twice as long, up to *longest*.
    """
    # The power is bounded too: what fails for days would get too large for a float.
    return min(longest, first * 2.0 ** min(times, 64))
