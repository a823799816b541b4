"""The callbacks whose outcomes are there, on their way to the threads that execute them."""

from qam._common.bell import Bell
from qam._common.job_queue import JobQueue


class ReadyCallbacks:
    """Takes the slots of callbacks that can be executed; idle threads take them out.

    Where there is no idle thread for each, it rings for the one that starts threads.
    """

    def __init__(self) -> None:
        self.slot_ids: JobQueue[int] = JobQueue()
        self.bell = Bell()

    def add(self, slot_ids: list[int]) -> None:
        """The outcomes of the calls in these slots are there; from any thread."""
        if not self.slot_ids.put_all(slot_ids):
            self.bell.ring()
