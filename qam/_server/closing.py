"""How a server closes, step by step.  No I/O and no clock here."""

from collections.abc import Callable
from enum import Enum
from math import inf

#: Seconds that giving requests back may take when closing has no time left.
_GIVE_BACK_TIME = 2.0
#: Seconds of the longest single wait: epoll takes three weeks at most.
_LONGEST_WAIT = 24 * 3600.0


class CloseStep(Enum):
    """The next step of closing."""

    STOP_CONSUMING = "stop consuming"  # cancel the consumer of the request queue
    WAIT = "wait"  # for the answers to the requests at hand
    GIVE_BACK = "give back"  # publish anew the requests not started; end if there are none
    LEAVE = "leave"  # say goodbye to the siblings, and end: no request is at hand
    END = "end"  # even if requests are at hand


class Closing:
    """Knows until when requests at hand are answered, and until when the rest is given back.

    :param clock: seconds on a clock that only goes forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answer_until: float | None = None
        self._give_back_until: float | None = None

    @property
    def begun(self) -> bool:
        """True once the server closes."""
        return self._answer_until is not None

    def begin(self, answer_until: float) -> None:
        """Begin to close, unless that has begun.

        :param answer_until: the time, on the clock, until which the requests at hand are
            answered; infinite for no limit.
        """
        if self._answer_until is None:
            self._answer_until = answer_until

    def next_due(self) -> float | None:
        """Return the seconds until the next step, if nothing happens; None for never."""
        until = self._answer_until if self._give_back_until is None else self._give_back_until
        if until is None or until == inf:
            return None
        return min(max(0.0, until - self._clock()), _LONGEST_WAIT)

    def next_step(self, consuming: bool, idle: bool) -> CloseStep:
        """Return the step to be done now.

        :param consuming: True while requests may still come.
        :param idle: True if no request is at hand.
        """
        if consuming:
            return CloseStep.STOP_CONSUMING
        if idle:
            return CloseStep.LEAVE
        now = self._clock()
        if self._give_back_until is not None:
            return CloseStep.END if now >= self._give_back_until else CloseStep.WAIT
        if self._answer_until is None or now < self._answer_until:
            return CloseStep.WAIT
        self._give_back_until = now + _GIVE_BACK_TIME
        return CloseStep.GIVE_BACK
