"""Jobs, and the threads that wait for them."""

import threading
import time
from collections import deque
from typing import Generic, TypeVar

from qam._fork import disown_in_child

Job = TypeVar("Job")


class JobQueue(Generic[Job]):
    """Hands jobs to idle threads, first come, first served.

    It starts no thread: whoever puts a job in learns whether an idle thread will
    take it, and decides.
    """

    def __init__(self) -> None:
        # Guards all below; notified once per job, and when the queue is closed.
        # Reentrant, because a finalizer that closes it may run inside.
        self._changed = threading.Condition(threading.RLock())
        self._jobs: deque[tuple[float, Job]] = deque()  # each with its time of arrival
        self._idle = 0
        self._closed = False
        disown_in_child(self)

    def put(self, job: Job) -> bool:
        """Add *job*; return True if an idle thread is there for it."""
        with self._changed:
            self._jobs.append((time.monotonic(), job))
            self._changed.notify()
            return self._idle >= len(self._jobs)

    def get(self, idle_time: float | None = None) -> Job | None:
        """Wait for a job; None if there is none within *idle_time* seconds, or ever again."""
        with self._changed:
            self._idle += 1
            try:
                self._changed.wait_for(lambda: self._jobs or self._closed, idle_time)
            finally:
                self._idle -= 1
            return self._jobs.popleft()[1] if self._jobs else None

    def waiting_since(self) -> float | None:
        """When the oldest job that no idle thread is there for came; None if there is none."""
        with self._changed:
            if len(self._jobs) <= self._idle:
                return None
            return self._jobs[0][0]

    def take_one(self) -> Job | None:
        """Take out the oldest job that no thread has taken; None if there is none."""
        with self._changed:
            return self._jobs.popleft()[1] if self._jobs else None

    def put_back(self, job: Job) -> None:
        """Add *job* again, before all others."""
        with self._changed:
            self._jobs.appendleft((time.monotonic(), job))
            self._changed.notify()

    def take_all(self) -> list[Job]:
        """Take out every job that no thread has taken."""
        with self._changed:
            jobs = [job for _, job in self._jobs]
            self._jobs.clear()
            return jobs

    def close(self) -> None:
        """Let the threads end when the jobs are done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _after_fork(self) -> None:
        """Have no jobs, and a lock that nobody holds; in a forked child."""
        self._changed = threading.Condition(threading.RLock())
        self._jobs.clear()
        self._closed = True
