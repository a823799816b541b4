"""Which threads a proxy has, with a broker in this process and a proxy that the test makes."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from qam._client.client_threads import ClientSettings, ClientThreads
from qam._client.consumer_thread import ConsumerThread
from qam._client.proxy_threads import ProxyThreads
from qam._client.publisher_thread import PublisherThread
from qam._common.deadline import NO_END, Deadline
from qam._common.own_threads import OwnThread
from qam._serialization.serializers import as_serializer
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import (
    QAMClosedException,
    QAMConnectionException,
    QAMException,
)

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
BROKER = AMQPCredentials("memory://of-test-proxy-threads")
#: Where nothing listens.
NO_BROKER = AMQPCredentials("127.0.0.1", 1)


class Proxy:
    """What a proxy is to its threads."""

    def __init__(self, late: bool = True, broker: AMQPCredentials = BROKER) -> None:
        settings = ClientSettings(broker, "server", "client", as_serializer("json"))
        self.threads = ProxyThreads(self, settings, late=late, close_timeout=LONG)
        #: Is called in the middle of the making of threads.
        self.in_the_middle: Callable[[], object] = str

    @property
    def client_id(self) -> str:
        self.in_the_middle()
        return "client"

    @property
    def consumer_thread(self) -> ConsumerThread:
        return self.threads.made().consumer

    @property
    def publisher_thread(self) -> PublisherThread:
        return self.threads.made().publisher


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        assert isinstance(thread, OwnThread)
        thread.ask_to_stop()  # type: ignore[attr-defined]
        thread.join(LONG)
        assert not thread.is_alive()


def all_of(threads: ClientThreads) -> list[threading.Thread]:
    return [threads.consumer, threads.publisher, threads.observer]


def have_ended(threads: ClientThreads) -> bool:
    """Wait for it; return whether they have."""
    for thread in all_of(threads):
        if thread.ident is not None:
            thread.join(LONG)
    return not any(thread.is_alive() for thread in all_of(threads))


def fail(threads: ClientThreads) -> None:
    """Its attempt to connect has failed."""
    threads.publisher.end_calls(QAMConnectionException("nothing listens there"))
    assert threads.have_failed


# --- they begin ---------------------------------------------------------------


def test_there_are_none_as_long_as_nobody_needs_them() -> None:
    assert Proxy().threads.current is None


def test_those_of_a_proxy_that_connects_at_once_are_connected_when_they_are_open() -> None:
    proxy = Proxy(late=False)

    proxy.threads.open()

    threads = proxy.threads.running()
    assert threads is proxy.threads.current
    assert threads.are_connected


def test_of_an_attempt_to_open_that_fails_no_thread_is_left() -> None:
    proxy = Proxy(late=False, broker=NO_BROKER)

    with pytest.raises(QAMConnectionException, match="nothing listens there"):
        proxy.threads.open()

    assert proxy.threads.current is not None
    assert not any(thread.is_alive() for thread in all_of(proxy.threads.current))


def test_if_the_second_of_them_can_not_be_started_the_first_one_ends() -> None:
    # given
    proxy = Proxy(late=False)
    threads = proxy.threads.made()

    def no_more() -> None:
        raise RuntimeError("can't start new thread")

    threads.publisher.begin = no_more  # type: ignore[method-assign]
    # when
    with pytest.raises(RuntimeError, match="can't start new thread"):
        proxy.threads.open()
    # then
    assert threads.consumer.ident is not None
    assert not threads.consumer.is_alive()


def test_who_looks_at_them_before_the_first_call_sees_those_that_this_one_will_start() -> None:
    proxy = Proxy()

    threads = proxy.threads.made()

    assert not threads.have_begun
    assert proxy.threads.made() is threads
    assert proxy.threads.running() is threads
    assert threads.have_begun
    assert proxy.threads.made() is threads


def test_the_first_call_starts_them_and_no_other_one_does() -> None:
    proxy = Proxy()

    threads = proxy.threads.running()

    assert all(thread.is_alive() for thread in all_of(threads))
    assert proxy.threads.running() is threads


def test_after_an_attempt_that_failed_the_next_call_starts_others() -> None:
    proxy = Proxy()
    failed = proxy.threads.running()
    fail(failed)

    threads = proxy.threads.running()

    assert threads is not failed
    assert threads.are_usable
    assert have_ended(failed)


def test_nothing_is_kept_of_an_attempt_that_failed_once_there_are_others() -> None:
    # given
    proxy = Proxy()
    failed = proxy.threads.running()
    fail(failed)
    proxy.threads.running()
    assert have_ended(failed)
    # when
    its_trace = weakref.ref(failed)
    del failed
    gc.collect()
    # then
    assert its_trace() is None


def test_as_long_as_a_callback_of_the_failed_attempt_is_left_there_are_no_others() -> None:
    # given
    proxy = Proxy()
    failed = proxy.threads.running()
    uid = failed.observer.add_item(0, NO_END)
    fail(failed)
    # when, then
    assert proxy.threads.running() is failed
    failed.observer.finish(uid)
    assert proxy.threads.running() is not failed


def test_a_proxy_that_connected_at_once_gets_no_others() -> None:
    proxy = Proxy(late=False)
    proxy.threads.open()
    threads = proxy.threads.running()

    fail(threads)

    assert proxy.threads.running() is threads


def test_where_no_thread_can_be_started_the_next_call_begins_anew() -> None:
    # given one of three that can't be started
    proxy = Proxy()
    failed = proxy.threads.made()

    def no_more() -> None:
        raise RuntimeError("can't start new thread")

    failed.observer.start = no_more  # type: ignore[method-assign]
    # when
    with pytest.raises(RuntimeError, match="can't start new thread"):
        proxy.threads.running()
    # then the two that were started end
    assert have_ended(failed)
    assert proxy.threads.current is None
    # and
    assert proxy.threads.running().are_usable


@pytest.mark.parametrize("needs", ["running", "made"])
def test_a_finalizer_that_interrupts_their_making_is_told_that_it_can_make_no_call(
    needs: str,
) -> None:
    # given
    proxy = Proxy()
    told = list[QAMException]()

    def need_them() -> None:
        with pytest.raises(QAMException, match="it interrupts the start of the proxy") as caught:
            getattr(proxy.threads, needs)()
        told.append(caught.value)

    proxy.in_the_middle = need_them
    # when
    threads = proxy.threads.running()
    # then
    assert [error.executed for error in told] == ["no"]
    assert proxy.threads.running() is threads


def test_of_two_first_calls_at_once_one_starts_them_and_the_other_waits_for_it() -> None:
    # given a first call in the middle of it
    proxy, began, go_on = Proxy(), threading.Event(), threading.Event()
    got = list[ClientThreads]()

    def pause() -> None:
        began.set()
        assert go_on.wait(LONG)

    proxy.in_the_middle = pause
    calls = [threading.Thread(target=lambda: got.append(proxy.threads.running())) for _ in "12"]
    calls[0].start()
    assert began.wait(LONG)
    # when
    calls[1].start()
    go_on.set()
    for call in calls:
        call.join(LONG)
    # then
    assert got == [proxy.threads.current] * 2


# --- they end -----------------------------------------------------------------


def test_a_close_ends_their_calls_and_then_them() -> None:
    # given a call of a server that is not there
    proxy = Proxy()
    threads = proxy.threads.running()
    call = threads.publisher.begin_call(threads.results.reserve(), "add", [], {}, "key")
    # when
    proxy.threads.begin_to_close()
    proxy.threads.join_until(Deadline(LONG))
    # then
    with pytest.raises(QAMClosedException, match="the proxy of 'server' is closed; make a new"):
        threads.consumer.get_result(call.slot_id)
    assert not any(thread.is_alive() for thread in all_of(threads))


def test_after_a_close_no_call_starts_them() -> None:
    proxy = Proxy()
    proxy.threads.begin_to_close()
    proxy.threads.join_until(Deadline(LONG))

    with pytest.raises(QAMClosedException) as caught:
        proxy.threads.running()

    assert caught.value.executed == "no"
    assert proxy.threads.current is None


def test_those_of_a_proxy_that_is_dropped_end() -> None:
    proxy = Proxy()
    threads = proxy.threads.running()

    del proxy
    gc.collect()

    assert have_ended(threads)


def test_a_closed_proxy_that_is_dropped_is_not_kept_by_a_callback_that_never_ran() -> None:
    # given
    proxy = Proxy()
    proxy.threads.running().observer.add_item(0, NO_END)
    proxy.threads.begin_to_close()
    proxy.threads.join_until(Deadline(LONG))
    # when
    its_trace = weakref.ref(proxy)
    del proxy
    gc.collect()
    # then
    assert its_trace() is None


def test_none_are_made_for_a_proxy_that_is_garbage() -> None:
    proxy = Proxy()
    its_threads = proxy.threads
    del proxy
    gc.collect()

    with pytest.raises(QAMClosedException) as caught:
        its_threads.running()

    assert caught.value.executed == "no"


# --- in a forked child --------------------------------------------------------


class ThisThreadIsNotInTheChild(Exception):
    """Ends what another thread did when the process was forked."""


def test_after_a_fork_the_first_call_starts_others_whatever_a_thread_did_at_that_moment() -> None:
    # given threads, and a call that was about to start others in place of them
    proxy, began, go_on = Proxy(), threading.Event(), threading.Event()
    before = proxy.threads.running()
    fail(before)

    def pause() -> None:
        began.set()
        go_on.wait(LONG)
        raise ThisThreadIsNotInTheChild

    def call_it() -> None:
        with pytest.raises(ThisThreadIsNotInTheChild):
            proxy.threads.running()

    proxy.in_the_middle = pause
    call = threading.Thread(target=call_it)
    call.start()
    assert began.wait(LONG)
    proxy.in_the_middle = str
    # when
    proxy.threads.begin_anew()
    # then
    assert proxy.threads.current is None
    threads = proxy.threads.running()
    assert threads is not before
    assert threads.are_usable
    assert call.is_alive()  # still in the middle of it
    go_on.set()
    call.join(LONG)


def test_what_a_forked_child_has_not_it_does_not_end_with_its_proxy() -> None:
    # given
    proxy = Proxy()
    threads = proxy.threads.running()
    proxy.threads.begin_anew()
    # when
    del proxy
    gc.collect()
    # then they belong to the parent
    assert not threads.publisher.kill
