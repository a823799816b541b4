"""Every documented name can be imported by its documented path, and says that path itself."""

import importlib
import inspect
import pickle
from typing import Any

import pytest

#: Module by module, what was there before the code moved into packages.
NAMES = {
    "qam": [
        "AMQPCredentials",
        "Callback",
        "CallbackObserverThread",
        "ConsumerThread",
        "ExecuteCallbackThread",
        "PublisherThread",
        "QAMClosedException",
        "QAMConnectionException",
        "QAMException",
        "QAMMethodNotFoundException",
        "QAMProxy",
        "QAMSerializationException",
        "QAMServer",
        "QAMServerLostException",
        "QAMServerNotFoundException",
        "QAMTimeoutException",
        "RemoteException",
        "SynchronTimeout",
        "__version__",
        "trust",
    ],
    "qam.__main__": ["main"],
    "qam.amqp_credentials": ["AMQPCredentials", "HEARTBEAT"],
    "qam.exceptions": [
        "Executed",
        "QAMClosedException",
        "QAMConnectionException",
        "QAMException",
        "QAMMethodNotFoundException",
        "QAMSerializationException",
        "QAMServerLostException",
        "QAMServerNotFoundException",
        "QAMTimeoutException",
        "RemoteException",
    ],
    "qam.qam_proxy": [
        "Callback",
        "CallbackObserverThread",
        "ConsumerThread",
        "ExecuteCallbackThread",
        "PublisherThread",
        "QAMException",
        "QAMMEthodNotFoundException",
        "QAMMethodNotFoundException",
        "QAMProxy",
        "QAMTimeoutException",
        "SynchronTimeout",
        "_Method",
    ],
    "qam.qam_server": ["ExecuteMethodThread", "PublisherThread", "QAMServer"],
}
#: Where a name is offered twice, the module that it says it is from.
HOME = {
    "QAMMEthodNotFoundException": "qam.exceptions",
    **dict.fromkeys(NAMES["qam.exceptions"], "qam.exceptions"),
    **dict.fromkeys(["QAMServer", "ExecuteMethodThread"], "qam.qam_server"),
    "AMQPCredentials": "qam.amqp_credentials",
    "trust": "qam",
}

ALL = [(module, name) for module, names in NAMES.items() for name in names]


def found(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("module", "name"), ALL)
def test_a_documented_name_is_where_it_always_was(module: str, name: str) -> None:
    assert found(module, name) is not None


def is_made_by_us(thing: Any) -> bool:
    return inspect.isclass(thing) or inspect.isfunction(thing)


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, n in ALL if is_made_by_us(found(m, n))])
def test_what_has_a_name_says_its_documented_path(module: str, name: str) -> None:
    thing = found(module, name)

    # PublisherThread is the name of two: of a proxy's and of a server's.
    server = module == "qam.qam_server"
    home = HOME.get(name, "qam.qam_server" if server else "qam.qam_proxy")
    assert thing.__module__ == ("qam.__main__" if name == "main" else home)
    assert getattr(importlib.import_module(thing.__module__), thing.__qualname__) is thing
    assert pickle.loads(pickle.dumps(thing)) is thing


@pytest.mark.parametrize("name", ["ConsumerThread", "ExecuteCallbackThread", "PublisherThread"])
def test_a_thread_shows_as_part_of_the_module_that_offers_it(name: str) -> None:
    thread = found("qam.qam_proxy", name)

    assert repr(thread) == f"<class 'qam.qam_proxy.{name}'>"
    # a debugger finds the code of its methods, wherever that is
    assert "def run(" in inspect.getsource(thread.run)
