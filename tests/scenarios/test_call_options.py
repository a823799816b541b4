"""What can be set for calls: `with_options`, metadata, inherited deadlines."""

import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from qam import (
    QAMException,
    QAMProxy,
    QAMServer,
    QAMTimeoutException,
    send,
    submit,
    with_options,
)
from qam._protocol.metadata import metadata_of
from qam._server.call import Call
from qam._server.execute_method_thread import ExecuteMethodThread
from tests.conftest import Broker
from tests.support.service import Service, serving
from tests.support.waiting import finish, until

LONG = 60.0


@pytest.fixture
def came_with(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The metadata of the requests that come to servers of this process."""
    seen: list[dict[str, str]] = []
    read = ExecuteMethodThread._read

    def note(worker: ExecuteMethodThread, call: Call) -> Any:
        seen.append(metadata_of(call.delivery.headers))
        return read(worker, call)

    monkeypatch.setattr(ExecuteMethodThread, "_read", note)
    return seen


def test_the_result_has_remote_names_and_other_options(proxy: QAMProxy) -> None:
    hasty = with_options(proxy, timeout=1e-9)
    with pytest.raises(QAMTimeoutException):
        hasty.hold()
    assert proxy.add(1, 2) == 3, "it is not changed"
    assert with_options(hasty, timeout=None).add(1, 2) == 3
    assert with_options(hasty, metadata={}, timeout=LONG)._options.timeout == LONG
    assert with_options(proxy.set_timeout(LONG), metadata={"a": "b"})._options.timeout == LONG
    assert repr(hasty).startswith("<other options on <open QAMProxy")
    # such as the names that the proxy has itself
    assert repr(hasty.close) == "<remote method close>"


def test_callbacks_have_options_too(proxy: QAMProxy) -> None:
    results: list[Any] = []
    callback = proxy.callback(results.append, results.append)
    with_options(callback, timeout=1e-9).hold()
    with_options(callback, timeout=LONG).add(1, 2)
    until(lambda: len(results) == 2)
    assert 3 in results
    assert any(isinstance(each, QAMTimeoutException) for each in results)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("timeout", "5", TypeError),
        ("timeout", 0, ValueError),
        ("timeout", float("nan"), ValueError),
        ("wait_for_server", True, TypeError),
        ("wait_for_server", -1, ValueError),
        ("inherit_deadline", 1, TypeError),
        ("metadata", ["a"], TypeError),
        ("metadata", {"a": 1}, TypeError),
        ("metadata", {1: "a"}, TypeError),
        ("metadata", {"x-own": "a"}, ValueError),
        ("metadata", {"X-Own": "a"}, ValueError),
        ("metadata", {"": "a"}, ValueError),
        ("metadata", {"n" * 256: "a"}, ValueError),
        ("metadata", {"a": "\udc80"}, ValueError),
        ("metadata", {"a": "x" * 8192}, ValueError),
    ],
    ids=str,
)
def test_a_wrong_value_is_told_at_once_by_its_name(
    server_id: str, option: str, value: Any, error: type[Exception]
) -> None:
    with (
        QAMProxy(server_id, f"memory://{server_id}") as proxy,
        pytest.raises(error, match=option),
    ):
        with_options(proxy, **{option: value})


def test_what_is_no_proxy_is_refused() -> None:
    with pytest.raises(TypeError, match="target must be a proxy, not 5"):
        with_options(5, timeout=1)


# --- metadata -------------------------------------------------------------------


def test_metadata_travels_with_each_kind_of_call(
    broker: Broker, server_id: str, service: Service, came_with: list[dict[str, str]]
) -> None:
    given = {"trace": "a1", "empty": "", "ü": "ß"}
    with QAMProxy(server_id, metadata=given, **broker.kwargs) as proxy:
        given["later"] = "is not seen"
        proxy.add(1, 2)
        proxy.set_timeout(LONG).add(1, 2)
        submit(proxy.add, 1, 2).result(LONG)
        proxy.callback(print).add(1, 2)
        finish(proxy)
        send(proxy.add, 1, 2)
        until(lambda: len(came_with) == 5)
        with_options(proxy, metadata=None).add(1, 2)
        with_options(proxy, metadata={"other": "x"}).add(1, 2)
    assert came_with == [{"trace": "a1", "empty": "", "ü": "ß"}] * 5 + [{}, {"other": "x"}]


def test_a_function_is_asked_for_each_call_in_its_thread(
    broker: Broker, server_id: str, service: Service, came_with: list[dict[str, str]]
) -> None:
    numbers = iter(range(100))
    wrong: list[Any] = [ZeroDivisionError("own"), {"x-a": "b"}]

    def metadata() -> dict[str, str]:
        number = next(numbers)
        if number == 2:
            raise wrong[0]
        return {"number": str(number)} if number < 3 else wrong[1]

    with QAMProxy(server_id, metadata=metadata, **broker.kwargs) as proxy:
        proxy.add(1, 2)
        proxy.add(1, 2)
        with pytest.raises(ZeroDivisionError, match="own"):
            proxy.add(1, 2)
        with pytest.raises(ValueError, match="metadata"):
            submit(proxy.add, 1, 2)
        assert proxy._results.open_calls == 0
    assert came_with == [{"number": "0"}, {"number": "1"}]


# --- inherited deadlines --------------------------------------------------------


@pytest.fixture
def url(server_id: str) -> str:
    return f"memory://{server_id}"


def test_a_call_inside_a_method_has_what_is_left_of_the_outer_one(server_id: str, url: str) -> None:
    errors: list[QAMException] = []
    caller_gave_up = threading.Event()
    absent = QAMServer(url, server_id="absent")
    with (
        absent,
        QAMProxy("absent", url) as inner,
        serving(server_id=server_id, hostname=url) as service,
        QAMServer(url, server_id=f"{server_id}.outer") as server,
        QAMProxy(f"{server_id}.outer", url) as proxy,
    ):

        @server.register_function
        def outer() -> None:
            def submitted() -> None:
                submit(inner.add).result()

            for call in (inner.add, submitted, inner.set_timeout(LONG).add):
                try:
                    call()
                except QAMException as error:
                    errors.append(error)
            assert caller_gave_up.wait(LONG)

        server.start()
        # when
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(1.0).outer()
        caller_gave_up.set()
        # then
        until(lambda: len(errors) == 3)
        assert all(isinstance(error, QAMTimeoutException) for error in errors)
        assert "the time that was left to the caller of outer()" in str(errors[0])
        assert [error.executed for error in errors] == ["unknown", "no", "no"]
        assert "it was not sent" in str(errors[1])
        assert service.runs == []


def test_an_own_timeout_that_is_shorter_counts(server_id: str, url: str) -> None:
    texts: list[str] = []
    with (
        QAMServer(url, server_id="absent"),
        QAMProxy("absent", url) as inner,
        QAMServer(url, server_id=server_id) as server,
        QAMProxy(server_id, url) as proxy,
    ):

        @server.register_function
        def outer() -> None:
            with pytest.raises(QAMTimeoutException) as raised:
                inner.set_timeout(0.01).add()
            texts.append(str(raised.value))

        server.start()
        proxy.set_timeout(LONG).outer()
    [text] = texts
    assert text.startswith("add() timed out after 0.01 s; ")


def test_what_may_outlive_its_method_does_not_inherit(server_id: str, url: str) -> None:
    ended: list[Any] = []
    caller_gave_up = threading.Event()
    with (
        serving(server_id="inner", hostname=url) as service,
        QAMProxy("inner", url) as inner,
        QAMServer(url, server_id=server_id) as server,
        QAMProxy(server_id, url) as proxy,
    ):

        @server.register_function
        def outer() -> None:
            inner.callback(ended.append, ended.append).hold("callback")
            assert service.holding.wait(LONG)
            assert caller_gave_up.wait(LONG)
            send(inner.add, 1, 2)
            ended.append(with_options(inner, inherit_deadline=False).add(3, 4))

        server.start()
        with pytest.raises(QAMTimeoutException):
            proxy.set_timeout(0.5).outer()
        caller_gave_up.set()
        until(lambda: 7 in ended)
        service.go_on.set()
        until(lambda: len(ended) == 2)
        assert ended == [7, "callback"]
        until(lambda: (1, 2) in service.runs)


# --- what can't be set afterwards --------------------------------------------


@pytest.fixture
def idle_proxy() -> Iterator[QAMProxy]:
    """A proxy that never connects."""
    with QAMProxy("nobody", "memory://nobody", connect=False) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", 5), ("timeout", None), ("metadata", {"a": "b"}), ("wait_for_server", 5)],
)
def test_an_option_that_is_assigned_to_a_proxy_is_refused(
    idle_proxy: QAMProxy, name: str, value: object
) -> None:
    with pytest.raises(
        AttributeError, match=rf"{name} can't be set .*with_options\(proxy, {name}=…\)"
    ):
        setattr(idle_proxy, name, value)

    assert f"remote method {name}" in repr(getattr(idle_proxy, name))


def test_a_proxy_may_carry_other_attributes(idle_proxy: QAMProxy) -> None:
    idle_proxy.purpose = "orders"  # type: ignore[attr-defined]

    assert idle_proxy.purpose == "orders"


@pytest.mark.parametrize("name", ["add", "timeout"])
def test_a_remote_method_can_be_patched(idle_proxy: QAMProxy, name: str) -> None:
    with patch.object(idle_proxy, name, return_value=5):
        assert idle_proxy[name] is not getattr(idle_proxy, name)
        assert getattr(idle_proxy, name)(2, 3) == 5

    assert f"remote method {name}" in repr(getattr(idle_proxy, name))


def test_a_subclass_may_have_an_attribute_with_the_name_of_an_option() -> None:
    class Patient(QAMProxy):
        def __init__(self, timeout: float) -> None:
            super().__init__("nobody", "memory://nobody", timeout=timeout, connect=False)
            self.timeout = timeout

    with Patient(5) as proxy:
        assert proxy.timeout == 5
