"""Calls through a proxy: results, errors, timeouts, names, closing."""

import copy
import gc
import inspect
import pickle
import sys
import threading
import time
import types
import weakref
from collections import OrderedDict
from functools import partial
from typing import Any

import pytest

from qam import (
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMMethodNotFoundException,
    QAMProxy,
    QAMSerializationException,
    QAMServer,
    QAMServerNotFoundException,
    QAMTimeoutException,
    RemoteException,
    qam_proxy,
)
from qam._broker.events import Cancelled
from qam._broker.messages import MAX_MESSAGE_BYTES, Delivery
from qam._client.pending_call import PendingCall
from qam._client.result_list import ResultList
from qam._common import logs
from qam._protocol.properties import properties
from qam._serialization.serializers import get_serializer
from tests.conftest import Broker
from tests.support.interrupts import interrupted_at
from tests.support.service import Service, make_server, serving
from tests.support.waiting import until

LONG = 30.0  # seconds; nothing here takes that long unless it is broken


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("this one stays here")


# --- results and what methods raise -------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, 0, -1.5, "ä", b"\xff\x00", [1, (2,)], {"a": {1, 2}}, 2**80]
)
def test_values_come_back_as_they_went(proxy: QAMProxy, value: Any) -> None:
    assert proxy.echo(value) == value


def test_a_large_value_travels_in_several_frames(proxy: QAMProxy) -> None:
    value = bytes(range(256)) * 4096 * 3
    assert proxy.echo(value) == value


def test_keyword_arguments_arrive(proxy: QAMProxy) -> None:
    assert proxy.add(2, b=5) == 7
    assert proxy.testclass.adder_function(a=1, b=2) == 3


def test_what_the_method_raises_arrives_with_its_traceback(proxy: QAMProxy) -> None:
    with pytest.raises(ValueError, match="why") as raised:
        proxy.fail("why", 7)
    assert raised.value.args == ("why", 7)
    [note] = raised.value.__notes__
    assert "Remote traceback" in note
    assert "in fail" in note
    assert "_run" not in note


def test_a_wrong_number_of_arguments_is_the_methods_type_error(proxy: QAMProxy) -> None:
    with pytest.raises(TypeError, match="argument"):
        proxy.testclass.adder_function(1)


def test_a_missing_method_is_named(proxy: QAMProxy) -> None:
    with pytest.raises(QAMMethodNotFoundException, match="'missing'") as raised:
        proxy.missing(1)
    assert raised.value.executed == "no"
    assert raised.value.safe_to_retry
    with pytest.raises(QAMMethodNotFoundException, match=r"'missing\.too'"):
        proxy.missing.too(b=1)


@pytest.mark.parametrize("name", ["testclass.secret", "testclass.looked_at", "testclass"])
def test_only_registered_methods_can_be_called(proxy: QAMProxy, name: str) -> None:
    with pytest.raises(QAMMethodNotFoundException):
        proxy[name]()


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (QAMTimeoutException("nested"), "QAMTimeoutException"),
        (type("LocalError", (Exception,), {})("x"), "LocalError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cant_be_rebuilt_arrives_as_a_remote_exception(
    broker: Broker, server_id: str, error: BaseException, name: str
) -> None:
    def raise_it() -> None:
        raise error

    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:
        server.register_function(raise_it)
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            with pytest.raises(RemoteException) as raised:
                proxy.raise_it()
            assert raised.value.type_name.endswith(name)
            assert raised.value.text == str(error)
            assert not isinstance(raised.value, QAMException)
            # and the server lives on
            assert proxy.add(1, 2) == 3


def test_a_result_that_cant_be_encoded_is_told_to_the_caller(
    broker: Broker, server_id: str
) -> None:
    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:
        server.register_function(lambda: threading.Lock(), name="lock")
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            with pytest.raises(QAMSerializationException, match="result") as raised:
                proxy.lock()
            assert raised.value.executed == "yes"
            assert proxy.add(1, 2) == 3


def test_json_carries_dates_bytes_and_builtin_exceptions(broker: Broker, server_id: str) -> None:
    from datetime import UTC, datetime
    from decimal import Decimal
    from uuid import uuid4

    values = [datetime.now(UTC), Decimal("1.10"), uuid4(), b"\xff", "ä", None]
    kwargs = {"serializer": "json", **broker.kwargs}
    with (
        serving(server_id=server_id, **kwargs),
        QAMProxy(server_id, timeout=60, **kwargs) as proxy,
    ):
        assert proxy.echo(values) == values
        with pytest.raises(ValueError, match="why"):
            proxy.fail("why", 7)


def test_a_proxy_with_another_serializer_is_told(broker: Broker, server_id: str) -> None:
    with (
        serving(server_id=server_id, serializer="json", **broker.kwargs),
        QAMProxy(server_id, timeout=60, serializer="pickle", **broker.kwargs) as proxy,
    ):
        with pytest.raises(QAMSerializationException) as raised:
            proxy.add(1, 2)
        assert raised.value.executed == "no"


def test_what_is_larger_than_allowed_is_told_to_the_caller(broker: Broker, server_id: str) -> None:
    kwargs: dict[str, Any] = {"max_message_bytes": 10_000, **broker.kwargs}
    with (
        serving(server_id=server_id, **kwargs) as service,
        QAMProxy(server_id, timeout=60, **kwargs) as proxy,
    ):
        with pytest.raises(QAMSerializationException, match=r"add\(\) has .* bytes") as request:
            proxy.add("x" * 10_000, "")
        with pytest.raises(
            QAMSerializationException, match=r"the result of \w+\(\) has .* bytes"
        ) as result:
            proxy.repeat("x", 10_000)
        assert len(proxy.repeat("x", 9_000)) == 9_000
        for call in (proxy.callback(len).add, proxy.set_timeout(60).add, proxy["add"]):
            with pytest.raises(QAMSerializationException, match=r"add\(\) has .* bytes"):
                call(a="x" * 10_000)
        # of an exception the text is cut
        with pytest.raises(ValueError, match=r"^xxx") as failed:
            proxy.fail_long(10_000)
        assert len(str(failed.value)) <= 500
    assert MAX_MESSAGE_BYTES == 16 * 2**20
    assert request.value.executed == "no"
    assert result.value.executed == "yes"
    assert service.runs == []


def test_a_call_gives_its_slot_back_once(proxy: QAMProxy) -> None:
    # given another thread, which takes each slot as soon as it is free
    consumer, results = proxy.consumer_thread, proxy._results
    free, taken = results.free, []

    def free_and_take(id: int) -> None:
        free(id)
        taken.append(results.reserve())

    results.free = free_and_take  # type: ignore[method-assign]
    # when
    assert proxy.add(1, 2) == 3
    with pytest.raises(ValueError, match="why"):
        proxy.fail("why")
    with pytest.raises(QAMTimeoutException):
        proxy.set_timeout(1e-9).hold()
    # then the other one keeps what it took
    assert len(taken) == 3
    assert [consumer.result_list[id]["state"] for id in taken] == [consumer.WAITING] * 3


# --- a caller's mistakes raise in the caller's thread ---------------------------------


def test_arguments_that_cant_be_encoded_raise_at_once_and_send_nothing(
    proxy: QAMProxy, service: Service
) -> None:
    for call in (proxy.add, proxy.callback(print).add, proxy.set_timeout(5).add):
        with pytest.raises(QAMSerializationException, match=r"add\(\).*this one stays") as raised:
            call(Unpicklable(), 1)
        assert raised.value.executed == "no"
    assert proxy.consumer_thread.result_list == []
    assert proxy.get_num_waiting_callbacks() == 0
    assert service.runs == []


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_not_positive_is_a_value_error(proxy: QAMProxy, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        proxy.set_timeout(timeout)
    with pytest.raises(ValueError, match="timeout"):
        proxy.callback(print).set_timeout(timeout)


@pytest.mark.parametrize("timeout", ["5", True, []])
def test_a_timeout_that_is_no_number_is_a_type_error(proxy: QAMProxy, timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout"):
        proxy.set_timeout(timeout)
    with pytest.raises(TypeError, match="timeout"):
        proxy.callback(print).set_timeout(timeout)


def test_callbacks_have_to_be_callable(proxy: QAMProxy) -> None:
    with pytest.raises(TypeError, match="callback_method"):
        proxy.callback("print")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="exception_method"):
        proxy.callback(print, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"serializer": "yaml"}, ValueError),
        ({"serializer": 3}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": "x"}, TypeError),
        ({"connect_timeout": -1}, ValueError),
        ({"client_id": ""}, ValueError),
        ({"client_id": "x" * 250}, ValueError),
        ({"client_id": 5}, TypeError),
        ({"server_id": ""}, ValueError),
        ({"server_id": None}, TypeError),
        ({"server_id": "AMQP://me:secret@broker"}, ValueError),
        ({"client_id": "memory://shop"}, ValueError),
        ({"trusted": None}, TypeError),
        ({"trusted": 5}, TypeError),
        ({"pickle_protocol": 99}, ValueError),
        ({"port": "5672"}, TypeError),
        ({"max_message_bytes": 0}, ValueError),
        ({"max_message_bytes": "1"}, TypeError),
        ({"hostname": 5}, TypeError),
        ({"password": None}, TypeError),
        ({"hostname": "redis://x"}, ValueError),
        ({"hostname": "amqp://x", "port": 5673}, ValueError),
        ({"hostname": "amqp://x", "username": "me"}, ValueError),
        ({"hostname": "memory://x", "vhost": "v"}, ValueError),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], error: type[Exception]) -> None:
    [name] = [name for name in wrong if name != "hostname"] or ["hostname"]
    with pytest.raises(error, match=name):
        QAMProxy(**({"server_id": "s", "hostname": "memory://wrong"} | wrong))


# --- who is there ----------------------------------------------------------------------


def test_a_server_that_never_was_there_is_named_at_once(broker: Broker, server_id: str) -> None:
    errors: list[Exception] = []
    with QAMProxy(server_id, **broker.kwargs) as proxy:
        with pytest.raises(QAMServerNotFoundException, match=server_id) as raised:
            proxy.add(2, 3)
        assert raised.value.executed == "no"
        uid = proxy.callback(print, errors.append).add(2, 3)
        while proxy.get_callback_state(uid) != 2:
            pass
    assert [type(error) for error in errors] == [QAMServerNotFoundException]


def test_a_call_waits_for_a_server_that_is_known_but_down(broker: Broker, server_id: str) -> None:
    # given a server that declared its queue and is not serving yet
    service = Service()
    server = make_server(service, server_id=server_id, **broker.kwargs)
    results: list[Any] = []
    with QAMProxy(server_id, **broker.kwargs) as proxy, server:
        uid = proxy.callback(results.append).add(2, 3)
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(0.05).add(0, 0)
        # when
        server.start()
        while proxy.get_callback_state(uid) != 2:
            pass
        proxy.add(1, 1)
    # then the call is answered, and the one that timed out was never started
    assert results == [5]
    assert service.runs == [(2, 3), (1, 1)]


# --- timeouts --------------------------------------------------------------------------


def test_a_timeout_names_method_and_seconds(proxy: QAMProxy, service: Service) -> None:
    with pytest.raises(QAMTimeoutException, match=r"hold\(\) timed out after 0\.05 s;") as raised:
        proxy.set_timeout(0.05).hold()
    assert raised.value.executed == "unknown"
    assert isinstance(raised.value, TimeoutError)
    service.go_on.set()


def test_a_proxy_can_have_a_timeout_for_all_its_calls(
    broker: Broker, server_id: str, service: Service
) -> None:
    errors: list[Exception] = []
    with QAMProxy(server_id, timeout=0.05, **broker.kwargs) as proxy:
        with pytest.raises(QAMTimeoutException):
            proxy.hold()
        uid = proxy.callback(print, errors.append).hold()
        while proxy.get_callback_state(uid) != 2:
            pass
        # and each call can have another
        assert proxy.set_timeout(60).add(1, 2) == 3
    assert [type(error) for error in errors] == [QAMTimeoutException]


def test_a_late_reply_never_answers_the_next_call_in_its_slot(
    proxy: QAMProxy, service: Service
) -> None:
    for n in range(20):
        # given a call that timed out while its method runs
        service.go_on.clear()
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(0.02).hold(f"late {n}")
        # when its reply comes while others wait in the same slot
        service.go_on.set()
        # then
        assert proxy.add(n, 1) == n + 1
        assert len(proxy.consumer_thread.result_list) == 1


@pytest.mark.parametrize("restarted", [True, False])
def test_a_late_reply_never_answers_another_proxy_of_the_same_client_id(
    broker: Broker, server_id: str, service: Service, restarted: bool
) -> None:
    first = QAMProxy(server_id, client_id="twin", **broker.kwargs)
    with pytest.raises(QAMTimeoutException):
        first.set_timeout(0.05).hold("late")
    if restarted:
        first.close()
    with QAMProxy(server_id, client_id="twin", timeout=60, **broker.kwargs) as second:
        service.go_on.set()
        assert [second.add(n, 1) for n in range(20)] == list(range(1, 21))
        if not restarted:
            assert [first.add(n, 2) for n in range(20)] == list(range(2, 22))
    first.close()


# --- names -----------------------------------------------------------------------------


def test_a_method_whose_name_the_proxy_uses_itself_is_reached_as_an_item(
    broker: Broker, server_id: str
) -> None:
    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:
        server.register_function(lambda: "closed remotely", name="close")
        server.register_function(lambda: "set remotely", name="set_timeout")
        server.start()
        results: list[Any] = []
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            assert proxy["close"]() == "closed remotely"
            assert proxy["testclass.adder_function"](1, 2) == 3
            assert proxy.set_timeout(60)("close") == "closed remotely"
            uid = proxy.callback(results.append)("set_timeout")
            while proxy.get_callback_state(uid) != 2:
                pass
            assert not proxy.closed
    assert results == ["set remotely"]


def test_no_private_name_reaches_the_server(proxy: QAMProxy, service: Service) -> None:
    for remote in (proxy, proxy.add, proxy.callback(print), proxy.set_timeout(1)):
        with pytest.raises(AttributeError, match="private"):
            remote._private  # noqa: B018
        assert not hasattr(remote, "__wrapped__")
        assert inspect.unwrap(remote) is remote
    with pytest.raises(AttributeError, match="private"):
        proxy["testclass._private"]
    with pytest.raises(TypeError, match="str"):
        proxy[0]  # type: ignore[index]
    with pytest.raises(TypeError):
        list(proxy)
    with pytest.raises(TypeError, match="copied"):
        copy.copy(proxy)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(proxy)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(proxy.add)
    assert repr(copy.copy(proxy.add)) == repr(proxy.add)
    assert service.runs == []


def test_reprs_say_what_something_is(proxy: QAMProxy, server_id: str) -> None:
    assert "open QAMProxy" in repr(proxy)
    assert server_id in repr(proxy)
    assert repr(proxy.testclass.adder_function) == "<remote method testclass.adder_function>"
    assert "timeout of 5 seconds" in repr(proxy.set_timeout(5))
    assert "callback" in repr(proxy.callback(print))


# --- closing ---------------------------------------------------------------------------


def test_a_closed_proxy_refuses_calls(proxy: QAMProxy) -> None:
    proxy.close()
    proxy.close()
    assert proxy.closed
    assert "closed QAMProxy" in repr(proxy)
    for call in (proxy.add, proxy.callback(print).add, proxy.set_timeout(5).add):
        with pytest.raises(QAMClosedException) as raised:
            call(2, 3)
        assert raised.value.executed == "no"


def test_close_ends_what_waits(proxy: QAMProxy, service: Service) -> None:
    # given a sync call and a callback that wait
    outcomes: list[Any] = []

    def call() -> None:
        try:
            proxy.hold("sync")
        except QAMClosedException as error:
            outcomes.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    uid = proxy.callback(outcomes.append, outcomes.append).hold("callback")
    while len(service.runs) < 2:
        time.sleep(0.001)
    # when
    proxy.close()
    caller.join(20)
    # then
    assert [type(outcome) for outcome in outcomes] == [QAMClosedException] * 2
    assert {outcome.executed for outcome in outcomes} == {"unknown"}
    assert proxy.get_callback_state(uid) == 2
    service.go_on.set()


def test_a_callback_may_close_the_proxy(proxy: QAMProxy) -> None:
    closed = threading.Event()

    def close(result: Any) -> None:
        proxy.close()
        closed.set()

    proxy.callback(close).add(1, 1)
    assert closed.wait(20)
    assert proxy.closed


#: What runs in the thread that closes a proxy; what wakes the owner of a connection is apart.
CLOSING = [
    f"/{name}.py"
    for name in (
        *("qam_proxy", "_client/proxy_threads", "_client/publisher_thread"),
        *("_client/method_queue", "_client/result_list"),
        *("callback_observer_thread", "ready_callbacks", "job_queue", "bell", "connection_thread"),
    )
]


def test_ctrl_c_at_any_moment_of_close_leaves_what_a_second_close_ends(server_id: str) -> None:
    # given a server that does not answer
    place = f"memory://{server_id}"
    make_server(Service(), server_id=server_id, hostname=place)
    struck: list[str] = []
    while not struck or struck[-1]:
        # and a proxy with a call and a callback that wait
        proxy = QAMProxy(server_id, place)
        outcomes: list[Any] = []
        caller = threading.Thread(target=call_and_note, args=(proxy, outcomes), daemon=True)
        caller.start()
        proxy.callback(outcomes.append, outcomes.append).add(3, 4)
        until(lambda proxy=proxy: proxy._results.open_calls == 2)
        until(partial(has_sent_all, proxy))  # so that each close has the same steps
        # when
        struck.append(interrupted_at(len(struck) + 1, proxy.close, *CLOSING))
        # then the end of the interpreter would end what still runs
        threads = [proxy.consumer_thread, proxy.publisher_thread, proxy.callback_observer_thread]
        running = [thread for thread in threads if thread.is_alive()]
        assert running == [] or proxy in qam_proxy._open_proxies
        # when
        proxy.close()
        # then
        assert not any(thread.is_alive() for thread in threads)
        caller.join(LONG)
        assert [type(outcome) for outcome in outcomes] == [QAMClosedException] * 2
        assert proxy not in qam_proxy._open_proxies
    steps = {"QAMProxy.close", "ProxyThreads.begin_to_close", "QAMProxy._finish_closing"}
    assert steps < set(struck)


def has_sent_all(proxy: QAMProxy) -> bool:
    publisher = proxy.publisher_thread
    return publisher.queued_calls == 0 and publisher._under_way.in_flight == 0


def call_and_note(proxy: QAMProxy, outcomes: list[Any]) -> None:
    try:
        outcomes.append(proxy.add(1, 2))
    except QAMException as error:
        outcomes.append(error)


def test_close_of_several_threads_returns_in_each_when_all_is_over(
    proxy: QAMProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qam_proxy, "_CLOSE_TIMEOUT", LONG)
    # given a callback that is executed while threads close the proxy
    entered, leave = threading.Event(), threading.Event()
    over: list[bool] = []

    def execute(result: Any) -> None:
        entered.set()
        leave.wait(LONG)

    def close() -> None:
        proxy.close()
        over.append(leave.is_set() and not proxy.callback_observer_thread.is_alive())

    proxy.callback(execute).add(1, 2)
    assert entered.wait(LONG)
    threads = [threading.Thread(target=close) for _ in range(3)]
    for thread in threads:
        thread.start()
    # when
    until(lambda: not proxy.callback_observer_thread.is_alive())
    assert over == []
    leave.set()
    # then
    for thread in threads:
        thread.join(LONG)
    assert over == [True] * 3


def test_callbacks_that_close_the_proxy_at_once_do_not_wait_for_each_other(
    proxy: QAMProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qam_proxy, "_CLOSE_TIMEOUT", LONG)
    together = threading.Barrier(3)
    seconds: list[float] = []

    def close(result: Any) -> None:
        together.wait(LONG)
        began = time.monotonic()
        proxy.close()
        seconds.append(time.monotonic() - began)

    for _ in range(3):
        proxy.callback(close).add(1, 2)
    until(lambda: len(seconds) == 3)
    assert max(seconds) < LONG


def test_an_idle_proxy_that_is_dropped_takes_its_threads_along(
    broker: Broker, server_id: str, service: Service
) -> None:
    # given
    proxy = QAMProxy(server_id, timeout=60, **broker.kwargs)
    done = threading.Event()
    proxy.callback(lambda result: done.set()).add(1, 2)
    assert done.wait(20)
    threads = [proxy.consumer_thread, proxy.publisher_thread, proxy.callback_observer_thread]
    while proxy.get_num_waiting_callbacks():
        pass
    alive = weakref.ref(proxy)
    # when
    del proxy
    gc.collect()
    # then
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert alive() is None


def test_a_proxy_with_a_callback_outstanding_is_kept_alive(
    broker: Broker, server_id: str, service: Service
) -> None:
    results: list[Any] = []
    done = threading.Event()
    proxy = QAMProxy(server_id, timeout=60, **broker.kwargs)
    proxy.callback(lambda result: (results.append(result), done.set())).hold("kept")
    assert service.holding.wait(20)
    # when
    del proxy
    gc.collect()
    service.go_on.set()
    # then
    assert done.wait(20)
    assert results == ["kept"]


def test_a_dead_internal_thread_fails_the_calls_and_hangs_nothing(
    proxy: QAMProxy, service: Service
) -> None:
    # given a bug in the thread that receives
    class Bug(Exception):
        pass

    def broken(delivery: Any) -> None:
        raise Bug("planted")

    proxy.consumer_thread._receive = broken  # type: ignore[method-assign]
    # when
    with pytest.raises(QAMClosedException, match="planted") as raised:
        proxy.add(1, 2)
    # then
    assert isinstance(raised.value.__cause__, Bug)
    assert raised.value.executed == "unknown"
    with pytest.raises(QAMClosedException, match="planted"):
        proxy.add(1, 2)


@pytest.mark.parametrize("thread", ["consumer_thread", "publisher_thread"])
def test_a_thread_that_is_ended_by_its_exit_ends_the_calls(
    proxy: QAMProxy, service: Service, thread: str
) -> None:
    errors: list[Exception] = []
    uid = proxy.callback(len, errors.append).hold()
    assert service.holding.wait(20)
    # when
    getattr(proxy, thread).exit()
    # then
    while proxy.get_callback_state(uid) != 2:
        pass
    assert [type(error) for error in errors] == [QAMClosedException]
    with pytest.raises(QAMClosedException):
        proxy.add(1, 2)


def test_a_batch_of_calls_that_timed_out_holds_up_none_behind_it(
    broker: Broker, server_id: str, service: Service
) -> None:
    with QAMProxy(server_id, **broker.kwargs) as proxy:
        # given more calls than a batch that timed out while nothing could be sent
        publisher = proxy.publisher_thread
        publisher._blocked = True
        errors: list[Exception] = []
        behind: list[int] = []
        dead = [proxy.callback(len, errors.append).set_timeout(0.05).add(n, 0) for n in range(1500)]
        alive = [proxy.callback(behind.append).add(n, 0) for n in range(2000)]
        for uid in dead:
            while proxy.get_callback_state(uid) != 2:
                time.sleep(0.001)
        # when
        publisher._blocked = False
        publisher.wake()
        # then
        for uid in alive:
            while proxy.get_callback_state(uid) != 2:
                time.sleep(0.001)
    assert sorted(behind) == list(range(2000))
    assert len(errors) == 1500


def test_a_reply_that_came_just_before_its_queue_was_deleted_is_a_reply(proxy: QAMProxy) -> None:
    # given
    consumer = proxy.consumer_thread
    id, call_id = consumer.get_free_result_list_id(), consumer._results.new_call_id()
    consumer._results.begin(PendingCall(id, call_id))
    serializer = get_serializer("pickle")
    about = properties(serializer, correlation_id=f"{consumer.client_id}:{call_id}")
    reply = Delivery(serializer.encode({"id": call_id, "result": 5}), 1, properties=about)
    # when
    with pytest.raises(QAMConnectionException, match="was deleted"):
        consumer._on_events([reply, Cancelled("consumer")])
    # then
    assert consumer.get_result(id) == 5


@pytest.mark.parametrize(
    ("open_calls", "seconds"), [(0, 0), (1, 0), (99, 0), (1_000, 0.002), (1_000_000, 0.005)]
)
def test_replies_wait_for_others_only_where_many_calls_are_open(
    proxy: QAMProxy, monkeypatch: pytest.MonkeyPatch, open_calls: int, seconds: float
) -> None:
    monkeypatch.setattr(ResultList, "open_calls", open_calls)

    assert proxy.consumer_thread._read_delay() == pytest.approx(seconds)


def test_get_result_of_a_slot_that_is_free_is_an_error(proxy: QAMProxy) -> None:
    consumer = proxy.consumer_thread
    id = consumer.get_free_result_list_id()
    consumer.free_result_item(id)
    with pytest.raises(ValueError, match="free"):
        consumer.get_result(id)


def test_close_ends_a_wait_for_a_slot_without_a_message(proxy: QAMProxy) -> None:
    consumer = proxy.consumer_thread
    id = consumer.get_free_result_list_id()
    closing = threading.Thread(target=proxy.close)
    closing.start()
    with pytest.raises(QAMClosedException):
        consumer.get_result(id)
    closing.join()


def test_a_call_in_a_thread_of_the_proxy_itself_raises(proxy: QAMProxy) -> None:
    # given a finalizer, or the like, that calls while the proxy receives
    errors: list[Exception] = []
    receive = proxy.consumer_thread._receive

    def call_and_receive(delivery: Any) -> Any:
        if not errors:
            try:
                proxy.add(1, 1)
            except QAMException as error:
                errors.append(error)
        return receive(delivery)

    proxy.consumer_thread._receive = call_and_receive  # type: ignore[method-assign]
    # when
    assert proxy.add(1, 2) == 3
    # then
    assert "use a callback" in str(errors[0])


def test_keyword_calls_are_named_by_what_was_called(proxy: QAMProxy, service: Service) -> None:
    errors: list[Exception] = []
    uid = proxy.callback(len, errors.append).set_timeout(0.05).hold(value=1)
    while proxy.get_callback_state(uid) != 2:
        pass
    assert "hold() timed out" in str(errors[0])
    service.go_on.set()


def test_an_exception_of_a_class_that_only_the_server_has_arrives_as_remote_exception(
    broker: Broker, server_id: str
) -> None:
    # given a module that the client does not have
    module = types.ModuleType("only_at_the_server")
    exec("class Boom(Exception): pass", {"__name__": module.__name__}, module.__dict__)
    sys.modules[module.__name__] = module

    def boom() -> None:
        raise module.Boom("why")

    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:
        server.register_function(boom)
        server.register_function(lambda: module.Boom("as a result"), "result")
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            consumer = proxy.consumer_thread
            decode = consumer._decode

            def decode_elsewhere(delivery: Any) -> Any:
                del sys.modules[module.__name__]
                try:
                    return decode(delivery)
                finally:
                    sys.modules[module.__name__] = module

            consumer._decode = decode_elsewhere  # type: ignore[method-assign]
            # when
            with pytest.raises(RemoteException) as raised:
                proxy.boom()
            with pytest.raises(QAMSerializationException, match="Boom") as unknown:
                proxy.result()
    del sys.modules[module.__name__]
    # then
    assert raised.value.type_name == "only_at_the_server.Boom"
    assert raised.value.text == "why"
    assert unknown.value.executed == "yes"


# --- the broker can't be reached ---------------------------------------------------------


@pytest.mark.rabbitmq
class TestWithoutAConnection:
    @pytest.fixture
    def node(self, rabbitmq_node: Any) -> Any:
        return rabbitmq_node

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"password": "wrong"}, "password"),
            ({"username": "nobody"}, "nobody"),
            ({"vhost": "nowhere"}, "'nowhere'"),
            ({"hostname": "no-such-host.invalid"}, "unknown"),
            ({"port": 1}, "nothing listens"),
        ],
        ids=str,
    )
    def test_the_constructor_says_where_and_why(
        self, node: Any, server_id: str, wrong: dict[str, Any], words: str
    ) -> None:
        place = {"hostname": node.host, "port": node.port} | wrong
        with pytest.raises(QAMConnectionException, match=words) as raised:
            QAMProxy(server_id, **place)
        text = str(raised.value)
        assert str(place["hostname"]) in text
        assert str(place["port"]) in text
        assert wrong.get("vhost", "/") in text
        assert wrong.get("password", "no such word") not in text
        assert raised.value.executed == "no"
        assert raised.value.__cause__ is not None


def test_an_interrupted_call_is_not_sent_later(
    proxy: QAMProxy, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a call that waits to be sent
    publisher = proxy.publisher_thread
    publisher._blocked = True

    def interrupted(slot_id: int, deadline: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(proxy._results, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            proxy.add("never", "!")
    # when
    publisher._blocked = False
    publisher.wake()
    # then
    assert proxy.add("later", "!") == "later!"
    assert service.runs == [("later", "!")]


def test_a_wake_for_one_that_gave_up_is_passed_on(broker: Broker, server_id: str) -> None:
    # given two that wait for room in a full queue, the first not for long
    make_server(Service(), server_id=server_id, **broker.kwargs)
    with QAMProxy(server_id, max_queued=1, **broker.kwargs) as proxy:
        publisher = proxy.publisher_thread
        publisher._blocked = True
        proxy.callback(len, len).add(1, 2)  # type: ignore[arg-type]
        errors: list[Exception] = []

        def call(timeout: float) -> None:
            try:
                proxy.set_timeout(timeout).add(3, 4)
            except QAMException as error:
                errors.append(error)

        threads = [threading.Thread(target=call, args=(timeout,)) for timeout in (0.3, 60)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda number=number: len(publisher._queue._room._waiters) == number)  # type: ignore[attr-defined]
        with publisher._queue._lock:
            time.sleep(1.0)  # the first has given up; it can't say so before we let go
            # when there is room, and the wake goes to that one
            publisher.method_queue.clear()
            publisher._queue._room.notify()
        # then the second takes it
        threads[0].join(20)
        wait_until(lambda: len(publisher.method_queue) == 1)
        assert [type(error) for error in errors] == [QAMTimeoutException]
        proxy.close()
        threads[1].join(20)


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_calls_that_wait_for_room_end_with_any_thread_of_the_proxy(
    server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"memory://{server_id}"
    errors: list[BaseException] = []

    def call(proxy: QAMProxy) -> None:
        try:
            proxy.add(1, 2)
        except QAMClosedException as error:
            errors.append(error)

    def die(connection: Any) -> None:
        raise ValueError("planted")

    with (
        QAMServer(place, server_id=server_id),
        QAMProxy(server_id, place, max_queued=1) as proxy,
    ):
        # given calls of which one is queued, and the others wait for room
        proxy.publisher_thread._blocked = True
        threads = [threading.Thread(target=call, args=(proxy,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(proxy.publisher_thread._queue._room._waiters) == 2)  # type: ignore[attr-defined]
        # when
        proxy.consumer_thread._write = die  # type: ignore[method-assign]
        proxy.consumer_thread.wake()
        # then
        for thread in threads:
            thread.join(20)
        assert len(errors) == 3


class Finalized(dict[str, int]):
    """Says when nobody has it any more, and whether a lock of the proxy is held then."""

    def __init__(self, proxy: QAMProxy, said: list[bool]) -> None:
        super().__init__(a=1)
        self.proxy, self.said = proxy, said

    def __reduce__(self) -> Any:
        return OrderedDict, ()

    def __del__(self) -> None:
        self.said.append(self.proxy._results.is_in_use_here)


def test_arguments_are_finalized_under_no_lock_of_the_proxy(proxy: QAMProxy) -> None:
    said: list[bool] = []

    proxy.callback(len).echo(Finalized(proxy, said))
    proxy.echo(Finalized(proxy, said))

    until(lambda: len(said) == 2)
    assert said == [False, False]


def test_callbacks_that_found_no_room_do_not_make_any(server_id: str) -> None:
    place = f"memory://{server_id}"
    errors: list[Exception] = []
    with (
        QAMServer(place, server_id=server_id),
        QAMProxy(server_id, place, max_queued=2) as proxy,
    ):
        proxy.publisher_thread._blocked = True
        for _ in range(5):
            proxy.callback(print, errors.append).set_timeout(0.05).add(1, 2)
        # when all of them have failed, and their time is up
        until(lambda: len(errors) == 5)
        until(lambda: not proxy.get_num_waiting_callbacks())
        # then
        assert proxy.publisher_thread._queue._withdrawn <= len(proxy.publisher_thread.method_queue)


def test_a_call_in_the_middle_of_a_section_of_the_proxy_is_refused(proxy: QAMProxy) -> None:
    """As by a finalizer or a signal handler, which would wait for its own thread."""
    publisher, consumer = proxy.publisher_thread, proxy.consumer_thread
    locks = [
        proxy._results._lock,
        publisher._queue._lock,
        publisher._loan.in_use,
        consumer._loan.in_use,
    ]
    for lock in (*locks, publisher._waker._lock, consumer._waker._lock):
        with lock, pytest.raises(QAMException, match="use a callback") as raised:
            proxy.add(1, 2)
        assert raised.value.executed == "no"
    assert proxy.add(1, 2) == 3


def test_the_log_is_waited_for_once_however_many_proxies_are_open_at_the_end(
    server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    flushed: list[bool] = []
    monkeypatch.setattr(qam_proxy, "flush_logs", lambda: flushed.append(True))
    proxies = [QAMProxy(server_id, f"memory://{server_id}") for _ in range(3)]

    # when
    qam_proxy._close_open_proxies()

    # then
    assert all(proxy.closed for proxy in proxies)
    assert flushed == [True]


def test_the_waits_of_close_for_threads_and_for_the_log_are_five_seconds_together() -> None:
    assert qam_proxy._CLOSE_TIMEOUT + logs.FLUSH_TIMEOUT == 5.0


def test_a_proxy_whose_last_thread_can_not_start_leaves_none_behind(
    server_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(qam_proxy.CallbackObserverThread, "start", start, raising=False)
    with (
        QAMServer(f"memory://{server_id}", server_id=server_id),
        pytest.raises(RuntimeError, match="can't start"),
    ):
        QAMProxy(server_id, f"memory://{server_id}")
    assert not [each for each in threading.enumerate() if each.name.startswith("qam Publisher")]
