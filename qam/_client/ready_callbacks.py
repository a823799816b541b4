"""The callbacks that have their outcomes, on their way to the threads that execute them."""

from collections.abc import Iterator

from qam._common.bell import Bell
from qam._common.job_queue import JobQueue


class ReadyCallbacks:
    """A queue of the slots of ready callbacks; idle threads take them out.

    If there is no idle thread for one, the bell wakes the CallbackObserverThread, which
    starts threads.
    """

    def __init__(self) -> None:
        self.slot_ids: JobQueue[int] = JobQueue()
        self.bell = Bell()

    def add(self, slot_ids: Iterator[int]) -> None:
        """Add the slots of callbacks that have their outcomes; may be called by any thread.

        All are taken from *slot_ids*, or none if Ctrl-C strikes.
        """
        if not self.slot_ids.put_all(slot_ids):
            self.bell.ring()
