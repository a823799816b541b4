import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from qam._common.job_queue import JobQueue
from tests.support.interrupts import interrupted_at

LONG = 30.0  # seconds; nothing here takes that long unless it is broken


class Takers:
    """Threads that take jobs until the queue is closed."""

    def __init__(self, jobs: "JobQueue[int]", count: int) -> None:
        self.taken: list[int] = []
        self._jobs = jobs
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self.taken.append(job)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(LONG)
            assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


def idle_threads(jobs: "JobQueue[int]", count: int) -> Takers:
    """*count* threads that are all known to wait."""
    takers = Takers(jobs, count)
    wait_until(lambda: len(jobs._idle) == count)
    return takers


def test_jobs_are_taken_in_the_order_in_which_they_came() -> None:
    jobs: JobQueue[int] = JobQueue()
    for job in (1, 2, 3):
        jobs.put(job)

    assert [jobs.get(), jobs.get(), jobs.get()] == [1, 2, 3]


def test_jobs_that_are_put_together_are_taken_in_their_order() -> None:
    jobs: JobQueue[int] = JobQueue()
    jobs.put(1)
    jobs.put_all([2, 3])

    assert jobs.take_all() == [1, 2, 3]


def test_jobs_that_are_put_together_are_all_done_by_the_threads_that_are_idle() -> None:
    # given
    jobs: JobQueue[int] = JobQueue()
    takers = idle_threads(jobs, 2)

    # when
    assert jobs.put_all([1, 2])
    jobs.close()

    # then
    takers.join()
    assert sorted(takers.taken) == [1, 2]


def test_of_jobs_that_are_put_together_some_may_have_no_thread() -> None:
    # given: two threads wait, and do not come to run
    jobs: JobQueue[int] = JobQueue()
    jobs._idle = [threading.Lock(), threading.Lock()]
    for wake_lock in jobs._idle:
        wake_lock.acquire()

    # when / then
    assert not jobs.put_all([1, 2, 3])


def test_without_an_idle_thread_nobody_will_take_a_job() -> None:
    jobs: JobQueue[int] = JobQueue()

    assert not jobs.put(1)
    assert not jobs.put(2)


def test_an_idle_thread_takes_one_job_and_not_two() -> None:
    # given: two threads wait, and do not come to run
    jobs: JobQueue[int] = JobQueue()
    jobs._idle = [threading.Lock(), threading.Lock()]
    for wake_lock in jobs._idle:
        wake_lock.acquire()

    # when
    answers = [jobs.put(1), jobs.put(2), jobs.put(3)]

    # then
    assert answers == [True, True, False]
    assert jobs.waiting_since() is not None


def test_a_job_that_an_idle_thread_will_take_waits_for_nobody() -> None:
    jobs: JobQueue[int] = JobQueue()
    wake_lock = threading.Lock()
    wake_lock.acquire()
    jobs._idle = [wake_lock]

    jobs.put(1)

    assert jobs.waiting_since() is None


def test_a_thread_that_waits_gets_the_job_that_comes() -> None:
    # given
    jobs: JobQueue[int] = JobQueue()
    takers = idle_threads(jobs, 1)

    # when
    assert jobs.put(7)
    jobs.close()

    # then
    takers.join()
    assert takers.taken == [7]


def test_waiting_ends_without_a_job_when_the_idle_time_is_up() -> None:
    jobs: JobQueue[int] = JobQueue()

    assert jobs.get(0.001) is None
    assert not jobs.put(1), "who gave up is not idle"


def test_a_job_that_is_there_is_taken_whatever_the_idle_time() -> None:
    jobs: JobQueue[int] = JobQueue()
    jobs.put(1)

    assert jobs.get(0.0) == 1


def test_a_closed_queue_gives_out_what_it_has_and_then_none() -> None:
    jobs: JobQueue[int] = JobQueue()
    jobs.put(1)

    jobs.close()
    jobs.close()

    assert jobs.get() == 1
    assert jobs.get() is None
    assert jobs.get() is None


def test_closing_wakes_every_idle_thread() -> None:
    jobs: JobQueue[int] = JobQueue()
    takers = idle_threads(jobs, 5)

    jobs.close()

    takers.join()
    assert takers.taken == []


def test_it_knows_since_when_a_job_waits_for_a_thread() -> None:
    # given
    jobs: JobQueue[int] = JobQueue()
    assert jobs.waiting_since() is None

    # when
    before = time.monotonic()
    jobs.put(1)
    after = time.monotonic()
    jobs.put(2)

    # then
    since = jobs.waiting_since()
    assert since is not None
    assert before <= since <= after

    # when
    jobs.get()

    # then
    later = jobs.waiting_since()
    assert later is not None
    assert later >= after

    # when
    jobs.get()

    # then
    assert jobs.waiting_since() is None


def test_one_job_or_all_can_be_taken_out_without_waiting() -> None:
    jobs: JobQueue[int] = JobQueue()
    assert jobs.take_one() is None
    assert jobs.take_all() == []
    for job in (1, 2, 3):
        jobs.put(job)

    assert jobs.take_one() == 1
    assert jobs.take_all() == [2, 3]
    assert jobs.take_one() is None
    assert jobs.waiting_since() is None


def test_a_job_that_is_put_back_is_the_next_one() -> None:
    jobs: JobQueue[int] = JobQueue()
    jobs.put(1)
    jobs.put(2)

    jobs.put_back(jobs.take_one() or 0)

    assert jobs.take_all() == [1, 2]


def test_a_job_that_is_put_back_wakes_an_idle_thread() -> None:
    jobs: JobQueue[int] = JobQueue()
    takers = idle_threads(jobs, 1)

    jobs.put_back(1)
    jobs.close()

    takers.join()
    assert takers.taken == [1]


def test_among_many_threads_each_job_is_taken_exactly_once() -> None:
    # given
    jobs: JobQueue[int] = JobQueue()
    takers = Takers(jobs, 8)
    together = threading.Barrier(4)

    def put(first: int) -> None:
        together.wait(LONG)
        for job in range(first, first + 1000):
            jobs.put(job)

    givers = [threading.Thread(target=put, args=(first,)) for first in range(0, 4000, 1000)]
    for giver in givers:
        giver.start()

    # when
    for giver in givers:
        giver.join(LONG)
    jobs.close()

    # then
    takers.join()
    assert sorted(takers.taken) == list(range(4000))


def test_of_the_idle_threads_one_is_woken_at_a_time_and_wakes_the_next() -> None:
    # given: threads that wait, of which none comes to run
    jobs: JobQueue[int] = JobQueue()
    wake_locks = [threading.Lock() for _ in range(3)]
    for wake_lock in wake_locks:
        wake_lock.acquire()
    jobs._idle = list(wake_locks)

    # when
    for job in (1, 2, 3):
        jobs.put(job)

    # then the one that fell asleep last is awake, and no other
    assert [wake_lock.locked() for wake_lock in wake_locks] == [True, True, False]

    # when it comes to look for its job
    jobs._woken = False
    assert jobs.get() == 1

    # then there is more to do
    assert [wake_lock.locked() for wake_lock in wake_locks] == [True, False, False]


def test_slow_jobs_have_all_threads_at_work() -> None:
    # given
    jobs: JobQueue[threading.Event] = JobQueue()
    at_work = threading.Semaphore(0)
    end = threading.Event()

    def work() -> None:
        while jobs.get() is not None:
            at_work.release()
            assert end.wait(LONG)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(jobs._idle) == len(threads))

    # when
    for _ in threads:
        assert jobs.put(end)

    # then
    for _ in threads:
        assert at_work.acquire(timeout=LONG)
    end.set()
    jobs.close()
    for thread in threads:
        thread.join(LONG)


def test_a_woken_thread_whose_job_is_gone_waits_on() -> None:
    # given
    jobs: JobQueue[int] = JobQueue()
    takers = idle_threads(jobs, 1)

    # when
    with jobs._lock:  # so that it does not come to look in between
        jobs.put(1)
        assert jobs.take_one() == 1
    wait_until(lambda: len(jobs._idle) == 1)

    # then
    assert jobs.put(2)
    jobs.close()
    takers.join()
    assert takers.taken == [2]


def test_a_thread_whose_time_is_up_takes_the_job_that_it_was_counted_on_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a thread whose time is up just as two jobs come, of which another one gets one
    queue: JobQueue[str] = JobQueue()
    counted: list[bool] = []

    class Bed:
        def acquire(self, timeout: float = -1) -> bool:
            if timeout >= 0:
                queue._idle.append(threading.Lock())  # another thread that is idle, and is woken
                queue._idle[-1].acquire()
                counted.append(queue.put_all(["a", "b"]))
                return False
            return True

        def release(self) -> None:
            """Nobody waits."""

    monkeypatch.setattr(threading, "Lock", Bed)
    taken = queue.get(idle_time=0.01)
    # then none lies there that both were counted on for
    assert counted == [True]
    assert taken == "a"


def test_in_a_forked_child_it_has_no_jobs_and_a_lock_that_nobody_holds() -> None:
    # given
    jobs: JobQueue[int] = JobQueue()
    jobs.put_all([1, 2])
    lock = jobs._lock
    # when
    jobs._in_forked_child()
    # then nobody waits for a job there
    assert jobs._lock is not lock
    assert jobs.get() is None
    assert jobs.take_all() == []


def test_what_no_thread_has_taken_can_be_taken_back() -> None:
    jobs: JobQueue[int] = JobQueue()
    jobs.put_all([1, 2])

    assert jobs.take_all() == [1, 2]
    assert jobs.take_one() is None


def test_ctrl_c_at_any_moment_of_a_put_leaves_an_idle_thread_that_takes_the_next_job() -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        # given
        jobs: JobQueue[int] = JobQueue()
        takers = idle_threads(jobs, 1)
        # when
        put = partial(jobs.put_all, [1])
        struck.append(interrupted_at(len(struck) + 1, put, "/job_queue.py"))
        jobs.put(2)
        # then
        wait_until(lambda takers=takers: 2 in takers.taken)
        jobs.close()
        takers.join()
    assert "JobQueue._wake_one" in struck


def test_ctrl_c_at_any_moment_of_a_put_takes_all_from_an_iterator_or_none() -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        jobs: JobQueue[int] = JobQueue()
        two = iter([1, 2])
        put = partial(jobs.put_all, two)
        struck.append(interrupted_at(len(struck) + 1, put, "/job_queue.py"))
        assert (jobs.take_all(), list(two)) in [([1, 2], []), ([], [1, 2])]
