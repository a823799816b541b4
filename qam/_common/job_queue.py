"""A queue of jobs for a pool of threads."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from itertools import repeat
from typing import Generic, TypeVar

from qam._common.deadline import Deadline
from qam._common.fork import disown_in_child
from qam._common.own_locks import own_lock

Job = TypeVar("Job")


class JobQueue(Generic[Job]):
    """Hands jobs to idle threads, first come, first served.

    It starts no thread: :meth:`put` returns whether an idle thread will take the job, and
    its caller decides whether to start one.

    Threads are woken one at a time: a woken thread takes its job, and wakes the next thread
    if there are more jobs.  So quick jobs are done by the few threads that are awake anyway,
    and slow jobs get all threads as fast as each can be woken.
    """

    def __init__(self) -> None:
        # Guards all below.  Reentrant, because a finalizer that closes it may run inside.
        self._lock = own_lock()
        self._jobs: deque[tuple[float, Job]] = deque()  # each with its time of arrival
        # A lock for each idle thread, which sleeps in acquiring it.  The thread that became
        # idle last is the last here: it is the quickest to wake.
        self._idle: list[threading.Lock] = []
        # True while a thread that was woken has not looked for its job yet.
        self._woken = False
        self._closed = False
        disown_in_child(self)

    def __len__(self) -> int:
        """Return how many jobs wait for a thread at this moment."""
        return len(self._jobs)

    @property
    def idle_threads(self) -> int:
        """How many threads wait for a job at this moment."""
        return len(self._idle) + self._woken

    def put(self, job: Job) -> bool:
        """Add *job*; return True if there is an idle thread for every waiting job."""
        with self._lock:
            self._jobs.append((time.monotonic(), job))
            self._wake_one()
            return self._has_thread_for_all()

    def put_all(self, jobs: Iterable[Job]) -> bool:
        """Add *jobs*; return True if there is an idle thread for every waiting job.

        If *jobs* is an iterator and Ctrl-C strikes, either all were taken from it, or none.
        """
        with self._lock:
            now = time.monotonic()
            self._jobs.extend(zip(repeat(now), jobs))  # one step: no Python code runs in it
            self._wake_one()
            return self._has_thread_for_all()

    def _wake_one(self) -> None:
        if self._idle and self._jobs and not self._woken:
            self._idle.pop().release()
            self._woken = True  # last: after Ctrl-C in between, nobody counts on that thread

    def _has_thread_for_all(self) -> bool:
        return len(self._jobs) <= len(self._idle) + self._woken

    def get(self, idle_time: float | None = None) -> Job | None:
        """Wait for a job and return it.

        :param idle_time: seconds to wait at most; None for no end.
        :returns: None if no job came in that time, or the queue is closed and empty.
        """
        deadline: Deadline | None = None
        while True:
            with self._lock:
                if self._jobs or self._closed:
                    return self._take()
                wake_lock = threading.Lock()
                wake_lock.acquire()
                self._idle.append(wake_lock)
            deadline = deadline or Deadline(idle_time)
            # Woken by put(), by the thread that was woken before, or by close().
            wake_lock.acquire(timeout=deadline.lock_time())
            with self._lock:
                if wake_lock in self._idle:  # nobody has woken this thread: its time is up
                    self._idle.remove(wake_lock)
                    # put() may just have counted on this thread, so it takes a last look.
                    return self._take()
                self._woken = False

    def _take(self) -> Job | None:
        job = self._jobs.popleft()[1] if self._jobs else None
        if self._idle:
            self._wake_one()
        return job

    def waiting_since(self) -> float | None:
        """Return when the oldest job came that has no idle thread; None if each has one."""
        with self._lock:
            return None if self._has_thread_for_all() else self._jobs[0][0]

    def take_one(self) -> Job | None:
        """Remove and return the oldest job that no thread has taken; None if there is none."""
        with self._lock:
            return self._jobs.popleft()[1] if self._jobs else None

    def put_back(self, job: Job) -> None:
        """Add *job* again, before all others."""
        with self._lock:
            self._jobs.appendleft((time.monotonic(), job))
            self._wake_one()

    def take_all(self) -> list[Job]:
        """Remove and return every job that no thread has taken."""
        with self._lock:
            jobs = [job for _, job in self._jobs]
            self._jobs.clear()
            return jobs

    def close(self) -> None:
        """Let :meth:`get` return None once no jobs are left, so that the threads end."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().release()

    def _in_forked_child(self) -> None:
        """Drop the jobs, replace the lock and close; in a forked child, which has no threads."""
        self._lock = own_lock()
        self._jobs.clear()
        self._idle.clear()
        self._closed = True
