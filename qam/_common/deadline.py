"""A deadline that all the waits of one call share, and helpers for numbers of seconds."""

import math
import threading
import time

#: Seconds.  epoll takes a timeout of three weeks at most, a socket somewhat more.
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
        """Return the seconds left, at least 0.0; None if there is no end."""
        return self.left_at(time.monotonic())

    def left_at(self, now: float) -> float | None:
        """Return the seconds left at the time *now*, at least 0.0; None if there is no end."""
        return None if self.at == math.inf else max(0.0, self.at - now)

    def wait_time(self) -> float | None:
        """Return the seconds left, a day at most: every system call takes such a timeout."""
        remaining = self.remaining()
        return None if remaining is None else min(remaining, _LONGEST_WAIT)

    def lock_time(self) -> float:
        """Return the seconds left as the timeout of a lock: -1 if there is no end."""
        remaining = self.remaining()
        return -1 if remaining is None else min(remaining, threading.TIMEOUT_MAX)

    @property
    def expired(self) -> bool:
        """True once the time is up."""
        return time.monotonic() >= self.at


#: For waits without a timeout.
NO_END = Deadline(None)


def sooner(first: float | None, second: float | None) -> float | None:
    """Return the smaller of two numbers of seconds; None stands for no end."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


def backoff(times: int, first: float, longest: float) -> float:
    """Return how many seconds to pause before the next attempt.

    :param times: how many attempts have failed before the last one: 0 gives *first*, and
        each further failure doubles the pause, up to *longest*.
    """
    # The exponent is bounded too: after days of failures the power would overflow a float.
    return min(longest, first * 2.0 ** min(times, 64))
