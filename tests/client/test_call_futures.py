"""The futures of calls, with threads of which none has a connection: the test ends the calls."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import pytest

from qam._client.call_futures import submit
from qam._client.call_options import CallOptions
from qam._client.client_threads import ClientSettings, ClientThreads
from qam._client.consumer_thread import ConsumerThread
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import PublisherThread
from qam._client.result_list import FREE
from qam._common.deadline import Deadline
from qam._serialization.serializers import as_serializer
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import (
    Executed,
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMSerializationException,
    QAMTimeoutException,
)

LONG = 30.0  # seconds; nothing here takes that long unless it is broken


class Proxy:
    """Makes calls; only its thread for callbacks runs, so that no request is ever written."""

    client_id = "client"

    def __init__(self) -> None:
        settings = ClientSettings(
            AMQPCredentials("memory://nowhere"), "server", "client", as_serializer("json")
        )
        self.threads = ClientThreads(self, settings)
        self.threads.observer.start()

    @property
    def consumer_thread(self) -> ConsumerThread:
        return self.threads.consumer

    @property
    def publisher_thread(self) -> PublisherThread:
        return self.threads.publisher

    def submit(self, *args: Any, **options: Any) -> Future[Any]:
        """Make a call with *options*."""
        return submit(self, self.threads, CallOptions(**options), "add", args, {}, "key")

    @property
    def queued(self) -> list[PendingCall]:
        return self.threads.publisher.method_queue

    def write_all(self) -> list[PendingCall]:
        """Take the calls out of the queue as they are taken to be written."""
        return [message.context for message in self.threads.publisher._next_batch(alone=False)]

    def conclude(self, call: PendingCall, outcome: object) -> None:
        assert self.threads.results.conclude(call.call_id, outcome)

    def has_nothing_left(self) -> bool:
        """Whether there is no trace of any call."""
        results = self.threads.results
        is_free = all(slot["state"] == FREE for slot in results.slots)
        return is_free and not results.open_calls and not self.queued


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.threads.observer.ask_to_stop()
    proxy.threads.observer.join_until(Deadline(LONG))


def closed(executed: Executed) -> QAMClosedException:
    return QAMClosedException("closed", executed=executed)


# --- outcomes -----------------------------------------------------------------


def test_a_future_gets_the_outcome_of_its_own_call(proxy: Proxy) -> None:
    first, second, failed = (proxy.submit(number) for number in range(3))
    calls = proxy.write_all()

    proxy.conclude(calls[2], QAMConnectionException("the cable was cut"))
    proxy.conclude(calls[1], {"result": "second"})
    proxy.conclude(calls[0], {"result": "first"})

    assert first.result(LONG) == "first"
    assert second.result(LONG) == "second"
    assert isinstance(failed.exception(LONG), QAMConnectionException)


def test_it_runs_from_when_its_request_is_written_until_it_has_its_outcome(proxy: Proxy) -> None:
    future = proxy.submit()
    assert not future.running()

    [call] = proxy.write_all()
    assert future.running()

    proxy.conclude(call, {"result": 5})
    assert future.result(LONG) == 5
    assert not future.running()


def test_it_ends_with_the_time_of_its_call(proxy: Proxy) -> None:
    error = proxy.submit(timeout=0.001).exception(LONG)

    assert isinstance(error, QAMTimeoutException)
    assert error.executed == "no"


def test_a_call_that_has_no_time_left_is_not_made_and_its_future_tells_so(proxy: Proxy) -> None:
    future = proxy.submit(timeout=0.0)

    error = future.exception(0.0)
    assert isinstance(error, QAMTimeoutException)
    assert str(error) == "add() timed out after 0 s; it was not sent"
    assert error.executed == "no"
    assert not future.running()
    assert not future.cancel()
    assert proxy.has_nothing_left()


def test_that_a_proxy_could_not_connect_just_now_is_told_by_the_future(proxy: Proxy) -> None:
    # given a first attempt that has failed
    proxy.threads.publisher.end_calls(QAMConnectionException("nothing listens there"))

    future = proxy.submit()

    error = future.exception(0.0)
    assert isinstance(error, QAMConnectionException)
    assert "nothing listens there" in str(error)
    assert error.executed == "no"
    assert proxy.has_nothing_left()


def test_a_call_of_a_closed_proxy_raises_at_once_and_leaves_nothing(proxy: Proxy) -> None:
    proxy.threads.publisher.close_calls(closed)

    with pytest.raises(QAMClosedException):
        proxy.submit()

    assert proxy.has_nothing_left()


def test_arguments_that_can_not_be_encoded_raise_at_once_and_leave_nothing(proxy: Proxy) -> None:
    with pytest.raises(QAMSerializationException):
        proxy.submit(threading.Lock())

    assert proxy.has_nothing_left()


def test_what_interrupts_the_making_of_a_call_leaves_nothing_of_it(proxy: Proxy) -> None:
    # given Ctrl-C when the call is in the queue
    send = proxy.threads.publisher.send

    def send_and_interrupt(call: PendingCall) -> PendingCall:
        send(call)
        assert proxy.queued == [call]
        raise KeyboardInterrupt

    proxy.threads.publisher.send = send_and_interrupt  # type: ignore[method-assign, assignment]
    # when
    with pytest.raises(KeyboardInterrupt):
        proxy.submit()
    # then
    assert proxy.has_nothing_left()


# --- cancelling ---------------------------------------------------------------


def test_one_that_is_not_written_can_be_cancelled_and_never_will_be(proxy: Proxy) -> None:
    # given
    future, other = proxy.submit("a"), proxy.submit("b")
    # when
    assert future.cancel()
    # then
    assert future.cancelled()
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(0.0)
    # and the other one is
    [call] = proxy.write_all()
    proxy.conclude(call, {"result": "b"})
    assert other.result(LONG) == "b"
    assert proxy.has_nothing_left()


def test_who_waits_for_one_that_is_cancelled_is_woken(proxy: Proxy) -> None:
    future, waits = proxy.submit(), threading.Event()
    done = list[set[Future[Any]]]()

    def wait_for_it() -> None:
        waits.set()
        done.append(wait([future], LONG).done)

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    assert waits.wait(LONG)
    future.cancel()
    thread.join(LONG)

    assert done == [{future}]


def test_one_that_was_written_can_not_be_cancelled(proxy: Proxy) -> None:
    future = proxy.submit()
    [call] = proxy.write_all()

    assert not future.cancel()

    proxy.conclude(call, {"result": 5})
    assert future.result(LONG) == 5
    assert not future.cancel()


def test_the_functions_of_a_cancelled_future_are_called_once(proxy: Proxy) -> None:
    called: list[Future[Any]] = []
    future = proxy.submit()
    future.add_done_callback(called.append)

    future.cancel()
    future.cancel()

    assert called == [future]


def test_one_that_has_failed_can_not_be_cancelled(proxy: Proxy) -> None:
    future = proxy.submit()

    proxy.threads.publisher.close_calls(closed)

    assert isinstance(future.exception(LONG), QAMClosedException)
    assert not future.cancel()
    assert isinstance(future.exception(0.0), QAMException)
