"""An error that can't travel is told all the same: its type, its text and its traceback."""

import collections
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from qam import QAMProxy, QAMSerializationException, QAMServer, RemoteException
from qam.exceptions import QAMMethodNotFoundException

SERIALIZERS = ["pickle", "json", "msgpack"]


class Order:
    """A class that a client may have no reason to trust."""

    def __init__(self, number: int = 1) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Order({self.number})"


class OrderError(Exception):
    """The plainest of exceptions, with an order in it."""


class DetailedOrderError(Exception):
    """Has its order as an attribute, too."""

    def __init__(self, order: Any) -> None:
        super().__init__(f"order {order.number} failed")
        self.order = order

    def __reduce__(self) -> Any:
        return DetailedOrderError, (self.order,)


class Rows(dict[str, Any]):
    """A dict of the application."""


class Names(list[Any]):
    """A list of the application."""


class Recent(collections.deque[Any]):
    """A deque of the application."""


class Ordered(collections.OrderedDict[str, Any]):
    """An ordered dict of the application."""


TRUSTED = [Order, OrderError, DetailedOrderError, Rows, Names, Recent, Ordered]
ARGUMENTS: dict[str, Any] = {
    "an instance": Order(7),
    "a dict": Rows(a=1, b=2),
    "a list": Names([1, 2]),
    "a deque": Recent([1, 2]),
    "an ordered dict": Ordered(a=1),
    "instances in a list": [Order(1), [Order(2)]],
    "an instance as a key": {Order(3): 1},
    "a class": Order,
    "instances in a deque": collections.deque([Order(4)]),
    "instances that are counted": collections.Counter([Order(5)]),
}


@contextmanager
def raising(
    method: Callable[..., Any],
    server_id: str,
    client_trusts: Any = (),
    serializer: str = "pickle",
    **options: Any,
) -> Iterator[QAMProxy]:
    """A proxy of a server whose method `go` is *method*; the server trusts all classes here."""
    url = f"memory://{server_id}"
    shared: dict[str, Any] = {"serializer": serializer}
    with QAMServer(url, server_id=server_id, trusted=TRUSTED, **shared, **options) as server:
        server.register_function(method, "go")
        server.start()
        with QAMProxy(server_id, url, timeout=60, trusted=client_trusts, **shared) as proxy:
            yield proxy


def raised_by(call: Callable[..., Any], *args: Any) -> Exception:
    """What *call* raises."""
    try:
        call(*args)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def told(error: Exception) -> tuple[str, str]:
    """The type and the text of a RemoteException with a traceback that ends with both."""
    assert type(error) is RemoteException
    assert len(error.__notes__) == 1
    assert error.__notes__[0].startswith("Remote traceback:\nTraceback")
    return error.type_name, error.text


# --- what is in an exception hides it from nobody ------------------------------------------


@pytest.mark.parametrize("client_trusts", [[], [OrderError]], ids=["nothing", "the error"])
@pytest.mark.parametrize("cls", [ValueError, OrderError])
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_argument_that_the_caller_does_not_trust_does_not_hide_the_exception(
    argument: str, cls: type[Exception], client_trusts: Any, server_id: str
) -> None:
    # given
    value = ARGUMENTS[argument]

    def go() -> None:
        raise cls(value, 3)

    # when
    with raising(go, server_id, client_trusts) as proxy:
        error = raised_by(proxy.go)

    # then
    assert told(error) == (f"{cls.__module__}.{cls.__name__}", str(cls(value, 3)))
    assert error.args == (repr(value), 3)


@pytest.mark.parametrize("client_trusts", [[], [DetailedOrderError]], ids=["nothing", "the error"])
def test_an_exception_whose_own_code_needs_what_is_not_trusted_is_told(
    client_trusts: Any, server_id: str
) -> None:
    def go() -> None:
        raise DetailedOrderError(Order(7))

    with raising(go, server_id, client_trusts) as proxy:
        error = raised_by(proxy.go)

    assert told(error) == (f"{__name__}.DetailedOrderError", "order 7 failed")


def test_an_attribute_that_is_not_trusted_costs_the_attribute_alone(server_id: str) -> None:
    def go() -> None:
        error: Any = OrderError("late")
        error.order, error.days = Order(7), 3
        raise error

    with raising(go, server_id) as proxy:
        error: Any = raised_by(proxy.go)

    assert type(error) is OrderError
    assert (error.args, error.days) == (("late",), 3)
    assert not hasattr(error, "order")


def test_where_all_is_trusted_the_exception_is_the_same(server_id: str) -> None:
    def go() -> None:
        raise DetailedOrderError(Order(7))

    with raising(go, server_id, TRUSTED) as proxy:
        error: Any = raised_by(proxy.go)

    assert type(error) is DetailedOrderError
    assert error.order.number == 7


@pytest.mark.parametrize("cls", [Rows, Names, Recent, Ordered, Order], ids=lambda cls: cls.__name__)
def test_a_result_with_such_a_value_names_its_class(cls: type, server_id: str) -> None:
    value = cls(a=1) if issubclass(cls, dict) else cls([1])

    with raising(lambda: [value], server_id) as proxy:
        error: Any = raised_by(proxy.go)

    assert type(error) is QAMSerializationException
    assert error.executed == "yes"
    assert f"the client {proxy.client_id!r} does not trust {__name__}.{cls.__name__}" in str(error)


# --- exceptions whose own code fails --------------------------------------------------------


def by_text(error: BaseException) -> type[Exception]:
    def fail(self: Exception) -> str:
        raise error

    return type("Odd", (Exception,), {"__str__": fail, "__module__": __name__})


def by_attributes(error: BaseException) -> type[Exception]:
    def fail(self: Exception, name: str) -> Any:
        raise error

    return type("Odd", (Exception,), {"__getattribute__": fail, "__module__": __name__})


def by_a_property(name: str) -> Callable[[BaseException], type[Exception]]:
    def make(error: BaseException) -> type[Exception]:
        def get(self: Exception) -> Any:
            raise error

        return type("Odd", (Exception,), {name: property(get), "__module__": __name__})

    return make


def by_pickling(error: BaseException) -> type[Exception]:
    def fail(self: Exception) -> Any:
        raise error

    return type("Odd", (Exception,), {"__reduce__": fail, "__module__": __name__})


ODD = {
    "text": by_text,
    "attributes": by_attributes,
    "pickling": by_pickling,
    **{
        name: by_a_property(name)
        for name in ("args", "__dict__", "__class__", "__traceback__", "__notes__", "__cause__")
    },
}


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("fails_with", [RuntimeError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ODD)
def test_an_exception_whose_own_code_fails_is_told_by_its_type(
    kind: str, fails_with: type[BaseException], serializer: str, server_id: str
) -> None:
    # given
    cls = ODD[kind](fails_with("its own code"))

    def go() -> None:
        raise cls("tea", 3)

    # when
    with raising(go, server_id, serializer=serializer, log_exceptions=False) as proxy:
        error = raised_by(proxy.go)
        again = raised_by(proxy.go)

    # then
    assert type(again) is type(error) is RemoteException
    assert error.type_name == f"{__name__}.Odd"
    assert error.args == ("tea", 3)
    assert "in go" in error.__notes__[0]


# --- texts that are too long, or can't be encoded --------------------------------------------


TEXTS = {
    "long": "x" * 100_000,
    "long, of two octets each": "\xe9" * 100_000,
    "of half characters": "\ud800" * 1_000,
    "long, of half characters": "\ud800x" * 100_000,
    "with control characters": "\0\n\x1b" * 1_000,
}


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("most", [300, 1_000, 5_000])
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("cls", [ValueError, OrderError, OSError, UnicodeError])
def test_an_error_that_is_too_long_is_cut_and_is_no_bad_result(
    cls: type[Exception], kind: str, most: int, serializer: str, server_id: str
) -> None:
    # given
    def go() -> None:
        raise cls(TEXTS[kind])

    options: dict[str, Any] = {"max_message_bytes": most, "log_exceptions": False}

    # when
    with raising(go, server_id, serializer=serializer, **options) as proxy:
        error: Any = raised_by(proxy.go)

    # then
    name = f"{cls.__module__}.{cls.__name__}"
    assert type(error) is cls or (type(error), error.type_name) == (RemoteException, name)


# --- the fields of an OSError ------------------------------------------------------------------


OS_ERRORS = {
    "a name": OSError(2, "No such file", "orders.db"),
    "two names": OSError(2, "No such file", "orders.db", None, "old.db"),
    "a name in octets": OSError(13, "Permission denied", b"orders.db"),
    "a number": OSError(9, "Bad file descriptor", 7),
    "no name": OSError(28, "No space left"),
    "an errno alone": OSError(5),
    "a text alone": OSError("broken"),
    "nothing": OSError(),
}


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("kind", OS_ERRORS)
def test_an_os_error_keeps_its_file_names(kind: str, serializer: str, server_id: str) -> None:
    # given
    sent: Any = OS_ERRORS[kind]

    def go() -> None:
        raise sent

    # when
    with raising(go, server_id, serializer=serializer) as proxy:
        came: Any = raised_by(proxy.go)

    # then
    assert type(came) is type(sent)
    for field in ("errno", "strerror", "filename", "filename2", "args"):
        assert getattr(came, field) == getattr(sent, field)
    assert str(came) == str(sent)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_the_error_of_a_real_file_names_it(
    serializer: str, server_id: str, tmp_path: pathlib.Path
) -> None:
    # given
    missing, target = tmp_path / "missing", tmp_path / "target"

    # when
    with raising(lambda: missing.rename(target), server_id, serializer=serializer) as proxy:
        error: Any = raised_by(proxy.go)

    # then
    assert type(error) is FileNotFoundError
    assert (error.filename, error.filename2) == (str(missing), str(target))


# --- what is told when there is no method --------------------------------------------------


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("name", ["x" * 100_000, "\xe9" * 50_000], ids=["long", "two octets each"])
def test_a_missing_method_with_a_long_name_is_no_bad_result(
    name: str, serializer: str, server_id: str
) -> None:
    with raising(len, server_id, serializer=serializer, max_message_bytes=400_000) as proxy:
        error: Any = raised_by(proxy[name])

    assert type(error) is QAMMethodNotFoundException
    assert error.executed == "no"
    assert len(str(error)) < 2_000
