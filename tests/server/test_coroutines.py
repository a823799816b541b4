"""The event loop of a server's coroutines, and the threads that wait for it."""

import asyncio
import contextvars
import gc
import inspect
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest

from qam._common.deadline import Deadline
from qam._server.coroutines import Awaited, Coroutines
from qam._server.event_loop_thread import EventLoopThread
from tests.support.waiting import until

LONG = 60.0
place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")


@pytest.fixture
def coroutines() -> Iterator[Coroutines]:
    coroutines = Coroutines()
    yield coroutines
    coroutines.close()
    coroutines.join(Deadline(LONG))
    assert not loops()


def loops() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if isinstance(each, EventLoopThread)]


def run(coroutines: Coroutines, method: Any, *args: Any) -> Any:
    return coroutines.run(method, args, {})


async def where(*args: Any) -> tuple[str, str]:
    await asyncio.sleep(0)
    return threading.current_thread().name, place.get()


def test_all_run_in_one_thread_which_starts_with_the_first(coroutines: Coroutines) -> None:
    assert loops() == []
    names = {run(coroutines, where)[0] for _ in range(3)}
    assert names == {"qam EventLoopThread"}
    assert len(loops()) == 1


def test_they_have_the_context_of_the_thread_that_waits(coroutines: Coroutines) -> None:
    token = place.set("here")
    assert run(coroutines, where)[1] == "here"
    place.reset(token)
    assert run(coroutines, where)[1] == "nowhere"


def test_as_a_function_one_has_its_signature(coroutines: Coroutines) -> None:
    async def add(a: int, b: int = 0) -> int:
        return a + b

    method = Awaited(add, coroutines)
    assert method(1, b=2) == 3
    assert str(inspect.signature(method)) == "(a: int, b: int = 0) -> int"


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_one_raises_comes_with_its_traceback_and_ends_no_other(
    coroutines: Coroutines, error: type[BaseException]
) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise error("own")

    run(coroutines, where)
    before = loops()
    with pytest.raises(error, match="own") as raised:
        run(coroutines, fail)
    assert "in fail" in "".join(traceback.format_exception(raised.value))
    run(coroutines, where)
    assert loops() == before


def test_what_runs_at_the_end_is_cancelled(coroutines: Coroutines) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def hold() -> None:
        try:
            begun.set()
            await asyncio.sleep(LONG)
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(run, coroutines, hold)
        assert begun.wait(LONG)
        coroutines.close()
        with pytest.raises(CancelledError):
            waits.result(LONG)
    assert ended.is_set()
    with pytest.raises(CancelledError):
        run(coroutines, where)


def test_tasks_that_they_leave_behind_end_too(coroutines: Coroutines) -> None:
    ended, tasks = threading.Event(), list[Any]()

    async def leave() -> None:
        async def go_on() -> None:
            try:
                await asyncio.sleep(LONG)
            finally:
                ended.set()

        tasks.append(asyncio.create_task(go_on()))
        await asyncio.sleep(0)

    run(coroutines, leave)
    coroutines.close()
    coroutines.join(Deadline(LONG))
    assert ended.is_set()


def test_a_worker_does_not_wait_for_one_that_a_task_has_kept_from_its_end(
    coroutines: Coroutines,
) -> None:
    begun, tasks = threading.Event(), list[Any]()

    async def end_all() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            raise SystemExit

    async def hold() -> None:
        tasks.append(asyncio.create_task(end_all()))
        await asyncio.sleep(0)
        begun.set()
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:  # and not where it is garbage, with its loop
            await asyncio.sleep(LONG)

    # given
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(run, coroutines, hold)
        assert begun.wait(LONG)
        # when a task raises SystemExit because it is cancelled, and the loop ends at once
        coroutines.close()
        # then
        with pytest.raises(CancelledError, match="the event loop has ended"):
            waits.result(LONG)
    # asyncio logs what it had to leave, here and not in another test
    until(lambda: not loops())
    tasks.clear()
    gc.collect()


def test_an_event_loop_that_the_application_has_stopped_is_replaced(coroutines: Coroutines) -> None:
    begun = threading.Event()

    async def end_it() -> None:
        asyncio.get_running_loop().stop()
        begun.set()
        await asyncio.sleep(LONG)

    # given one that takes others down with it
    with pytest.raises(CancelledError):
        run(coroutines, end_it)
    assert begun.is_set()
    until(lambda: not loops())
    # then the next one runs on another
    assert run(coroutines, where)[0] == "qam EventLoopThread"


def test_a_coroutine_that_cant_be_cancelled_is_not_waited_for_long() -> None:
    coroutines, begun, go_on = Coroutines(), threading.Event(), threading.Event()

    async def stubborn() -> None:
        begun.set()
        go_on.wait(LONG)  # without an await

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(run, coroutines, stubborn)
        assert begun.wait(LONG)
        coroutines.close()
        coroutines.join(Deadline(0.01))
        assert len(loops()) == 1
        go_on.set()
        waits.result(LONG)
    until(lambda: not loops())


def test_where_no_thread_can_start_nothing_is_left_open(
    coroutines: Coroutines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            run(coroutines, where)
    coroutines.join(Deadline(LONG))
    assert run(coroutines, where)
