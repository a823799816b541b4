"""The package against its reference: every documented name, signature and example."""

import importlib.metadata
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import qam
from qam import qam_proxy as module
from qam.amqp_credentials import AMQPCredentials
from qam.qam_proxy import (
    Callback,
    CallbackObserverThread,
    ConsumerThread,
    ExecuteCallbackThread,
    PublisherThread,
    QAMException,
    QAMMethodNotFoundException,
    QAMProxy,
    QAMTimeoutException,
    SynchronTimeout,
    _Method,
)
from tests.conftest import Broker
from tests.support.service import serving

REQUIRED = inspect.Parameter.empty

SIGNATURES = [
    (
        QAMProxy,
        {
            "server_id": REQUIRED,
            "hostname": "localhost",
            "port": 5672,
            "username": "guest",
            "password": "guest",
            "vhost": "/",
            "client_id": None,
            "serializer": "pickle",
            "ssl": False,
        },
    ),
    (QAMProxy.callback, {"callback_method": REQUIRED, "exception_method": None}),
    (QAMProxy.close, {}),
    (QAMProxy.get_callback_state, {"uid": REQUIRED}),
    (QAMProxy.get_num_waiting_callbacks, {}),
    (QAMProxy.set_timeout, {"timeout": REQUIRED}),
    (Callback, {"parent": REQUIRED, "id": REQUIRED, "client_id": REQUIRED}),
    (Callback.set_timeout, {"timeout": REQUIRED}),
    (SynchronTimeout, {"parent": REQUIRED, "client_id": REQUIRED, "timeout": REQUIRED}),
    (CallbackObserverThread, {"parent": REQUIRED}),
    (
        CallbackObserverThread.change_callback_item_state,
        {"uid": REQUIRED, "state": REQUIRED},
    ),
    (CallbackObserverThread.check_timeout, {"uid": REQUIRED, "callback_info": REQUIRED}),
    (CallbackObserverThread.exit, {}),
    (CallbackObserverThread.get_callback_item, {"uid": REQUIRED}),
    (
        CallbackObserverThread.init_waiting_callback_item,
        {"id": REQUIRED, "timeout": REQUIRED},
    ),
    (CallbackObserverThread.remove_callback_item, {"uid": REQUIRED}),
    (CallbackObserverThread.run, {}),
    (
        ConsumerThread,
        {
            "amqp_credentials": REQUIRED,
            "server_id": REQUIRED,
            "client_id": REQUIRED,
            "serializer": REQUIRED,
        },
    ),
    (ConsumerThread.exit, {}),
    (ConsumerThread.free_result_item, {"id": REQUIRED}),
    (
        ConsumerThread.get_free_result_list_id,
        {"callback_method": None, "exception_method": None},
    ),
    (ConsumerThread.get_result, {"id": REQUIRED}),
    (ConsumerThread.get_result_item, {"id": REQUIRED}),
    (ConsumerThread.is_result_received, {"id": REQUIRED}),
    (ConsumerThread.run, {}),
    (
        ExecuteCallbackThread,
        {"parent": REQUIRED, "method": REQUIRED, "params": REQUIRED, "uid": REQUIRED},
    ),
    (ExecuteCallbackThread.run, {}),
    (
        PublisherThread,
        {
            "amqp_credentials": REQUIRED,
            "server_id": REQUIRED,
            "client_id": REQUIRED,
            "serializer": REQUIRED,
        },
    ),
    (PublisherThread.add_message_to_send, {"message": REQUIRED}),
    (PublisherThread.exit, {}),
    (PublisherThread.run, {}),
]


@pytest.mark.parametrize(
    ("documented", "parameters"), SIGNATURES, ids=lambda value: getattr(value, "__qualname__", "")
)
def test_every_documented_signature_is_kept(documented: Any, parameters: dict[str, Any]) -> None:
    actual = {
        name: parameter
        for name, parameter in inspect.signature(documented).parameters.items()
        if name != "self" and parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    }
    assert {name: parameter.default for name, parameter in actual.items()} == parameters
    assert list(actual) == list(parameters)
    kinds = {parameter.kind for parameter in actual.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_what_is_beyond_the_reference_is_keyword_only_and_optional() -> None:
    for documented, parameters in SIGNATURES:
        for name, parameter in inspect.signature(documented).parameters.items():
            if name not in parameters and name != "self":
                assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
                assert parameter.default is not REQUIRED


def test_the_odd_spellings_are_aliases() -> None:
    assert module.QAMMEthodNotFoundException is QAMMethodNotFoundException


def test_the_exceptions_form_the_documented_family() -> None:
    assert issubclass(QAMMethodNotFoundException, QAMException)
    assert issubclass(QAMTimeoutException, QAMException)
    assert issubclass(QAMTimeoutException, TimeoutError)


def test_every_public_name_can_be_imported_from_the_package_and_has_a_docstring() -> None:
    for name in qam.__all__:
        assert getattr(qam, name).__doc__
    for name in module.__all__:
        assert getattr(module, name).__doc__


@pytest.fixture
def proxy(broker: Broker, server_id: str) -> Iterator[QAMProxy]:
    with (
        serving(server_id=server_id, **broker.kwargs),
        QAMProxy(server_id, client_id="qamproxy", timeout=30, **broker.kwargs) as proxy,
    ):
        yield proxy


def test_the_documented_attributes_are_there(proxy: QAMProxy) -> None:
    assert isinstance(proxy.amqp_credentials, AMQPCredentials)
    assert proxy.client_id == "qamproxy"
    assert proxy.serializer == "pickle"
    assert proxy.closed is False
    consumer, publisher = proxy.consumer_thread, proxy.publisher_thread
    observer = proxy.callback_observer_thread
    for thread, kind in (
        (consumer, ConsumerThread),
        (publisher, PublisherThread),
        (observer, CallbackObserverThread),
    ):
        assert isinstance(thread, kind)
        assert isinstance(thread, threading.Thread)
        assert thread.is_alive()
        assert thread.kill is False
    assert consumer.free_index_queue == []
    assert consumer.result_list == []
    assert publisher.method_queue == []
    assert consumer.server_id == publisher.server_id
    assert consumer.client_id == publisher.client_id
    assert consumer.client_id.startswith("qamproxy.")
    assert publisher.amqp_credentials is proxy.amqp_credentials
    assert consumer.amqpconn is not None
    assert consumer.consumer is not None
    assert publisher.publisher is not None
    assert observer.parent is proxy
    assert observer.callback_uid_dict == {}
    assert observer.callback_dickt_lock is observer.callback_dict_lock


def test_the_proxy_hides_no_more_remote_methods_than_documented(proxy: QAMProxy) -> None:
    documented = {
        *("amqp_credentials", "consumer_thread", "publisher_thread", "callback_observer_thread"),
        *("callback", "close", "get_callback_state", "get_num_waiting_callbacks", "set_timeout"),
        *("client_id", "serializer", "closed"),
    }
    assert {name for name in dir(proxy) if not name.startswith("_")} == documented
    of_timeout = {name for name in dir(proxy.set_timeout(1)) if not name.startswith("_")}
    assert of_timeout == {"callback", "set_timeout"}
    callback = proxy.callback(print)
    assert {name for name in dir(callback) if not name.startswith("_")} == {"set_timeout"}
    assert {name for name in dir(proxy.add) if not name.startswith("_")} == set()
    assert isinstance(proxy.add, _Method)


# --- the examples, with print as a function ---------------------------------------


def test_example_calling_a_method_without_callback(broker: Broker, server_id: str) -> None:
    with serving(server_id=server_id, **broker.kwargs):
        qam_proxy = QAMProxy(server_id=server_id, client_id="qamproxy", **broker.kwargs)
        result = qam_proxy.add(2, 3)
        qam_proxy.close()
    assert result == 5


def test_example_calling_a_method_with_callback(
    broker: Broker, server_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(server_id=server_id, **broker.kwargs):
        qam_proxy = QAMProxy(server_id=server_id, client_id="qamproxy", **broker.kwargs)

        def success(arg: Any) -> None:
            print(arg)

        def error(arg: Any) -> None:
            print(arg)

        uid = qam_proxy.callback(success, error).adder_function(2, 4)
        while True:
            state = qam_proxy.get_callback_state(uid)
            if state == 2:
                break
        qam_proxy.close()
    assert isinstance(uid, str)
    assert capsys.readouterr().out == "6\n"


def test_example_calling_a_registered_class(broker: Broker, server_id: str) -> None:
    with serving(server_id=server_id, **broker.kwargs):
        qam_proxy = QAMProxy(server_id=server_id, client_id="qamproxy", **broker.kwargs)
        result = qam_proxy.testclass.adder_function(2, 4)
        qam_proxy.close()
    assert result == 6


# --- the documented low-level way -------------------------------------------------


@pytest.mark.parametrize("label", ["own", "documented"])
def test_a_call_can_be_made_by_slot_and_message(proxy: QAMProxy, label: str) -> None:
    consumer, publisher = proxy.consumer_thread, proxy.publisher_thread
    client_id = consumer.client_id if label == "own" else proxy.client_id
    # when
    id = consumer.get_free_result_list_id()
    slot = consumer.result_list[id]
    assert slot["state"] == ConsumerThread.WAITING
    assert slot["result_message"] is slot["callback_method"] is slot["exception_method"] is None
    publisher.add_message_to_send(
        {
            "id": id,
            "method_name": "add",
            "routing_key": f"{client_id}_client_routing_key",
            "params": [2, 3],
        }
    )
    while not consumer.is_result_received(id):
        pass
    # then
    assert slot["state"] == ConsumerThread.DONE
    item = consumer.get_result_item(id)
    assert (item["result"], item["exception"], item["internal_exception"]) == (5, False, -1)
    assert consumer.get_result(id) == 5
    assert slot["state"] == ConsumerThread.FREE
    assert consumer.free_index_queue == [id]
    consumer.free_result_item(id)
    assert consumer.free_index_queue == [id]


def test_a_message_that_is_sent_is_left_as_it_was(proxy: QAMProxy) -> None:
    id = proxy.consumer_thread.get_free_result_list_id()
    message = {"id": id, "method_name": "add", "routing_key": "nobody", "params": [2, 3]}
    before = dict(message)
    assert proxy.publisher_thread.add_message_to_send(message) is not message
    assert message == before


def test_a_callback_can_be_made_by_slot_item_and_message(proxy: QAMProxy) -> None:
    # given
    consumer, observer = proxy.consumer_thread, proxy.callback_observer_thread
    results, states = [], []

    def success(result: Any) -> None:
        states.append(proxy.get_callback_state(uid))
        results.append(result)

    # when
    id = consumer.get_free_result_list_id(success)
    uid = observer.init_waiting_callback_item(id, None)
    key = f"{proxy.client_id}_client_routing_key"
    message = {"id": id, "method_name": "add", "routing_key": key, "params": [2, 3]}
    proxy.publisher_thread.add_message_to_send(message)
    # then
    while proxy.get_callback_state(uid) != 2:
        pass
    assert (results, states) == ([5], [1])
    assert observer.callback_uid_dict == {}


def test_a_message_for_a_slot_that_nobody_reserved_is_refused(proxy: QAMProxy) -> None:
    message = {"id": 7, "method_name": "add", "routing_key": "", "params": [2, 3]}
    with pytest.raises(ValueError, match="slot 7"):
        proxy.publisher_thread.add_message_to_send(message)
    assert proxy.publisher_thread.method_queue == []


def test_an_execute_callback_thread_executes_its_method_and_finishes_its_uid(
    proxy: QAMProxy,
) -> None:
    # given
    observer, seen = proxy.callback_observer_thread, []
    uid = observer.init_waiting_callback_item(0, None)
    assert observer.get_callback_item(uid)["state"] == 0

    def method(params: Any) -> None:
        seen.append((params, observer.get_callback_item(uid)["state"]))

    # when
    thread = ExecuteCallbackThread(proxy, method, "result", uid)
    assert (thread.parent, thread.params, thread.uid) == (proxy, "result", uid)
    thread.start()
    while proxy.get_callback_state(uid) != 2:
        pass
    # then
    assert seen == [("result", 1)]
    assert uid not in observer.callback_uid_dict


def test_the_state_of_a_callback_item_can_be_changed(proxy: QAMProxy) -> None:
    observer = proxy.callback_observer_thread
    uid = observer.init_waiting_callback_item(3, 10)
    observer.change_callback_item_state(uid, 1)
    assert observer.get_callback_item(uid)["id"] == 3
    assert proxy.get_callback_state(uid) == 1
    observer.remove_callback_item(uid)
    assert proxy.get_callback_state(uid) == 2
    assert observer.get_callback_item(uid)["state"] == 2


def test_the_version_is_that_of_the_installed_package() -> None:
    assert qam.__version__ == importlib.metadata.version("qam")
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        qam.no_such_thing  # noqa: B018
