"""What stands between a proxy and its remote methods: timeouts and callbacks, in any order."""

from collections.abc import Iterator
from typing import Any

import pytest

from qam import QAMProxy, QAMServer, QAMTimeoutException
from tests.support.waiting import finish, until

LONG = 60.0


class Hidden:
    """Methods whose names an attribute of a proxy has."""

    def callback(self, value: Any = None) -> str:
        return f"remote callback of {value!r}"

    def getdoc(self) -> str:
        return "remote getdoc"


@pytest.fixture
def proxy(server_id: str) -> Iterator[QAMProxy]:
    url = f"memory://{server_id}"
    with QAMServer(url, server_id=server_id) as server, QAMProxy(server_id, url) as proxy:
        server.register_function(lambda a, b: a + b, "add")
        server.register_function(Hidden().callback, "callback")
        server.register_function(Hidden().getdoc, "getdoc")
        server.register_class(Hidden(), "hidden")
        server.start()
        yield proxy


def test_a_timeout_may_come_before_the_callback(proxy: QAMProxy) -> None:
    results: list[Any] = []
    callback = proxy.set_timeout(LONG).callback(results.append)
    uid = callback.add(2, 3)
    until(lambda: proxy.get_callback_state(uid) == 2)
    assert results == [5]
    assert callback._options.timeout == LONG


def test_an_error_function_and_a_timeout_that_passes_too(server_id: str) -> None:
    url, errors = f"memory://{server_id}", list[Any]()
    with QAMServer(url, server_id=server_id), QAMProxy(server_id, url) as waiting:
        waiting.set_timeout(0.01).callback(print, errors.append).add(1, 2)
        finish(waiting)
    assert isinstance(errors[0], QAMTimeoutException)


def test_the_last_timeout_counts(proxy: QAMProxy) -> None:
    assert proxy.set_timeout(0.000001).set_timeout(LONG).add(1, 2) == 3


def test_none_is_no_timeout(proxy: QAMProxy, server_id: str) -> None:
    with QAMProxy(server_id, f"memory://{server_id}", timeout=1e-9) as hasty:
        assert hasty.set_timeout(None).add(1, 2) == 3
        assert "no timeout" in repr(hasty.set_timeout(None))
        results: list[Any] = []
        hasty.callback(results.append).set_timeout(None).add(3, 4)
        finish(hasty)
    assert results == [7]


def test_a_callback_may_ignore_the_result(proxy: QAMProxy) -> None:
    errors: list[Any] = []
    proxy.callback(None, errors.append).add(1, 2)
    proxy.callback(None, errors.append).add(1, "text")
    finish(proxy)
    assert [type(each) for each in errors] == [TypeError]


@pytest.mark.parametrize("wrong", [1, "text", True])
def test_anything_else_is_no_function(proxy: QAMProxy, wrong: Any) -> None:
    with pytest.raises(TypeError, match="callback_method"):
        proxy.callback(wrong)
    with pytest.raises(TypeError, match="callback_method"):
        proxy.set_timeout(1).callback(wrong)


def chain(proxy: QAMProxy) -> list[Any]:
    return [proxy, proxy.set_timeout(LONG), proxy.callback(print), proxy.hidden]


def test_a_notebook_that_asks_for_help_calls_no_server(proxy: QAMProxy) -> None:
    for each in chain(proxy):
        assert not hasattr(each, "getdoc")


def test_remote_methods_of_hidden_names_are_reached_by_an_index(proxy: QAMProxy) -> None:
    assert proxy["getdoc"]() == proxy.set_timeout(LONG)["getdoc"]() == "remote getdoc"
    assert proxy.set_timeout(LONG)["callback"](1) == "remote callback of 1"
    assert proxy.hidden.callback(2) == "remote callback of 2"


# Names of parameters on the way of a call through this library.
NAMES = [
    *("self", "cls", "args", "kwargs", "name", "method", "method_name", "params", "id", "call"),
    *("client_id", "routing_key", "timeout", "deadline", "callback_method", "exception_method"),
    *("request", "server_id", "func", "function", "body", "uid"),
]


@pytest.mark.parametrize("name", NAMES)
def test_keyword_arguments_may_have_any_name(name: str, server_id: str) -> None:
    url, results = f"memory://{server_id}", list[Any]()
    with QAMServer(url, server_id=server_id) as server:
        server.register_function(lambda **kwargs: kwargs, "keywords")
        server.start()
        with QAMProxy(server_id, url, timeout=LONG) as proxy:
            expected = {name: 1}
            assert proxy.keywords(**expected) == expected
            assert proxy["keywords"](**expected) == expected
            assert proxy.set_timeout(LONG).keywords(**expected) == expected
            assert proxy.set_timeout(LONG)("keywords", **expected) == expected
            proxy.callback(results.append).keywords(**expected)
            proxy.set_timeout(LONG).callback(results.append)("keywords", **expected)
            finish(proxy)

    assert results == [expected, expected]


@pytest.mark.parametrize("name", ["getdoc"])
def test_what_a_notebook_asks_for_is_told_to_be_an_index(proxy: QAMProxy, name: str) -> None:
    for each in chain(proxy):
        with pytest.raises(AttributeError, match=rf"proxy\['{name}'\]"):
            getattr(each, name)
