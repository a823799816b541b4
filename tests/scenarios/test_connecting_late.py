"""Proxies that connect with their first call, and peers that wait for each other."""

import gc
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from itertools import permutations
from typing import Any

import pytest

from qam import (
    AMQPCredentials,
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMProxy,
    QAMServer,
    QAMServerNotFoundException,
    QAMTimeoutException,
    submit,
    with_options,
)
from qam.qam_proxy import PublisherThread
from tests.conftest import Broker
from tests.scenarios.test_fork import in_a_child
from tests.support.descriptors import open_descriptors
from tests.support.forwarder import Forwarder
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, make_server, serving
from tests.support.waiting import until

LONG = 60.0


def own_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("qam ")]


def test_it_begins_with_its_first_call(broker: Broker, server_id: str, service: Service) -> None:
    # given
    threads, descriptors = own_threads(), open_descriptors()
    proxy = QAMProxy(server_id, connect=False, **broker.kwargs)
    assert "not connected yet" in repr(proxy)
    assert (own_threads(), open_descriptors()) == (threads, descriptors)
    # when
    with proxy:
        assert proxy.add(2, 3) == 5
        # then
        assert ", connected" in repr(proxy)
        assert submit(proxy.add, 2, 4).result(LONG) == 6
        assert proxy.set_timeout(LONG).add(1, 2) == 3
    with pytest.raises(QAMClosedException):
        proxy.add(1, 2)


def test_a_finalizer_beside_it_in_garbage_is_told_that_its_call_did_not_run(server_id: str) -> None:
    # given one that was never used, in a cycle with what calls it in its end
    told: list[Exception] = []

    class Handle:
        def __init__(self) -> None:
            self.me, self.proxy = self, QAMProxy(server_id, f"memory://{server_id}", connect=False)

        def __del__(self) -> None:
            try:
                self.proxy.release()
            except Exception as error:
                told.append(error)

    # when both become garbage
    Handle()
    gc.collect()
    # then its call is refused; or finds no server, where Python has not taken the proxy away
    [error] = told
    assert isinstance(error, QAMClosedException | QAMServerNotFoundException)
    assert error.executed == "no"


def test_a_callback_begins_it_too(broker: Broker, server_id: str, service: Service) -> None:
    outcome: Future[int] = Future()
    with QAMProxy(server_id, connect=False, **broker.kwargs) as proxy:
        proxy.callback(outcome.set_result, outcome.set_exception).add(2, 3)
        assert outcome.result(LONG) == 5


def test_many_first_calls_begin_it_once(broker: Broker, server_id: str, service: Service) -> None:
    with QAMProxy(server_id, connect=False, **broker.kwargs) as proxy:
        before = len(own_threads())
        futures = list[Future[int]]()
        threads = [
            threading.Thread(target=lambda: futures.append(submit(proxy.add, 1, 2)))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [each.result(LONG) for each in futures] == [3] * 20
        clients = [name for name in own_threads() if "PublisherThread" in name]
        assert len([name for name in clients if "server" not in name]) == 1
        assert before >= 1


def test_one_that_is_never_used_leaves_nothing(server_id: str) -> None:
    descriptors = open_descriptors()
    with QAMProxy(server_id, "127.0.0.1", 1, connect=False) as proxy:
        proxy.callback(print)
    with pytest.raises(QAMClosedException):
        proxy.add(1)
    del proxy
    assert open_descriptors() == descriptors


def test_a_broker_that_is_away_is_told_by_each_call_and_the_next_one_connects(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    # given
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    with (
        Forwarder(rabbitmq_node.host, rabbitmq_node.port) as network,
        serving(server_id=server_id, **place),
        QAMProxy(server_id, network.host, network.port, connect=False, timeout=LONG) as proxy,
    ):
        network.refuse()
        network.cut()
        kept = proxy.callback(print)
        # when, then
        for call in (proxy.add, lambda *args: submit(proxy.add, *args).result()):
            with pytest.raises(QAMConnectionException, match="can't connect to the broker") as told:
                call(1, 2)
            assert told.value.executed == "no"
        # when it is back
        network.accept()
        assert proxy.add(1, 2) == 3
        kept.echo(1)
        until(lambda: proxy.get_num_waiting_callbacks() == 0)


def test_a_call_after_one_that_failed_connects_although_the_threads_of_that_still_end(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    # given a call that has failed, and the two threads that have told it so
    go_on = threading.Event()
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    with (
        Forwarder(rabbitmq_node.host, rabbitmq_node.port) as network,
        serving(server_id=server_id, **place),
        QAMProxy(server_id, network.host, network.port, connect=False, timeout=LONG) as proxy,
    ):
        network.refuse()
        owners = proxy.consumer_thread, proxy.publisher_thread
        for owner in owners:
            owner._end_opening = lambda failure: go_on.wait(LONG)  # type: ignore[method-assign]
        with pytest.raises(QAMConnectionException, match="can't connect to the broker"):
            proxy.add(1, 2)
        # when, then
        network.accept()
        try:
            assert proxy.add(1, 2) == 3
            assert any(owner.is_alive() for owner in owners)
        finally:
            go_on.set()
        for owner in owners:
            owner.join(LONG)


def test_a_wrong_password_is_told(rabbitmq_node: RabbitMQNode, server_id: str) -> None:
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    with (
        QAMProxy(server_id, password="wrong", connect=False, **place) as proxy,
        pytest.raises(QAMConnectionException, match="access refused"),
    ):
        proxy.add(1)


def test_the_timeout_of_the_first_call_bounds_connecting_too(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    with Forwarder(rabbitmq_node.host, rabbitmq_node.port) as network:
        network.stall()
        proxy = QAMProxy(server_id, network.host, network.port, connect=False, timeout=0.1)
        with proxy, pytest.raises(QAMTimeoutException, match="no connection to the broker") as told:
            proxy.add(1)
        assert told.value.executed == "no"


def test_wrong_arguments_are_told_by_the_constructor(server_id: str) -> None:
    for wrong in ({"connect": "no"}, {"port": 0}, {"metadata": 5}, {"wait_for_broker": -1}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            QAMProxy(server_id, **{"connect": False, **wrong})  # type: ignore[arg-type]


# --- forked children ------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("was_used", [False, True], ids=["unused", "used"])
def test_each_forked_child_begins_anew(
    rabbitmq_node: RabbitMQNode, server_id: str, was_used: bool
) -> None:
    # given a server in this process, and a proxy that is made before the fork
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    with serving(server_id=server_id, **place):
        proxy = QAMProxy(server_id, connect=False, timeout=LONG, **place)
        callback = proxy.callback(print)
        if was_used:
            assert proxy.add(1, 2) == 3

        def use_it() -> None:
            assert proxy.add(2, 3) == 5
            assert submit(proxy.set_timeout(LONG).add, 3, 4).result() == 7
            callback.echo(1)
            until(lambda: proxy.get_num_waiting_callbacks() == 0)
            assert in_a_child(lambda: proxy.add(1, 1)) == 0
            proxy.close()

        # when
        statuses = [in_a_child(use_it) for _ in range(3)]
        # then
        assert statuses == [0, 0, 0]
        assert proxy.add(4, 5) == 9
        proxy.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_closed_one_stays_closed_in_a_child(server_id: str) -> None:
    proxy = QAMProxy(server_id, f"memory://{server_id}", connect=False)
    proxy.close()

    def use_it() -> None:
        with pytest.raises(QAMClosedException):
            proxy.add(1)

    assert in_a_child(use_it) == 0


# --- waiting for each other -------------------------------------------------------


def test_a_server_that_comes_within_the_time_is_waited_for(broker: Broker, server_id: str) -> None:
    for persistent in (True, False):
        id = f"{server_id}.{persistent}"
        options: dict[str, Any] = {"persistent": persistent, **broker.kwargs}
        with QAMProxy(id, wait_for_server=LONG, **options) as proxy:
            future = submit(proxy.add, 2, 3)
            until(lambda: proxy.publisher_thread._later or future.done())  # noqa: B023
            assert not future.done()
            with make_server(Service(), server_id=id, **broker.kwargs) as server:
                server.start()
                assert future.result(LONG) == 5


def test_a_server_that_does_not_come_within_the_time_is_told(
    broker: Broker, server_id: str
) -> None:
    with QAMProxy(server_id, **broker.kwargs) as proxy:
        with pytest.raises(QAMServerNotFoundException) as raised:
            with_options(proxy, wait_for_server=0.2).add(1)
        assert raised.value.executed == "no"
        with pytest.raises(QAMTimeoutException, match="came back") as late:
            with_options(proxy, wait_for_server=LONG, timeout=0.2).add(1)
        assert late.value.executed == "no"


def first_outcome(
    server_id: str, order: Iterable[str], place: dict[str, Any], begin_broker: Callable[[], Any]
) -> int:
    """Starts the three in that order; returns the result of the first call."""
    patient = {**place, "wait_for_broker": LONG}
    outcome: Future[int] = Future()
    over = threading.Event()

    def client() -> None:
        try:
            with QAMProxy(server_id, wait_for_server=LONG, **patient) as proxy:
                outcome.set_result(proxy.add(2, 3))
        except QAMException as error:
            outcome.set_exception(error)

    def server() -> None:
        with make_server(Service(), server_id=server_id, **patient) as server:
            server.start()
            over.wait(LONG)

    begin = {"client": client, "server": server, "broker": begin_broker}
    threads = []
    try:
        for name in order:
            threads.append(threading.Thread(target=begin[name]))
            threads[-1].start()
        return outcome.result(LONG)
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("order", list(permutations(["client", "server", "broker"])), ids="-".join)
def test_in_whatever_order_they_start_the_first_call_is_right(
    server_id: str, order: tuple[str, ...], way: Forwarder
) -> None:
    way.refuse()
    place = {"hostname": way.host, "port": way.port}
    assert first_outcome(server_id, order, place, way.accept) == 5


def test_also_while_the_node_itself_starts(server_id: str) -> None:
    node = RabbitMQNode()
    place = {"hostname": node.host, "port": node.port}
    try:
        order = ["server", "client", "broker"]
        assert first_outcome(server_id, order, place, node.start) == 5
    finally:
        node.stop()


def test_a_refusal_is_not_waited_for(rabbitmq_node: RabbitMQNode, server_id: str) -> None:
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    patient = {**place, "wait_for_broker": 1000.0}
    for wrong in ({"password": "wrong"}, {"vhost": "nowhere"}):
        with pytest.raises(QAMConnectionException, match=r"access refused|does not exist"):
            QAMProxy(server_id, **{**patient, **wrong})
        with pytest.raises(QAMConnectionException, match=r"access refused|does not exist"):
            QAMServer(server_id=server_id, **{**patient, **wrong})


def test_a_broker_that_does_not_come_is_told_in_the_end(server_id: str) -> None:
    for make in (QAMProxy, lambda id, *place, **kwargs: QAMServer(*place, server_id=id, **kwargs)):
        with pytest.raises(QAMConnectionException, match="nothing listens there"):
            make(server_id, "127.0.0.1", 1, wait_for_broker=0.2)


# --- credentials ------------------------------------------------------------------


def test_credentials_stand_for_the_single_arguments(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    credentials = AMQPCredentials(rabbitmq_node.host, rabbitmq_node.port)
    with make_server(Service(), server_id=server_id, credentials=credentials) as server:
        server.start()
        with QAMProxy(server_id, credentials=credentials) as proxy:
            assert proxy.add(1, 2) == 3
    for door in (QAMProxy, QAMServer):
        with pytest.raises(TypeError, match="credentials: hostname, port can't be passed besides"):
            door(server_id=server_id, credentials=credentials, hostname="other", port=5)
        with pytest.raises(TypeError, match="credentials must be AMQPCredentials, not str"):
            door(server_id=server_id, credentials="amqp://")


def test_a_start_that_fails_leaves_nothing_and_the_next_call_begins_anew(
    server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a process that can start one thread more, and no other
    url, before = f"memory://{server_id}", own_threads()
    with (
        serving(server_id=server_id, hostname=url),
        QAMProxy(server_id, url, connect=False, timeout=LONG) as proxy,
    ):
        during = own_threads()

        def no_more(thread: PublisherThread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(PublisherThread, "begin", no_more)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    proxy.add(1, 2)
        # then the thread that was started ends
        until(lambda: own_threads() == during)
        # and
        assert proxy.add(1, 2) == 3
    until(lambda: own_threads() == before)


def begun(make: Callable[[], str]) -> str:
    """The uid of a call that began before it was known that nobody can be reached."""
    while True:
        with suppress(QAMConnectionException):
            return make()


def test_an_attempt_that_has_just_failed_fails_the_future(server_id: str) -> None:
    with QAMProxy(server_id, "127.0.0.1", 1, connect=False) as proxy:
        for _ in range(20):
            error = submit(proxy.add, 1).exception(LONG)
            assert isinstance(error, QAMConnectionException)
            assert error.executed == "no"


def test_what_is_left_of_a_failed_attempt_is_done_before_another_one(server_id: str) -> None:
    # given a callback whose call fails, since nobody can be reached
    told, go_on = threading.Event(), threading.Event()

    def fail(error: Exception) -> None:
        told.set()
        assert go_on.wait(LONG)

    with QAMProxy(server_id, "127.0.0.1", 1, connect=False) as proxy:
        uid = begun(lambda: proxy.callback(print, fail).add(1))
        assert told.wait(LONG)
        # when another call is made while its function runs
        with pytest.raises(QAMConnectionException):
            proxy.add(1)
        # then the callback is not forgotten
        assert proxy.get_callback_state(uid) == 1
        assert proxy.get_num_waiting_callbacks() == 1
        go_on.set()
        until(lambda: proxy.get_callback_state(uid) == 2)
