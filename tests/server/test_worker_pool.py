"""When a server starts another worker, and how its workers end."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from qam._broker.messages import Delivery
from qam._common.job_queue import JobQueue
from qam._serialization.serializers import get_serializer
from qam._server.call import Call
from qam._server.execute_method_thread import ExecuteMethodThread
from qam._server.mailboxes import SettledCalls
from qam._server.messages import Messages
from qam._server.method_registry import MethodRegistry
from qam._server.settings import ServerSettings
from qam._server.worker_pool import WorkerPool
from tests.support.interrupts import interrupted_at
from tests.support.waiting import until

SETTINGS = ServerSettings("server", get_serializer("json"), max_workers=2, max_nested=3)


class Pool(WorkerPool):
    """One whose publisher is never used: its requests are none, so that no method runs."""

    def __init__(self) -> None:
        self.calls: JobQueue[Call] = JobQueue()
        publisher: Any = None
        self.settled = SettledCalls()
        messages = Messages("server", SETTINGS.serializer)
        super().__init__(SETTINGS, self.calls, MethodRegistry(), messages, publisher, self.settled)


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()
    pool.join()
    assert not any(worker.is_alive() for worker in pool)
    pool.settled.waker.close()


@pytest.fixture
def started(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExecuteMethodThread]]:
    """The workers that would have been started; they do nothing."""
    threads: list[ExecuteMethodThread] = []
    monkeypatch.setattr(ExecuteMethodThread, "start", lambda thread: threads.append(thread))
    yield threads
    pool._workers.clear()


def call() -> Call:
    return Call(Delivery(b"", 1), 1)


def test_a_worker_is_started_for_each_request_that_finds_none_up_to_so_many(
    pool: Pool, started: list[ExecuteMethodThread]
) -> None:
    for number in (1, 2, 2):
        pool.put([call()])
        assert len(pool) == len(started) == number

    assert len(pool.take_back()) == 3
    assert pool.take_back() == []


def test_with_enough_idle_ones_those_that_are_done_end() -> None:
    # given a pool of any number, of which one may be idle
    calls: JobQueue[Call] = JobQueue()
    settings = replace(SETTINGS, max_workers=100, max_idle_workers=1)
    messages, settled = Messages("server", SETTINGS.serializer), SettledCalls()
    publisher: Any = None
    pool = WorkerPool(settings, calls, MethodRegistry(), messages, publisher, settled)
    first, second = pool._add_worker(), pool._add_worker()

    assert not pool.dismisses(first)
    idle = threading.Thread(target=calls.get)
    idle.start()
    until(lambda: calls.idle_threads)
    assert pool.dismisses(first)
    assert list(pool) == [second]

    calls.close()
    idle.join()
    assert not pool.dismisses(second)
    settled.waker.close()


def test_none_is_started_where_one_is_idle(pool: Pool, started: list[ExecuteMethodThread]) -> None:
    pool.calls._idle = [threading.Lock()]
    pool.calls._idle[0].acquire()

    pool.put([call()])

    assert started == []


def test_it_has_room_while_a_worker_is_free_or_can_be_started(
    pool: Pool, started: list[ExecuteMethodThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool.has_room
    assert pool.waiting_since() is None
    # given as many workers as there may be, which are all at work
    monkeypatch.setattr(ExecuteMethodThread, "is_alive", lambda self: True)
    pool.put([call()])
    pool.put([call()])
    pool.take_back()
    assert not pool.has_room
    # when one more request comes
    pool.put([call()])
    assert pool.waiting_since() is not None
    assert not pool.has_room
    # then there is room again when a worker is idle
    pool.take_back()
    pool.calls._idle = [threading.Lock()]
    pool.calls._idle[0].acquire()
    assert pool.has_room


def test_a_request_waits_where_no_thread_can_be_started(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ExecuteMethodThread, "start", refuse)
    waiting = call()

    pool.put([waiting])

    assert len(pool) == 0
    assert pool.take_back() == [waiting]
    assert "a request has to wait" in caplog.text
    with pytest.raises(RuntimeError):
        pool.start_worker()


def test_workers_end_when_the_calls_are_done(pool: Pool) -> None:
    pool.start_worker()
    pool.start_worker()
    assert all(worker.is_alive() for worker in pool)

    pool.close()
    pool.join()

    assert not any(worker.is_alive() for worker in pool)


class TestAWorkerThatWaitsInACallOfItsOwn:
    @pytest.fixture(autouse=True)
    def at_work(self, started: list[ExecuteMethodThread], monkeypatch: pytest.MonkeyPatch) -> None:
        """All workers are at work from their start."""
        monkeypatch.setattr(ExecuteMethodThread, "is_alive", lambda self: True)

    def test_lets_another_one_run(self, pool: Pool, started: list[ExecuteMethodThread]) -> None:
        for _ in range(3):
            pool.put([call()])
        assert len(started) == 2
        # when
        with pool.one_waits():
            # then what waited is begun at once
            assert (len(started), pool.nested) == (3, 1)
            pool.put([call()])
            assert len(started) == 3
        assert pool.nested == 0

    def test_lets_no_more_run_than_are_allowed(
        self, pool: Pool, started: list[ExecuteMethodThread]
    ) -> None:
        with ExitStack() as waits:
            for _ in range(5):
                waits.enter_context(pool.one_waits())
                pool.put([call()])
            assert (len(started), pool.nested) == (2 + 3, 3)

    def test_lets_requests_come_if_none_is_left_for_them(self, pool: Pool) -> None:
        pool.prefetch = 2
        pool.put([call()])
        pool.take_back()
        with pool.one_waits():
            assert not pool.settled.waker._awake
        pool.put([call()])
        pool.take_back()
        with pool.one_waits():
            assert pool.settled.waker._awake

    def test_lets_requests_come_if_the_broker_delivers_no_more(self, pool: Pool) -> None:
        pool.prefetch = 1
        pool.put([call()])
        pool.take_back()
        with pool.one_waits():
            assert pool.settled.waker._awake

    def test_makes_one_end_when_it_goes_on(
        self, pool: Pool, started: list[ExecuteMethodThread]
    ) -> None:
        for _ in range(3):
            pool.put([call()])
        with pool.one_waits():
            assert not any(map(pool.dismisses, started))
        assert [pool.dismisses(worker) for worker in started] == [True, False, False]
        assert len(pool) == 2


def test_ctrl_c_as_a_worker_starts_leaves_a_pool_that_ends(pool: Pool) -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        struck.append(interrupted_at(len(struck) + 1, pool.start_worker, "/worker_pool.py"))
    # when
    pool.close()
    pool.join()
    # then
    assert not any(worker.is_alive() for worker in pool)
