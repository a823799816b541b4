"""Callbacks: their functions, states, timeouts and threads."""

import logging
import threading
from functools import partial
from typing import Any

import pytest

from qam import QAMClosedException, QAMMethodNotFoundException, QAMProxy, QAMTimeoutException
from qam._client.pending_call import PendingCall
from qam.qam_proxy import Callback, ConsumerThread, ExecuteCallbackThread
from tests.conftest import Broker
from tests.support.interrupts import interrupted_at
from tests.support.service import Service, make_server
from tests.support.waiting import finish, until


def wait_for(proxy: QAMProxy, *uids: str) -> None:
    for uid in uids:
        while proxy.get_callback_state(uid) != 2:
            pass


def test_a_callback_goes_from_waiting_to_processing_to_finished(
    proxy: QAMProxy, service: Service
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def success(result: Any) -> None:
        entered.set()
        leave.wait(20)

    # when
    uid = proxy.callback(success).hold()
    # then
    assert isinstance(uid, str)
    assert proxy.get_callback_state(uid) == 0
    assert proxy.get_num_waiting_callbacks() == 1
    service.go_on.set()
    assert entered.wait(20)
    assert proxy.get_callback_state(uid) == 1
    leave.set()
    wait_for(proxy, uid)
    assert proxy.get_num_waiting_callbacks() == 0


def test_an_unknown_uid_counts_as_finished(proxy: QAMProxy) -> None:
    assert proxy.get_callback_state("never seen") == 2


def test_the_error_function_gets_the_exception(proxy: QAMProxy) -> None:
    results: list[Any] = []
    errors: list[Any] = []
    wait_for(proxy, proxy.callback(results.append, errors.append).fail("why"))
    wait_for(proxy, proxy.callback(results.append, errors.append).missing())
    assert results == []
    assert [type(error) for error in errors] == [ValueError, QAMMethodNotFoundException]


def test_without_an_error_function_a_failure_is_logged(
    proxy: QAMProxy, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "qam.qam_proxy"):
        wait_for(proxy, proxy.callback(print).fail("why"))
    assert "ValueError: why" in caplog.text


def test_a_callback_that_raises_is_logged_and_finished(
    proxy: QAMProxy, caplog: pytest.LogCaptureFixture
) -> None:
    def success(result: Any) -> None:
        raise RuntimeError("in the callback")

    with caplog.at_level(logging.ERROR, "qam.qam_proxy"):
        wait_for(proxy, proxy.callback(success).add(1, 2))
    assert "RuntimeError: in the callback" in caplog.text
    assert proxy.add(1, 2) == 3


def test_a_timeout_goes_to_the_error_function_once(proxy: QAMProxy, service: Service) -> None:
    # given
    outcomes: list[Any] = []
    callback = proxy.callback(outcomes.append, outcomes.append)
    assert callback.set_timeout(0.05) is callback
    uid = callback.hold("late")
    # when
    wait_for(proxy, uid)
    service.go_on.set()
    assert proxy.add(1, 2) == 3
    # then
    [error] = outcomes
    assert isinstance(error, QAMTimeoutException)
    assert "hold() timed out after 0.05 s" in str(error)


def test_timeouts_come_in_their_own_order(proxy: QAMProxy, service: Service) -> None:
    outcomes: list[str] = []
    finished = threading.Barrier(3)
    for name, timeout in (("later", 2.0), ("sooner", 0.05)):

        def error(exception: Exception, name: str = name) -> None:
            outcomes.append(name)
            finished.wait(20)

        proxy.callback(print, error).set_timeout(timeout).hold()
    finished.wait(20)
    assert outcomes == ["sooner", "later"]


def test_a_callback_used_twice_makes_two_calls(proxy: QAMProxy) -> None:
    results: list[int] = []
    callback = proxy.callback(results.append)
    uids = callback.add(1, 2), callback.add(3, 4)
    wait_for(proxy, *uids)
    assert uids[0] != uids[1]
    assert sorted(results) == [3, 7]


def test_a_callback_that_is_not_called_has_no_slot(proxy: QAMProxy) -> None:
    callback = proxy.callback(print)
    assert proxy.consumer_thread.result_list == []
    del callback


def test_a_callback_that_was_given_a_slot_frees_it_if_it_is_dropped_uncalled(
    proxy: QAMProxy,
) -> None:
    # given
    consumer, results = proxy.consumer_thread, []
    id = consumer.get_free_result_list_id(results.append)
    callback = Callback(proxy, id, consumer.client_id)
    # when
    wait_for(proxy, callback.add(1, 2))
    # then it is used, and free again
    assert results == [3]
    assert len(consumer.result_list) == 1
    assert consumer.free_index_queue == [0]
    # when one is dropped
    callback = Callback(proxy, consumer.get_free_result_list_id(print), consumer.client_id)
    assert consumer.free_index_queue == []
    del callback
    # then
    assert consumer.free_index_queue == [0]


def test_a_callback_may_make_calls_and_register_callbacks(proxy: QAMProxy) -> None:
    done = threading.Event()
    results: list[int] = []

    def last(result: int) -> None:
        results.append(result)
        done.set()

    def first(result: int) -> None:
        results.append(result)
        results.append(proxy.add(result, 1))
        proxy.callback(last).add(result, 2)

    proxy.callback(first).add(1, 2)
    assert done.wait(20)
    assert results == [3, 4, 5]


def test_a_callback_that_blocks_holds_up_no_other(proxy: QAMProxy) -> None:
    # given ten callbacks that block
    leave = threading.Event()
    blocked = [proxy.callback(lambda result: leave.wait(60)).add(n, n) for n in range(10)]
    until(lambda: {proxy.get_callback_state(uid) for uid in blocked} == {1})
    # when
    results: list[int] = []
    wait_for(proxy, proxy.callback(results.append).add(1, 2))
    # then
    assert results == [3]
    assert {proxy.get_callback_state(uid) for uid in blocked} == {1}
    leave.set()
    wait_for(proxy, *blocked)


def test_quick_callbacks_share_threads(proxy: QAMProxy) -> None:
    names: set[str | int] = set()
    for _ in range(50):
        wait_for(proxy, proxy.callback(lambda _: names.add(threading.get_ident())).add(1, 2))
    assert len(names) < 10


def test_the_error_function_may_be_the_only_one_that_sees_a_timeout_of_an_unsent_call(
    broker: Broker, server_id: str, service: Service
) -> None:
    # given a proxy whose broker takes nothing
    outcomes: list[Any] = []
    with QAMProxy(server_id, **broker.kwargs) as proxy:
        proxy.publisher_thread._blocked = True
        # when
        wait_for(proxy, proxy.callback(print, outcomes.append).set_timeout(0.05).add(1, 2))
        with pytest.raises(QAMTimeoutException, match="the broker has an alarm") as raised:
            proxy.set_timeout(0.05).add(3, 4)
        # then they surely did not run, and do not stay in the queue
        assert raised.value.executed == "no"
        assert [error.executed for error in outcomes] == ["no"]
        assert proxy.publisher_thread.method_queue == []
    assert service.runs == []


def test_callbacks_without_end_do_not_fill_the_memory_with_their_timeouts(
    proxy: QAMProxy,
) -> None:
    for n in range(500):
        wait_for(proxy, proxy.callback(len, len).set_timeout(3600).echo([n]))
    assert len(proxy.callback_observer_thread._timeouts) < 200
    assert proxy.consumer_thread.free_index_queue


def test_an_observer_that_dies_ends_every_callback(proxy: QAMProxy, service: Service) -> None:
    # given
    errors: list[Exception] = []
    uids = [proxy.callback(len, errors.append).hold(n) for n in range(3)]
    observer = proxy.callback_observer_thread

    def broken() -> Any:
        raise AssertionError("planted")

    # when
    observer._wait = broken  # type: ignore[method-assign]
    proxy.callback(len, errors.append).set_timeout(0.01).hold(3)
    wait_for(proxy, *uids)
    # then
    assert {type(error) for error in errors} == {QAMClosedException}
    assert len(errors) >= 3
    with pytest.raises(QAMClosedException, match="planted"):
        proxy.add(1, 2)
    service.go_on.set()


def test_a_system_without_threads_to_spare_delays_a_callback_and_loses_none(
    proxy: QAMProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a system that refuses the first three threads
    start, refused = ExecuteCallbackThread.start, []

    def refuse(thread: ExecuteCallbackThread) -> None:
        if len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(ExecuteCallbackThread, "start", refuse)
    # when
    results: list[int] = []
    wait_for(proxy, proxy.callback(results.append).add(1, 2))
    # then
    assert results == [3]
    assert len(refused) == 3


def test_the_state_of_a_callback_that_nobody_called_is_not_finished(proxy: QAMProxy) -> None:
    callback = proxy.callback(print)
    for uid in (callback, callback.add):
        with pytest.raises(TypeError, match="no call was made"):
            proxy.get_callback_state(uid)  # type: ignore[arg-type]
    assert proxy.get_callback_state("unknown") == 2


def test_ctrl_c_after_a_callback_was_concluded_gives_no_slot_of_another_call_back(
    proxy: QAMProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[int] = []
    others: list[int] = []
    send = proxy.publisher_thread.send

    def send_and_be_struck(call: PendingCall) -> None:
        slot = proxy.consumer_thread.result_list[call.slot_id]
        send(call)
        until(lambda: results == [3] and slot["state"] == ConsumerThread.FREE)
        others.append(proxy.consumer_thread.get_free_result_list_id())
        assert others == [call.slot_id]
        raise KeyboardInterrupt

    monkeypatch.setattr(proxy.publisher_thread, "send", send_and_be_struck)
    with pytest.raises(KeyboardInterrupt):
        proxy.callback(results.append).add(1, 2)

    assert proxy.consumer_thread.result_list[others[0]]["state"] == ConsumerThread.WAITING


def test_ctrl_c_at_any_moment_of_its_call_keeps_no_other_callback_waiting(server_id: str) -> None:
    # given a server that does not answer
    place = f"memory://{server_id}"
    make_server(Service(), server_id=server_id, hostname=place)
    files = ("callback_observer_thread", "callback_items", "callback_timeouts", "bell", "qam_proxy")
    modules = [f"/{name}.py" for name in files]
    struck: list[str] = []
    others: list[Any] = []
    with QAMProxy(server_id, place) as proxy:
        while not struck or struck[-1]:
            # when one is interrupted whose time is up sooner
            callback = proxy.callback(print, [].append).set_timeout(0.005)
            act = partial(callback.add, 1, 2)
            struck.append(interrupted_at(len(struck) + 1, act, *modules))
            proxy.callback(print, others.append).set_timeout(0.01).add(3, 4)
            # then
            until(lambda: len(others) == len(struck))
        finish(proxy)
    assert {type(other) for other in others} == {QAMTimeoutException}
    assert "Bell.ring" in struck
    assert "CallbackItems.add" in struck
