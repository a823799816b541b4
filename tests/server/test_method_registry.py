import functools
import os
import socket
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

from qam._protocol.hidden_names import OF_PROXIES
from qam._server.method_registry import MethodRegistry
from qam._server.offered_methods import public_methods
from qam.exceptions import QAMMethodNotFoundException, QAMSerializationException


def add(a: int, b: int = 0) -> int:
    return a + b


class Callable:
    def __call__(self, a: int) -> int:
        return 2 * a


class Base:
    def inherited(self) -> str:
        return "inherited"


class Shop(Base):
    """Has one attribute of every kind."""

    number = 3
    doubled = Callable()
    part = functools.partialmethod(lambda self, a: a, 5)

    class Inner:
        """A class is no method."""

    def __init__(self) -> None:
        self.evaluated: list[str] = []
        self.own = lambda: "own"
        self.list = [1]

    def sell(self, what: str, count: int = 1) -> str:
        return f"{count} {what}"

    @property
    def price(self) -> Any:
        self.evaluated.append("price")
        return lambda: "a property's value"

    @functools.cached_property
    def stock(self) -> Any:
        self.evaluated.append("stock")
        return lambda: "a cached property's value"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @staticmethod
    def of_nobody() -> str:
        return "static"

    @functools.singledispatchmethod
    def dispatched(self, a: object) -> str:
        return "object"

    def _private(self) -> str:
        return "private"

    def __dunder__(self) -> str:
        return "dunder"


def call(registry: MethodRegistry, name: str, *params: Any) -> Any:
    return registry.resolve(name, params)()


def test_a_function_is_offered_by_its_own_name() -> None:
    registry = MethodRegistry()
    registry.add_function(add)

    assert call(registry, "add", 2, 3) == 5


def test_a_function_is_offered_by_the_name_that_it_is_given() -> None:
    registry = MethodRegistry()
    registry.add_function(add, "plus")
    registry.add_function(add, "math.plus")
    registry.add_function(lambda: 7, "seven")

    assert call(registry, "plus", 2, 3) == 5
    assert call(registry, "math.plus", 2, 3) == 5
    assert call(registry, "seven") == 7
    with pytest.raises(QAMMethodNotFoundException):
        registry.resolve("add", ())


def test_the_function_that_came_last_has_the_name() -> None:
    registry = MethodRegistry()
    registry.add_function(lambda: 1, "one")
    registry.add_function(lambda: 2, "one")

    assert call(registry, "one") == 2


def test_nothing_is_called_when_it_is_resolved() -> None:
    registry = MethodRegistry()
    called: list[int] = []
    registry.add_function(called.append, "append")

    registry.resolve("append", [1])

    assert called == []


def test_what_is_not_callable_is_refused() -> None:
    with pytest.raises(TypeError, match="method must be callable"):
        MethodRegistry().add_function(3, "three")  # type: ignore[arg-type]


def test_what_has_no_name_of_its_own_needs_one() -> None:
    with pytest.raises(ValueError, match="name is needed"):
        MethodRegistry().add_function(functools.partial(add, 1))


@pytest.mark.parametrize("name", ["", "a b", "a..b", ".a", "a.", "1a", "a-b", "<lambda>", "a/b"])
def test_a_name_that_no_proxy_can_spell_is_refused(name: str) -> None:
    registry = MethodRegistry()

    with pytest.raises(ValueError, match="name must be an identifier"):
        registry.add_function(add, name)
    with pytest.raises(ValueError, match="name must be an identifier"):
        registry.add_instance(Shop(), name)


@pytest.mark.parametrize("name", ["_a", "__init__", "a._b", "_a.b"])
def test_a_private_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="begins with an underscore"):
        MethodRegistry().add_function(add, name)


@pytest.mark.parametrize("name", ["system", "system.apply", "system.x.y"])
def test_the_reserved_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="'system' is reserved"):
        MethodRegistry().add_function(add, name)


def test_the_reserved_name_is_reserved_in_the_first_place_only() -> None:
    registry = MethodRegistry()
    registry.add_function(add, "shop.system")

    assert call(registry, "shop.system", 1) == 1


@pytest.mark.parametrize("name", [None, 1, b"shop"])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match="name must be a str"):
        MethodRegistry().add_instance(Shop(), name)


def test_the_public_methods_of_an_instance_are_offered_and_nothing_else() -> None:
    assert set(public_methods(Shop())) == {
        "sell",
        "inherited",
        "of_class",
        "of_nobody",
        "dispatched",
        "part",
    }


def test_each_of_them_can_be_called_by_the_instances_name() -> None:
    registry = MethodRegistry()
    registry.add_instance(Shop(), "shop")

    assert call(registry, "shop.sell", "tea", 2) == "2 tea"
    assert call(registry, "shop.inherited") == "inherited"
    assert call(registry, "shop.of_class") == "Shop"
    assert call(registry, "shop.of_nobody") == "static"
    assert call(registry, "shop.dispatched", 1) == "object"
    assert call(registry, "shop.part") == 5


def test_no_property_is_evaluated() -> None:
    shop = Shop()

    MethodRegistry().add_instance(shop, "shop")

    assert shop.evaluated == []


def test_an_instance_that_answers_every_name_offers_what_it_has() -> None:
    class Anything:
        def __getattr__(self, name: str) -> Any:
            return lambda: name

        def real(self) -> None:
            """The only method there is."""

    assert list(public_methods(Anything())) == ["real"]


def test_an_instance_that_lists_what_it_has_not_offers_only_what_it_has() -> None:
    class Liar:
        def __dir__(self) -> list[str]:
            return ["real", "unreal"]

        def real(self) -> None:
            """The only method there is."""

    assert list(public_methods(Liar())) == ["real"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nothing",
        "sell",
        "shop",
        "shop.Inner",
        "shop.__dunder__",
        "shop.__init__",
        "shop._private",
        "shop.doubled",
        "shop.number",
        "shop.own",
        "shop.price",
        "shop.sell.__call__",
    ],
)
def test_what_was_not_registered_is_not_found(name: str) -> None:
    registry = MethodRegistry()
    registry.add_instance(Shop(), "shop")

    with pytest.raises(QAMMethodNotFoundException) as refused:
        registry.resolve(name, ())

    assert repr(name) in str(refused.value)
    assert refused.value.executed == "no"


@pytest.mark.parametrize(
    "params", [("add", (2,), {"b": 3}), ["add", [2], {"b": 3}], ("add", [], {"a": 2, "b": 3})]
)
def test_a_call_with_keyword_arguments_is_taken_apart(params: Any) -> None:
    registry = MethodRegistry()
    registry.add_function(add)

    assert registry.resolve("system.apply", params)() == 5


@pytest.mark.parametrize(
    "params",
    [
        (),
        ("add",),
        ("add", (2,)),
        ("add", (2,), {}, 4),
        (b"add", (2,), {}),
        ("add", "2", {}),
        ("add", 2, {}),
        ("add", (2,), [("b", 3)]),
        ("add", (2,), {1: 3}),
        ("add", (2,), {b"b": 3}),
    ],
)
def test_keyword_arguments_in_a_wrong_form_are_refused(params: Any) -> None:
    registry = MethodRegistry()
    registry.add_function(add)

    with pytest.raises(QAMSerializationException, match=r"system.apply needs"):
        registry.resolve("system.apply", params)


@pytest.mark.parametrize("name", ["nothing", "system.apply", "_private"])
def test_a_call_with_keyword_arguments_reaches_nothing_else_either(name: str) -> None:
    registry = MethodRegistry()
    registry.add_function(add)

    with pytest.raises(QAMMethodNotFoundException):
        registry.resolve("system.apply", (name, (), {}))


class Counter:
    """Has two methods."""

    def buy(self) -> str:
        return "bought"

    def close(self) -> str:
        return "closed"


def test_an_instance_takes_the_place_of_the_one_that_had_its_name() -> None:
    methods = MethodRegistry()
    methods.add_function(len, "shop.size")
    methods.add_instance(Counter(), "shop")
    methods.add_instance(Counter(), "shop", only=["buy"])

    assert methods.resolve("shop.buy", [])() == "bought"
    assert methods.resolve("shop.size", ["abc"])() == 3
    with pytest.raises(QAMMethodNotFoundException):
        methods.resolve("shop.close", [])
    with pytest.raises(TypeError, match="methods must be a list of names"):
        methods.add_instance(Counter(), "shop", only="buy")


def test_only_the_methods_that_were_chosen_are_offered() -> None:
    methods = MethodRegistry()
    methods.add_instance(Counter(), "shop", only=["buy"])

    assert methods.resolve("shop.buy", [])() == "bought"
    with pytest.raises(QAMMethodNotFoundException):
        methods.resolve("shop.close", [])
    for name in ("_private", "missing", "__init__"):
        with pytest.raises(ValueError, match="methods"):
            methods.add_instance(Counter(), "shop", only=[name])


def generator() -> Iterator[int]:
    yield 1


async def asynchronous_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("method", [generator, asynchronous_generator])
def test_what_returns_nothing_that_can_be_sent_is_refused(method: Any) -> None:
    with pytest.raises(TypeError, match="return a list"):
        MethodRegistry().add_function(method)


def test_a_class_is_no_instance() -> None:
    with pytest.raises(TypeError, match="is a class"):
        MethodRegistry().add_instance(dict, "table")


@pytest.mark.parametrize("idempotent", ["no", 1, None])
def test_whether_a_method_may_run_again_is_not_guessed(idempotent: Any) -> None:
    registry = MethodRegistry()
    with pytest.raises(TypeError, match="idempotent"):
        registry.add_function(len, idempotent=idempotent)
    with pytest.raises(QAMMethodNotFoundException):
        registry.resolve("len", [])


def test_a_name_in_place_of_the_method_is_told_where_it_belongs() -> None:
    with pytest.raises(TypeError, match="name='plus'"):
        MethodRegistry().add_function("plus")  # type: ignore[arg-type]


class TestWhatMayRunAgain:
    """Asked of the registry by name and parameters, as a request brings them."""

    def test_is_what_was_named_of_a_class_and_nothing_else_of_it(self) -> None:
        registry = MethodRegistry()
        registry.add_instance(Counter(), "shop", idempotent=["buy"])

        assert registry.is_idempotent("shop.buy", [])
        assert not registry.is_idempotent("shop.close", [])

    def test_is_nothing_of_a_class_where_nothing_was_named(self) -> None:
        registry = MethodRegistry()
        registry.add_instance(Counter(), "shop")

        assert not registry.is_idempotent("shop.buy", [])
        assert not registry.is_idempotent("shop.close", [])

    def test_is_a_function_that_was_registered_so(self) -> None:
        registry = MethodRegistry()
        registry.add_function(len, idempotent=True)
        registry.add_function(sum)

        assert registry.is_idempotent("len", ["abc"])
        assert not registry.is_idempotent("sum", [[1]])
        assert not registry.is_idempotent("missing", [])

    def test_is_what_a_call_with_keyword_arguments_names(self) -> None:
        registry = MethodRegistry()
        registry.add_instance(Counter(), "shop", idempotent=["buy"])

        assert registry.is_idempotent("system.apply", ["shop.buy", [], {}])
        assert not registry.is_idempotent("system.apply", ["shop.close", [], {}])

    @pytest.mark.parametrize("params", [[], [7], [["shop.buy"]]], ids=repr)
    def test_is_nothing_that_names_no_method(self, params: list[Any]) -> None:
        registry = MethodRegistry()
        registry.add_instance(Counter(), "shop", idempotent=["buy"])

        assert not registry.is_idempotent("system.apply", params)

    def test_is_not_found_by_the_first_argument_of_another_method(self) -> None:
        registry = MethodRegistry()
        registry.add_function(len)
        registry.add_function(sum, idempotent=True)

        assert not registry.is_idempotent("len", ["sum"])

    def test_is_said_anew_by_whoever_registers_the_name_again(self) -> None:
        registry = MethodRegistry()
        registry.add_function(len, "size", idempotent=True)
        registry.add_instance(Counter(), "shop", idempotent=["buy"])
        # when
        registry.add_function(len, "size")
        registry.add_instance(Counter(), "shop", idempotent=["close"])
        # then
        assert not registry.is_idempotent("size", [])
        assert not registry.is_idempotent("shop.buy", [])
        assert registry.is_idempotent("shop.close", [])

    @pytest.mark.parametrize("idempotent", [["missing"], ["_private"], ["buy", "missing"]])
    def test_is_no_method_that_is_not_offered(self, idempotent: list[str]) -> None:
        registry = MethodRegistry()
        with pytest.raises(ValueError, match="idempotent"):
            registry.add_instance(Counter(), "shop", idempotent=idempotent)
        with pytest.raises(QAMMethodNotFoundException):
            registry.resolve("shop.buy", [])

    def test_is_not_read_out_of_one_text(self) -> None:
        with pytest.raises(TypeError, match="idempotent must be a list of names"):
            MethodRegistry().add_instance(Counter(), "shop", idempotent="buy")


# --- hints ------------------------------------------------------------------------------------


def _hidden(a: int) -> int:
    return a


def system(a: int) -> int:
    return a


@pytest.mark.parametrize(
    "method",
    [lambda a: a, _hidden, system, functools.partial(add, 1), Callable()],
    ids=["lambda", "underscore", "system", "partial", "instance"],
)
def test_a_function_whose_own_name_can_not_be_called_needs_another(method: Any) -> None:
    with pytest.raises(ValueError, match="pass name="):
        MethodRegistry().add_function(method)

    registry = MethodRegistry()
    registry.add_function(method, "double")
    assert registry.names == ["double"]


def test_a_wrong_name_that_was_given_is_not_told_to_be_given() -> None:
    with pytest.raises(ValueError, match="must be an identifier") as refused:
        MethodRegistry().add_function(add, "a b")

    assert "pass name=" not in str(refused.value)


def test_instance_and_name_in_the_wrong_order_are_told() -> None:
    with pytest.raises(TypeError, match="the instance first, and then its name"):
        MethodRegistry().add_instance("shop", Shop())  # type: ignore[arg-type]


def test_a_missing_method_says_which_server_does_not_have_it() -> None:
    with pytest.raises(QAMMethodNotFoundException) as missing:
        MethodRegistry().resolve("close", ())

    place = f"host {socket.gethostname()}, pid {os.getpid()}"
    assert str(missing.value) == (
        f"no method 'close' is registered on this server ({place}); "
        "another server of this server_id may know it"
    )


@pytest.mark.parametrize("name", [*sorted(OF_PROXIES), "getdoc", "close.inner", "shop.getdoc"])
def test_a_name_that_proxies_hide_is_warned_of(name: str, caplog: pytest.LogCaptureFixture) -> None:
    MethodRegistry().add_function(add, name)

    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith(f"so callers have to write proxy[{name!r}]")


def test_the_methods_of_an_instance_with_such_a_name_are_warned_of_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    MethodRegistry().add_instance(Shop(), "callback", ["sell", "inherited"])

    [record] = caplog.records
    assert "proxy['callback.sell'], proxy['callback.inherited']" in record.getMessage()


def test_other_names_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    registry = MethodRegistry()
    registry.add_function(add)
    registry.add_function(add, "shop.close")
    registry.add_instance(Shop(), "shop")

    assert caplog.records == []


def test_a_callable_that_is_false_is_a_method_like_others() -> None:
    class Empty:
        def __call__(self) -> str:
            return "called"

        def __len__(self) -> int:
            return 0

    registry = MethodRegistry()
    registry.add_function(Empty(), "empty")

    assert registry.resolve("empty", ())() == "called"


# --- functions of modules, instances whose methods are looked up late ----------


def module_of(**functions: Any) -> ModuleType:
    """A module whose `__all__` names *functions*."""
    module = ModuleType("shop")
    vars(module).update(functions, __all__=list(functions))
    return module


def test_the_functions_of_a_module_have_their_own_names() -> None:
    registry = MethodRegistry()

    registry.add_module(module_of(add=add))

    assert registry.resolve("add", (2, 3))() == 5
    assert registry.names == ["add"]
    assert registry.functions == {"add": add}


def test_a_module_with_one_function_that_can_not_be_offered_offers_none() -> None:
    registry = MethodRegistry()

    def endless() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="module: 'endless'"):
        registry.add_module(module_of(add=add, endless=endless))

    assert registry.names == []


def test_an_instance_whose_methods_are_looked_up_late_takes_the_place_of_an_earlier_one() -> None:
    # given
    registry = MethodRegistry()
    registry.add_instance(Shop(), "shop", idempotent=["sell"])
    assert registry.is_idempotent("shop.sell", ())

    # when
    registry.add_instance(Base(), "shop", dynamic=True, idempotent=["inherited"])

    # then
    assert registry.names == ["shop.*"]
    assert registry.resolve("shop.inherited", ())() == "inherited"
    assert registry.is_idempotent("shop.inherited", ())
    assert not registry.is_idempotent("shop.sell", ())


def test_where_methods_are_looked_up_late_none_can_be_chosen() -> None:
    with pytest.raises(ValueError, match="dynamic=True offers everything"):
        MethodRegistry().add_instance(Shop(), "shop", only=["sell"], dynamic=True)


# --- which requests may run again ----------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "may_run_again"),
    [
        ("read", (), True),
        ("write", (), False),
        ("system.apply", ("read", [], {}), True),
        ("system.apply", ("write", [], {}), False),
        ("system.multicall", (["read", "read"],), True),
        ("system.multicall", (["read", "write"],), False),
        ("system.multicall", (["read", 5],), False),
    ],
    ids=str,
)
def test_a_request_may_run_again_if_all_that_it_calls_may(
    name: str, params: Any, may_run_again: bool
) -> None:
    registry = MethodRegistry()
    registry.add_function(add, "read", idempotent=True)
    registry.add_function(add, "write")

    assert registry.is_idempotent(name, params) is may_run_again
    assert [(each, repeats) for each, _, repeats in registry.items()] == [
        ("read", True),
        ("write", False),
    ]
