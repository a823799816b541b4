"""What is told of names that are not trusted: whose process, all of them, and what to do."""

import collections
import functools
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qam._serialization.refusals import NotTrustedError, Receiver, advice
from qam._serialization.trust import Trusted
from qam._serialization.unpickler import loads

SERVER, CLIENT = Receiver("server", "shop"), Receiver("client", "till-3")
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Order:
    """Is in no table of trusted names."""

    class Line:
        """Inside another class."""


class Customer(Order):
    """Another one."""


def total(orders: Any) -> None:
    """A function of an application."""


round_up = functools.partial(total)


class Rebuilt:
    """Is pickled as a call of a function."""

    def __reduce__(self) -> Any:
        return total, ((),)


@pytest.fixture
def main() -> Iterator[types.ModuleType]:
    """A module that counts as the main one of another process."""
    module = types.ModuleType("__main__")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", module)
        yield module


def told(*names: str, receiver: Receiver = SERVER) -> str:
    """What is told of names such as 'models.Order'."""
    split = [(module, name) for module, _, name in (each.partition(":") for each in names)]
    return advice(split, receiver)


# --- the text ------------------------------------------------------------------------------


@pytest.mark.parametrize("receiver", [SERVER, CLIENT], ids=lambda each: each.kind)
def test_the_text_says_whose_process_has_to_trust(receiver: Receiver) -> None:
    kind, id = receiver

    assert told("models:Order", receiver=receiver) == (
        f"the {kind} {id!r} does not trust models.Order: "
        f"call qam.trust(models.Order) in the {kind}'s process"
    )


def test_several_classes_are_trusted_by_one_call() -> None:
    assert "call qam.trust(models.Order, models.Customer) in" in told(
        "models:Order", "models:Customer"
    )


@pytest.mark.parametrize("name", ["Order", "Order.Line", "_Order"])
@pytest.mark.parametrize("module", [__name__, "not_imported_here"])
def test_a_class_is_one_to_be_trusted(module: str, name: str) -> None:
    assert f"call qam.trust({module}.{name})" in told(f"{module}:{name}")


@pytest.mark.parametrize(
    "name",
    [
        *(f"{__name__}:total", f"{__name__}:round_up", f"{__name__}:SERVER"),
        *("builtins:eval", "builtins:type", "os:system", "posix:system", "shutil:rmtree"),
        *("no_such_module:total", "no_such_module:Order.total", "lib2to3.main:main"),
    ],
)
def test_nothing_but_a_class_is_ever_proposed_to_be_trusted(name: str) -> None:
    text = told(name)

    assert "qam.trust" not in text
    assert name.replace(":", ".") in text


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
def test_a_class_of_a_script_belongs_into_a_module(module: str) -> None:
    text = told(f"{module}:Order")

    assert f"put {module}.Order into a module of its own, which both processes import" in text
    assert f"qam.trust({module}" not in text


def test_each_kind_has_its_own_advice_in_one_text() -> None:
    text = told("models:Order", "__main__:Customer", "os:system", receiver=CLIENT)

    assert text.startswith("the client 'till-3' does not trust models.Order, __main__.Customer, os")
    for advised in ("qam.trust(models.Order)", "put __main__.Customer", "os.system: not a class"):
        assert advised in text


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=60))
def test_whatever_the_names_are_the_text_is_one_line_of_bounded_length(
    names: list[tuple[str, str]],
) -> None:
    text = advice(names, SERVER)

    assert text.isprintable()
    assert len(text) < 60_000


def test_of_very_many_names_the_first_are_shown_and_the_rest_counted() -> None:
    text = told(*(f"models:Order{number}" for number in range(70)))

    assert "models.Order49 and 20 more" in text
    assert "models.Order50" not in text


# --- all of them at once -----------------------------------------------------------------


VALUES: dict[str, Any] = {
    "in a list": [Order(), Customer()],
    "one in the other": {"order": [Order(), {"customer": Customer()}]},
    "twice": [Order(), Customer(), Order()],
    "the classes themselves": [Order, Customer],
    "as keys": {Order(): 1, Customer(): 2},
    "counted": collections.Counter([Order(), Customer()]),
    "in a set": [{Order()}, frozenset([Customer()])],
    "in a deque": collections.deque([Order(), Customer()]),
    "beside what is known": [collections.OrderedDict(a=Order()), 1.5, ValueError(Customer())],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("in_a_reply", [False, True], ids=["request", "reply"])
def test_all_classes_of_a_message_are_named_at_once(
    kind: str, protocol: int, in_a_reply: bool
) -> None:
    # given
    body = pickle.dumps(VALUES[kind], protocol)
    strangers = list[tuple[str, str]]() if in_a_reply else None

    # when
    try:
        loads(body, Trusted(), strangers)
        named = set(strangers or ())
    except NotTrustedError as refused:
        named = set(refused.names)

    # then
    assert named == {(__name__, "Order"), (__name__, "Customer")}


class OwnDict(dict[str, Any]):
    """A dict of the application."""


class OwnList(list[Any]):
    """A list."""


class OwnSet(set[Any]):
    """A set."""


class OwnDeque(collections.deque[Any]):
    """A deque."""


class OwnOrdered(collections.OrderedDict[str, Any]):
    """An ordered dict."""


class OwnText(str):
    """A text."""


CONTAINERS = [
    *(OwnDict(a=1, b=2), OwnDict(a=1), OwnList([1]), OwnList([1, 2])),
    *(OwnSet([1]), OwnDeque([1, 2]), OwnOrdered(a=1), OwnText("x")),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("in_a_reply", [False, True], ids=["request", "reply"])
def test_containers_of_the_application_are_named_too(protocol: int, in_a_reply: bool) -> None:
    for container in CONTAINERS:
        strangers = list[tuple[str, str]]() if in_a_reply else None
        try:
            loads(pickle.dumps([container], protocol), Trusted(), strangers)
            named = strangers
        except NotTrustedError as refused:
            named = list(refused.names)

        assert named == [(__name__, type(container).__name__)]


class Acting:
    """Is trusted, and tells what it runs."""

    ran: list[str] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.ran.append("init")

    def __reduce__(self) -> Any:
        return Acting, (), {"a": 1}

    def __setstate__(self, state: Any) -> None:
        self.ran.append("setstate")


def test_nothing_of_a_request_is_built_once_a_name_was_refused() -> None:
    # given
    body = pickle.dumps([Order(), Acting(), Acting()])
    Acting.ran.clear()

    # when
    with pytest.raises(NotTrustedError):
        loads(body, Trusted([Acting]))

    # then
    assert Acting.ran == []


def test_a_function_that_rebuilds_an_object_is_named_and_not_run() -> None:
    with pytest.raises(NotTrustedError) as refused:
        loads(pickle.dumps(Rebuilt()), Trusted())

    assert "qam.trust" not in advice(refused.value.names, SERVER)


def test_a_class_of_a_script_that_was_sent_is_told_so(main: types.ModuleType) -> None:
    # given
    exec("class Order:\n    pass", vars(main))
    body = pickle.dumps(main.Order())

    # when
    with pytest.raises(NotTrustedError) as refused:
        loads(body, Trusted())

    # then
    assert "put __main__.Order into a module" in advice(refused.value.names, CLIENT)
