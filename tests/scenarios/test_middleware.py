"""Functions around the methods of a server: authorization, notes, caches."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from qam import CurrentCall, MultiCall, QAMProxy, QAMServer, current_call, ping, with_options
from qam.exceptions import QAMMethodNotFoundException
from tests.conftest import Broker

LONG = 60.0
session: ContextVar[str] = ContextVar("session", default="none")


def test_what_they_return_or_raise_is_what_the_caller_gets(broker: Broker, server_id: str) -> None:
    ran: list[Any] = []

    def guard(call: CurrentCall, proceed: Callable[[], Any]) -> Any:
        assert call == current_call()
        if call.metadata.get("token") != "right":
            raise PermissionError(f"{call.client_id} may not call {call.method}")
        return proceed()

    def doubling(call: CurrentCall, proceed: Callable[[], Any]) -> Any:
        try:
            return 2 * proceed()
        except ZeroDivisionError:
            return None

    options: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with (
        QAMServer(middleware=[guard, doubling], **options) as server,
        QAMProxy(client_id="label", timeout=LONG, **options) as proxy,
    ):

        @server.register_function
        def divide(a: float, b: float = 1) -> float:
            ran.append((a, b))
            return a / b

        server.start()
        # when one has the token, and one has not
        friend = with_options(proxy, metadata={"token": "right"})
        assert friend.divide(6, 3) == 4
        assert friend.divide(6, b=2) == 6
        assert friend.divide(6, 0) is None
        for wrong in (proxy.divide, with_options(proxy, metadata={"token": "wrong"}).divide):
            with pytest.raises(PermissionError, match="label may not call divide"):
                wrong(8, 4)
            with pytest.raises(PermissionError, match="label may not call divide"):
                wrong(8, b=4)
        # then no method has run without it
        assert ran == [(6, 3), (6, 2), (6, 0)]


def test_each_call_of_a_multicall_is_asked_about(broker: Broker, server_id: str) -> None:
    def guard(call: CurrentCall, proceed: Callable[[], Any]) -> Any:
        if call.method == "secret":
            raise PermissionError("no")
        return proceed()

    options: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with (
        QAMServer(middleware=[guard], **options) as server,
        QAMProxy(timeout=LONG, **options) as proxy,
    ):
        server.register_function(lambda: "open", "plain")
        server.register_function(lambda: "opened", "secret")
        server.start()
        calls = MultiCall(proxy)
        calls.plain()
        calls.secret()
        results = calls()
        assert results[0] == "open"
        with pytest.raises(PermissionError):
            results[1]


def test_what_is_not_registered_is_not_their_business(broker: Broker, server_id: str) -> None:
    asked: list[str] = []

    def refuse(call: CurrentCall, proceed: Callable[[], Any]) -> None:
        asked.append(call.method)
        raise PermissionError

    options: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with (
        QAMServer(middleware=[refuse], **options) as server,
        QAMProxy(timeout=LONG, **options) as proxy,
    ):
        server.register_function(lambda: None, "known")
        server.start()
        assert ping(proxy, timeout=LONG) >= 0
        for unknown in (proxy.unknown, proxy["system.unknown"]):
            with pytest.raises(QAMMethodNotFoundException):
                unknown()
            with pytest.raises(QAMMethodNotFoundException):
                unknown(by="name")
        assert asked == []
        with pytest.raises(PermissionError):
            proxy.known()


def test_what_they_set_is_there_in_the_method_and_in_no_other_call(
    broker: Broker, server_id: str
) -> None:
    def open_session(call: CurrentCall, proceed: Callable[[], Any]) -> Any:
        token = session.set(call.metadata.get("session", "none"))
        try:
            return proceed()
        finally:
            session.reset(token)

    options: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with (
        QAMServer(middleware=[open_session], max_workers=1, **options) as server,
        QAMProxy(timeout=LONG, **options) as proxy,
    ):
        server.register_function(session.get, "session")
        server.start()
        assert with_options(proxy, metadata={"session": "s1"}).session() == "s1"
        assert proxy.session() == "none"


def test_a_wrong_one_is_told_at_once(server_id: str) -> None:
    with pytest.raises(TypeError, match="middleware"):
        QAMServer(f"memory://{server_id}", middleware=[5])  # type: ignore[list-item]
