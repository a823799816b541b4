"""Calls whose outcomes come as futures: `submit`."""

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, as_completed, wait
from typing import Any

import pytest

from qam import (
    QAMClosedException,
    QAMException,
    QAMProxy,
    QAMSerializationException,
    QAMServer,
    QAMServerNotFoundException,
    QAMTimeoutException,
    submit,
    with_options,
)
from tests.support.service import Service, serving
from tests.support.waiting import until

LONG = 60.0
MANY = 10_000
#: Bytes that a future and its call may take, at most.
MOST_BYTES = 2048


@pytest.fixture
def alone(server_id: str) -> Iterator[QAMProxy]:
    """A proxy whose server is known, but does not run."""
    url = f"memory://{server_id}"
    with QAMServer(url, server_id=server_id), QAMProxy(server_id, url) as proxy:
        yield proxy


def held_back(proxy: QAMProxy) -> None:
    """Let no request be written any more."""
    proxy.publisher_thread.hold_requests()


def test_a_future_gets_the_result(proxy: QAMProxy) -> None:
    assert submit(proxy.add, 2, b=3).result(LONG) == 5
    assert submit(proxy.testclass.adder_function, 2, 4).result(LONG) == 6


def test_a_future_gets_the_exception_of_the_method(proxy: QAMProxy) -> None:
    future = submit(proxy.fail, "why")
    assert isinstance(future.exception(LONG), ValueError)
    with pytest.raises(ValueError, match="why"):
        future.result()


def test_many_outstanding_futures_get_their_own_results(proxy: QAMProxy, service: Service) -> None:
    # given all workers busy
    held = [submit(proxy.hold, number) for number in range(32)]
    # when
    futures = [submit(proxy.echo, number) for number in range(MANY)]
    assert threading.active_count() < 200
    service.go_on.set()
    # then
    done = [each.result() for each in as_completed(futures, LONG)]
    assert sorted(done) == list(range(MANY))
    assert [each.result() for each in futures] == list(range(MANY))
    assert [each.result(LONG) for each in held] == list(range(32))


def test_an_outstanding_future_is_small(alone: QAMProxy) -> None:
    submit(alone.add, 1, 2)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        futures = [submit(alone.add, 1, 2) for _ in range(MANY)]
        until(lambda: alone.publisher_thread.queued_calls == 0)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / len(futures)
    finally:
        tracemalloc.stop()
    assert each <= MOST_BYTES


def test_its_functions_run_in_a_thread_for_callbacks(proxy: QAMProxy, service: Service) -> None:
    threads: list[str] = []
    ended = threading.Event()

    def note(future: Future[Any]) -> None:
        threads.append(threading.current_thread().name)
        ended.set()

    future = submit(proxy.hold)
    future.add_done_callback(note)
    service.go_on.set()
    assert ended.wait(LONG)
    assert threads[0].startswith("qam ExecuteCallbackThread")


# --- cancelling ---------------------------------------------------------------


def test_one_that_is_not_written_can_be_cancelled_and_never_runs(
    proxy: QAMProxy, service: Service
) -> None:
    # given
    held_back(proxy)
    future, other = submit(proxy.add, 1, 2), submit(proxy.add, 3, 4)
    assert not future.running()
    # when
    assert future.cancel()
    # then
    assert future.cancelled()
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    assert wait([future]).done == {future}
    assert next(as_completed([future])) is future
    proxy.publisher_thread.replies_can_come()
    assert other.result(LONG) == 7
    assert service.runs == [(3, 4)]
    assert proxy._results.open_calls == 0


def test_one_that_runs_can_not_be_cancelled(proxy: QAMProxy, service: Service) -> None:
    future = submit(proxy.hold, "held")
    assert service.holding.wait(LONG)
    assert future.running()
    assert not future.cancel()
    service.go_on.set()
    assert future.result(LONG) == "held"
    assert not future.running()
    assert not future.cancel()


def test_the_functions_of_a_cancelled_future_are_called_once(alone: QAMProxy) -> None:
    held_back(alone)
    called: list[Future[Any]] = []
    future = submit(alone.add, 1)
    future.add_done_callback(called.append)
    future.cancel()
    future.cancel()
    assert called == [future]


def test_of_many_threads_that_cancel_one_ends_it(alone: QAMProxy) -> None:
    held_back(alone)
    for _ in range(50):
        called: list[Future[Any]] = []
        future = submit(with_options(alone, timeout=LONG).add, 1)
        future.add_done_callback(called.append)
        threads = [threading.Thread(target=future.cancel) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert future.cancelled()
        assert called == [future]
    assert alone._results.open_calls == 0


# --- every call ends ------------------------------------------------------------


def test_the_timeout_is_that_of_the_target(alone: QAMProxy) -> None:
    error = submit(alone.set_timeout(0.01).add, 1).exception(LONG)
    assert isinstance(error, QAMTimeoutException)
    assert "add() timed out after 0.01 s" in str(error)
    assert error.executed == "unknown"


def test_one_that_is_not_written_in_time_does_not_run(alone: QAMProxy) -> None:
    held_back(alone)
    error = submit(alone.set_timeout(0.01).add, 1).exception(LONG)
    assert isinstance(error, QAMTimeoutException)
    assert error.executed == "no"


def test_the_time_of_a_waiter_is_its_own(alone: QAMProxy) -> None:
    future = submit(alone.add, 1)
    with pytest.raises(TimeoutError) as raised:
        future.result(0.01)
    assert not isinstance(raised.value, QAMException)
    assert not future.done()


def test_an_absent_server_is_told(server_id: str) -> None:
    with QAMProxy(server_id, f"memory://{server_id}") as proxy:
        assert isinstance(submit(proxy.add, 1).exception(LONG), QAMServerNotFoundException)


def test_the_end_of_the_proxy_ends_it(alone: QAMProxy) -> None:
    written, queued = submit(alone.add, 1), submit(alone.add, 2)
    until(written.running)
    alone.close()
    for future in (written, queued):
        assert isinstance(future.exception(LONG), QAMClosedException)
    with pytest.raises(QAMClosedException):
        submit(alone.add, 3)


def test_a_full_queue_fails_it_at_once(server_id: str) -> None:
    url = f"memory://{server_id}"
    with QAMServer(url, server_id=server_id), QAMProxy(server_id, url, max_queued=1) as proxy:
        held_back(proxy)
        queued = submit(proxy.add, 1)
        error = submit(proxy.add, 2).exception(LONG)
        assert isinstance(error, QAMException)
        assert error.executed == "no"
        assert "max_queued=1" in str(error)
        assert not queued.done()


# --- mistakes -------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [len, 5, "add", None], ids=["function", "int", "str", "None"])
def test_what_is_no_remote_method_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"as in submit\(proxy\.add, 2, 3\)"):
        submit(wrong, 1)


def test_a_proxy_and_a_callback_are_no_remote_methods(alone: QAMProxy) -> None:
    with pytest.raises(TypeError, match="takes a remote method"):
        submit(alone, "add", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs a proxy whose calls return results"):
        submit(alone.callback(print).add, 1)


def test_arguments_that_can_not_be_encoded_raise_at_once(alone: QAMProxy) -> None:
    with pytest.raises(QAMSerializationException):
        submit(alone.add, threading.Lock())
    assert alone._results.open_calls == 0


def test_a_future_keeps_its_proxy_until_it_has_its_result(server_id: str) -> None:
    url = f"memory://{server_id}"
    with serving(server_id=server_id, hostname=url) as service:
        proxy = QAMProxy(server_id, url)
        future = submit(proxy.hold, 1)
        assert service.holding.wait(LONG)
        del proxy
        gc.collect()
        service.go_on.set()
        assert future.result(LONG) == 1
