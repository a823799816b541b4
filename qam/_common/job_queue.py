"""Jobs, and the threads that wait for them."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from qam._common.deadline import Deadline
from qam._common.fork import disown_in_child

Job = TypeVar("Job")


class JobQueue(Generic[Job]):
    """Hands jobs to idle threads, first come, first served.

    It starts no thread: whoever puts a job in learns whether an idle thread will
    take it, and decides.

    One thread is woken at a time, and that one wakes the next when it takes its job and
    there are more.  So quick jobs are done by the few threads that are awake anyway,
    and slow ones have all threads at work as soon as each can be woken.
    """

    def __init__(self) -> None:
        # Guards all below.  Reentrant, because a finalizer that closes it may run inside.
        self._lock = threading.RLock()
        self._jobs: deque[tuple[float, Job]] = deque()  # each with its time of arrival
        # What each idle thread sleeps on, the latest last: it is the quickest to wake.
        self._idle: list[threading.Lock] = []
        # One that was idle is awake, and did not come to look for its job yet.
        self._woken = False
        self._closed = False
        disown_in_child(self)

    def __len__(self) -> int:
        """How many jobs wait for a thread; a moment's view."""
        return len(self._jobs)

    @property
    def idle_threads(self) -> int:
        """How many threads wait for a job; a moment's view."""
        return len(self._idle) + self._woken

    def put(self, job: Job) -> bool:
        """Add *job*; return True if an idle thread is there for it."""
        with self._lock:
            self._jobs.append((time.monotonic(), job))
            self._wake_one()
            return self._has_thread_for_all()

    def put_all(self, jobs: Iterable[Job]) -> bool:
        """Add *jobs*; return True if idle threads are there for all of them."""
        with self._lock:
            now = time.monotonic()
            self._jobs.extend([(now, job) for job in jobs])
            self._wake_one()
            return self._has_thread_for_all()

    def _wake_one(self) -> None:
        if self._idle and self._jobs and not self._woken:
            self._woken = True
            self._idle.pop().release()

    def _has_thread_for_all(self) -> bool:
        return len(self._jobs) <= len(self._idle) + self._woken

    def get(self, idle_time: float | None = None) -> Job | None:
        """Wait for a job; None if there is none within *idle_time* seconds, or ever again."""
        deadline: Deadline | None = None
        while True:
            with self._lock:
                if self._jobs or self._closed:
                    return self._take()
                bed = threading.Lock()
                bed.acquire()
                self._idle.append(bed)
            deadline = deadline or Deadline(idle_time)
            # Woken by put(), by the thread that was woken before, or by close().
            bed.acquire(timeout=deadline.lock_time())
            with self._lock:
                if bed in self._idle:  # nobody has woken it: its time is up
                    self._idle.remove(bed)
                    # It was counted on for a job that came just now.
                    return self._take()
                self._woken = False

    def _take(self) -> Job | None:
        job = self._jobs.popleft()[1] if self._jobs else None
        if self._idle:
            self._wake_one()
        return job

    def waiting_since(self) -> float | None:
        """When the oldest job that no idle thread is there for came; None if there is none."""
        with self._lock:
            return None if self._has_thread_for_all() else self._jobs[0][0]

    def take_one(self) -> Job | None:
        """Take out the oldest job that no thread has taken; None if there is none."""
        with self._lock:
            return self._jobs.popleft()[1] if self._jobs else None

    def put_back(self, job: Job) -> None:
        """Add *job* again, before all others."""
        with self._lock:
            self._jobs.appendleft((time.monotonic(), job))
            self._wake_one()

    def take_all(self) -> list[Job]:
        """Take out every job that no thread has taken."""
        with self._lock:
            jobs = [job for _, job in self._jobs]
            self._jobs.clear()
            return jobs

    def close(self) -> None:
        """Let the threads end when the jobs are done."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().release()

    def _after_fork(self) -> None:
        """Have no jobs, and a lock that nobody holds; in a forked child."""
        self._lock = threading.RLock()
        self._jobs.clear()
        self._idle.clear()
        self._closed = True
