"""The call that a thread serves, so that the calls made meanwhile know how long it may take."""

import time
from contextvars import ContextVar
from typing import Protocol

from qam._common.deadline import Deadline


class InheritedDeadline(Deadline):
    """The deadline of a served call, for a call that its method makes."""

    __slots__ = ("served_method",)

    def __init__(self, at: float, served_method: str) -> None:
        super().__init__(max(0.0, at - time.monotonic()))
        self.at = at
        #: The method whose caller waits no longer.
        self.served_method = served_method


class ServedCall(Protocol):
    """A call whose method runs."""

    def limit(self, own: Deadline) -> Deadline:
        """Return the deadline of a call that the method makes, and that has one of its *own*."""


#: The call that this thread, or coroutine, serves; None in all others.
served_call: ContextVar[ServedCall | None] = ContextVar("qam served call", default=None)
