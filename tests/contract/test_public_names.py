"""Every documented name can be imported by its documented path, and says that path itself."""

import importlib
import inspect
import pickle
from typing import Any

import pytest

from qam import QAMProxy, QAMServer
from qam._protocol.hidden_names import OF_NOTEBOOKS, OF_PROXIES

#: Module by module, what was there before the code moved into packages.
NAMES = {
    "qam": [
        "AMQPCredentials",
        "Callback",
        "CallbackObserverThread",
        "ConsumerThread",
        "CurrentCall",
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
        "current_call",
        "expose",
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
    **dict.fromkeys(["trust", "current_call", "CurrentCall", "expose"], "qam"),
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


# --- names that can't be those of remote methods -----------------------------------------------

#: A public name that is added to one of them hides remote methods of deployed servers.
NAMES_OF_CHAINS = {
    "proxy": [
        *("amqp_credentials", "callback", "callback_observer_thread", "client_id", "close"),
        *("closed", "consumer_thread", "get_callback_state", "get_num_waiting_callbacks"),
        *("publisher_thread", "serializer", "set_timeout"),
    ],
    "set_timeout": ["callback", "set_timeout"],
    "callback": ["set_timeout"],
    "method": [],
}


def public_names(thing: Any) -> list[str]:
    return sorted(name for name in dir(thing) if not name.startswith("_"))


def test_the_names_that_hide_remote_methods_are_these_and_no_others(server_id: str) -> None:
    url = f"memory://{server_id}"
    with QAMServer(url, server_id=server_id), QAMProxy(server_id, url) as proxy:
        chains = {
            "proxy": proxy,
            "set_timeout": proxy.set_timeout(1),
            "callback": proxy.callback(print),
            "method": proxy.add,
        }
        found = {name: public_names(chain) for name, chain in chains.items()}

        assert found == NAMES_OF_CHAINS
        assert set().union(*found.values()) == OF_PROXIES
        for chain in chains.values():
            for name in OF_NOTEBOOKS:
                assert not hasattr(chain, name)


@pytest.mark.parametrize("name", sorted(OF_PROXIES | OF_NOTEBOOKS))
def test_a_remote_method_of_each_such_name_is_reached_as_an_item(name: str, server_id: str) -> None:
    url = f"memory://{server_id}"
    with QAMServer(url, server_id=server_id) as server:
        server.register_function(lambda a, b=0: a + b, name)
        server.start()
        with QAMProxy(server_id, url, timeout=60) as proxy:
            results: list[int] = []
            uid = proxy.callback(results.append)[name](1, b=2)
            while proxy.get_callback_state(uid) != 2:
                pass

            assert proxy[name](2, 3) == proxy.set_timeout(60)[name](2, b=3) == 5
            assert results == [3]
