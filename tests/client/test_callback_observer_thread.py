"""The thread that watches over callbacks, with a parent that the test makes."""

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from qam._client import callback_observer_thread
from qam._client.callback_items import FINISHED, PROCESSING, WAITING
from qam._client.callback_observer_thread import CallbackObserverThread
from qam._client.consumer_thread import ConsumerThread
from qam._client.execute_callback_thread import ExecuteCallbackThread
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import PublisherThread
from qam._common.bell import Bell
from qam._common.deadline import NO_END, Deadline
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import QAMClosedException, QAMTimeoutException
from tests.support.clock import StandingClock, stop

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
CREDENTIALS = AMQPCredentials("memory://nowhere")


class CountingBell(Bell):
    """Notes for how long it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        super().wait(seconds)


class Parent:
    """A proxy that has no connection."""

    client_id = "client.1"

    def __init__(self) -> None:
        self.publisher_thread = PublisherThread(CREDENTIALS, "server", self.client_id, "json")
        self.consumer_thread = ConsumerThread(
            CREDENTIALS, "server", self.client_id, "json", publisher=self.publisher_thread
        )
        self.bell = CountingBell()
        self.results = self.publisher_thread.results
        self.results.ready_callbacks.bell = self.bell
        self.callback_observer_thread = CallbackObserverThread(self)
        #: What the callbacks were called with, in the order in which they were.
        self.called: list[Any] = []
        self._changed = threading.Condition()

    def note(self, value: Any) -> None:
        """A callback."""
        with self._changed:
            self.called.append(value)
            self._changed.notify_all()

    def wait_for(self, number: int) -> None:
        """Wait until so many callbacks were called."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.called) >= number, LONG)

    def begin(self, deadline: Deadline = NO_END, method: Any = None, error: Any = None) -> str:
        """Make a call with a callback; return its uid."""
        slot = self.results.reserve(method or self.note, error)
        uid = self.callback_observer_thread.add_item(slot, deadline)
        call = PendingCall(slot, self.results.new_call_id(), "add", b"", deadline)
        self.results.begin(call)
        self.callback_observer_thread.watch(call)
        return uid

    def conclude(self, uid: str, outcome: Any) -> None:
        """The outcome of a call is there."""
        item = self.callback_observer_thread.get_callback_item(uid)
        call = self.results.slots[item["id"]]["call"]
        assert self.results.conclude(call.call_id, outcome)


@pytest.fixture
def parent() -> Iterator[Parent]:
    """One whose observer is not started."""
    parent = Parent()
    yield parent
    parent.callback_observer_thread.ask_to_stop()
    parent.callback_observer_thread.join_until(Deadline(LONG))


@pytest.fixture
def observer(parent: Parent) -> CallbackObserverThread:
    """One that runs."""
    parent.callback_observer_thread.start()
    return parent.callback_observer_thread


# --- how long it sleeps -----------------------------------------------------


def test_without_callbacks_it_sleeps_without_end(parent: Parent) -> None:
    parent.bell.ring()

    assert parent.callback_observer_thread._wait() == []

    assert parent.bell.waits == [float("inf")]


def test_it_sleeps_until_the_next_timeout_and_not_in_between(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = stop(monkeypatch, callback_observer_thread)
    clock.now = time.monotonic()
    parent.begin(Deadline(LONG))
    parent.bell.ring()

    parent.callback_observer_thread._wait()

    assert parent.bell.waits == [pytest.approx(LONG, abs=1.0)]


def test_what_is_due_already_is_not_waited_for(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: StandingClock = stop(monkeypatch, callback_observer_thread)
    uid = parent.begin(Deadline(LONG))
    clock.now += 2 * LONG

    past = parent.callback_observer_thread._wait()

    assert parent.bell.waits == [0.0]
    slot = parent.callback_observer_thread.get_callback_item(uid)["id"]
    assert past == [parent.results.slots[slot]["call"].call_id]
    # and once
    parent.bell.ring()
    assert parent.callback_observer_thread._wait() == []


# --- the states of a callback -----------------------------------------------


def test_a_callback_waits_and_is_processed_and_finished(
    parent: Parent, observer: CallbackObserverThread
) -> None:
    # given
    states: list[int] = []

    def look(value: Any) -> None:
        states.append(observer.get_callback_item(uid)["state"])
        parent.note(value)

    uid = parent.begin(method=look, error=look)
    assert observer.get_callback_item(uid)["state"] == WAITING
    assert set(observer.callback_uid_dict) == {uid}
    # when
    parent.conclude(uid, QAMClosedException("over"))
    parent.wait_for(1)
    # then
    assert states == [PROCESSING]
    assert [type(each) for each in parent.called] == [QAMClosedException]
    observer.exit()
    assert observer.get_callback_item(uid) == {"id": None, "state": FINISHED}


def test_the_documented_way_changes_and_removes_items(parent: Parent) -> None:
    observer = parent.callback_observer_thread
    uid = observer.init_waiting_callback_item(parent.results.reserve(), 5.0)
    assert 4.0 < observer.get_callback_item(uid)["deadline"].timeout <= 5.0
    endless = observer.init_waiting_callback_item(parent.results.reserve(), None)
    assert observer.get_callback_item(endless)["deadline"] is NO_END

    observer.change_callback_item_state(uid, PROCESSING)
    assert observer.get_callback_item(uid)["state"] == PROCESSING
    observer.remove_callback_item(uid)
    assert observer.get_callback_item(uid)["state"] == FINISHED
    observer.finish(endless)
    assert observer.callback_uid_dict == {}
    assert observer.callback_dict_lock is observer.callback_dickt_lock


def test_a_callback_whose_time_is_up_gets_the_exception(
    parent: Parent, observer: CallbackObserverThread
) -> None:
    parent.begin(Deadline(0.01), error=parent.note)

    parent.wait_for(1)

    assert isinstance(parent.called[0], QAMTimeoutException)
    assert parent.called[0].executed == "no"


def test_the_time_of_a_callback_that_has_not_called_yet_is_not_up(parent: Parent) -> None:
    observer = parent.callback_observer_thread
    slot = parent.results.reserve(parent.note)
    uid = observer.add_item(slot, Deadline(0.0))

    observer.check_timeout(uid, observer.get_callback_item(uid))

    assert observer.get_callback_item(uid)["state"] == WAITING


def test_a_failure_that_nobody_takes_is_told(
    parent: Parent, observer: CallbackObserverThread, caplog: pytest.LogCaptureFixture
) -> None:
    failed = parent.begin()
    parent.conclude(failed, QAMClosedException("over"))
    done = parent.begin(error=parent.note)
    parent.conclude(done, QAMClosedException("over"))
    parent.wait_for(1)
    observer.exit()

    assert "its callback Parent.note has no error function" in caplog.text


# --- the threads that execute -----------------------------------------------


def test_a_callback_that_blocks_delays_no_other(
    parent: Parent, observer: CallbackObserverThread
) -> None:
    # given
    go_on = threading.Event()

    def block(_: Any) -> None:
        go_on.wait(LONG)

    blocking = parent.begin(error=block)
    parent.conclude(blocking, QAMClosedException("over"))
    # when
    quick = parent.begin(error=parent.note)
    parent.conclude(quick, QAMClosedException("over"))
    # then
    parent.wait_for(1)
    assert observer.get_callback_item(blocking)["state"] == PROCESSING
    go_on.set()


def test_an_idle_thread_ends_when_there_is_nothing_for_long(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callback_observer_thread, "_IDLE_TIME", 0.01)
    observer = parent.callback_observer_thread
    thread = ExecuteCallbackThread(parent, parent.note, 1, "uid")
    observer._threads.add(thread)

    thread.start()
    thread.join(LONG)

    assert not thread.is_alive()
    assert parent.called == [1]
    assert observer._threads == set()


def test_where_no_thread_can_be_started_a_callback_waits_and_is_not_lost(
    parent: Parent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a system that has no more threads for now
    observer = parent.callback_observer_thread
    failures = 2

    def start(thread: ExecuteCallbackThread) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("can't start new thread")
        threading.Thread.start(thread)

    monkeypatch.setattr(ExecuteCallbackThread, "start", start)
    observer.start()
    # when
    uid = parent.begin(error=parent.note)
    parent.conclude(uid, QAMClosedException("over"))
    # then
    parent.wait_for(1)
    assert caplog.text.count("a callback has to wait") == 2


# --- the end ----------------------------------------------------------------


def test_what_is_ready_is_executed_before_it_ends(parent: Parent) -> None:
    observer = parent.callback_observer_thread
    uids = [parent.begin(error=parent.note) for _ in range(3)]
    for uid in uids:
        parent.conclude(uid, QAMClosedException("over"))
    observer.kill = True
    # when
    observer.start()
    observer.exit()
    # then
    parent.wait_for(3)
    assert not observer.is_alive()


def test_a_bug_in_it_ends_every_call_and_is_told_to_the_error_functions(
    parent: Parent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    observer, bug = parent.callback_observer_thread, ValueError("bug")

    def fail() -> None:
        raise bug

    monkeypatch.setattr(observer, "_start_thread_if_needed", fail)
    parent.begin(error=parent.note)
    parent.begin(error=parent.note)
    # when
    observer.start()
    parent.bell.ring()
    # then
    parent.wait_for(2)
    assert [type(each) for each in parent.called] == [QAMClosedException] * 2
    assert parent.called[0].__cause__ is bug
    assert "died of an internal error" in caplog.text


def test_it_keeps_no_proxy_alive(parent: Parent) -> None:
    other = Parent()
    observer = other.callback_observer_thread
    assert observer.parent is other

    del other
    gc.collect()

    assert observer.parent is None
    observer._start_thread()  # there is nothing to start it for


def test_in_a_forked_child_it_watches_over_nothing(parent: Parent) -> None:
    other = Parent()
    observer = other.callback_observer_thread
    other.begin()
    lock = observer.callback_dict_lock

    observer._in_forked_child()

    assert observer.kill
    assert observer.callback_uid_dict == {}
    assert observer.callback_dict_lock is not lock
