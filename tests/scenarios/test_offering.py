"""What a server offers: what is marked, modules, and what is looked up when it is called."""

import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import qam
from qam import CurrentCall, QAMMethodNotFoundException, QAMProxy, QAMServer
from tests.conftest import Broker

LONG = 60.0


@pytest.fixture
def asked() -> list[str]:
    """The names about which the server was asked."""
    return []


@pytest.fixture
def server(broker: Broker, server_id: str, asked: list[str]) -> Iterator[QAMServer]:
    def note(call: CurrentCall, proceed: Callable[[], Any]) -> Any:
        asked.append(call.method)
        return proceed()

    with QAMServer(server_id=server_id, middleware=[note], **broker.kwargs) as server:
        server.start()
        yield server


@pytest.fixture
def proxy(broker: Broker, server_id: str, server: QAMServer) -> Iterator[QAMProxy]:
    with QAMProxy(server_id, timeout=LONG, **broker.kwargs) as proxy:
        yield proxy


class Shop:
    @qam.expose
    def price(self, number: int) -> int:
        return 3 * number

    def close(self) -> None:
        """Not for clients."""


def test_only_what_is_marked_can_be_called(server: QAMServer, proxy: QAMProxy) -> None:
    server.register_class(Shop(), "shop")
    assert proxy.shop.price(2) == 6
    with pytest.raises(QAMMethodNotFoundException):
        proxy.shop.close()


def test_functions_of_a_module_are_called_by_their_names(
    server: QAMServer, proxy: QAMProxy
) -> None:
    module = types.ModuleType("functions")
    exec("def add(a, b=0): return a + b\ndef _private(): pass", vars(module))
    server.register_module(module)
    assert proxy.add(2, b=3) == 5


def test_what_can_be_reached_is_called_and_what_cant_is_not_found(
    server: QAMServer, proxy: QAMProxy, asked: list[str]
) -> None:
    tools: Any = types.SimpleNamespace(number=5)
    server.register_class(tools, "tools", dynamic=True)
    with pytest.raises(QAMMethodNotFoundException) as raised:
        proxy.tools.shop.price(2)
    assert raised.value.executed == "no"
    tools.shop = Shop()
    assert proxy.tools.shop.price(2) == 6
    assert proxy.tools.shop.price(number=3) == 9
    for wrong in (proxy.tools.number, proxy.tools.shop.missing, proxy.tools.shop.price.missing):
        with pytest.raises(QAMMethodNotFoundException):
            wrong()
    # and middleware is asked before anything is looked up
    assert asked[:2] == ["tools.shop.price", "tools.shop.price"]
    assert "tools.number" in asked


def test_what_such_a_method_raises_is_the_error_of_the_method(
    server: QAMServer, proxy: QAMProxy
) -> None:
    tools = types.SimpleNamespace(read=lambda: [].missing)  # type: ignore[attr-defined]
    server.register_class(tools, "tools", dynamic=True)
    with pytest.raises(AttributeError, match="missing"):
        proxy.tools.read()
