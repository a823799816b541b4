"""Functions that are marked to be offered, and where the marks are found."""

import functools
import types
from typing import Any

import pytest

from qam import expose
from qam._server.exposed import Mark, mark_of
from qam._server.method_registry import MethodRegistry


def names(*instances: Any) -> list[str]:
    registry = MethodRegistry()
    for number, instance in enumerate(instances):
        registry.add_instance(instance, f"i{number}")
    return registry.names


def test_a_marked_function_is_itself_and_keeps_its_type() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    assert expose(add) is add
    assert add(1, 2) == 3
    assert expose(name="plus", idempotent=True)(add) is add
    assert mark_of(add) == Mark("plus", idempotent=True)
    assert expose("sum")(add) is add
    assert mark_of(add) == Mark("sum")
    assert mark_of(expose()(add)) == Mark()


class Shop:
    @expose
    def price(self) -> str:
        return "price"

    @expose(name="buy", idempotent=True)
    def _buy(self) -> str:
        return "bought"

    def other(self) -> str:
        return "other"

    @expose
    @staticmethod
    def outer() -> str:
        return "static"

    @staticmethod
    @expose
    def inner() -> str:
        return "static"

    @expose
    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @functools.lru_cache  # noqa: B019
    @expose
    def cached(self) -> str:
        return "cached"


def test_of_an_instance_only_what_is_marked_is_offered() -> None:
    registry = MethodRegistry()
    registry.add_instance(Shop(), "shop")
    results = {name: registry.resolve(name, [])() for name in registry.names}

    assert results == {
        "shop.price": "price",
        "shop.buy": "bought",
        "shop.outer": "static",
        "shop.inner": "static",
        "shop.of_class": "Shop",
        "shop.cached": "cached",
    }
    assert [name for name in results if registry.is_idempotent(name, [])] == ["shop.buy"]


def test_names_that_are_given_at_registration_go_before_marks() -> None:
    registry = MethodRegistry()
    registry.add_instance(Shop(), "shop", only=["other"])
    assert registry.names == ["shop.other"]


def test_more_may_be_idempotent_than_is_marked() -> None:
    registry = MethodRegistry()
    registry.add_instance(Shop(), "shop", idempotent=["price"])
    assert registry.is_idempotent("shop.price", [])
    assert registry.is_idempotent("shop.buy", [])
    with pytest.raises(ValueError, match="idempotent: 'other'"):
        registry.add_instance(Shop(), "shop", idempotent=["other"])


def test_a_subclass_offers_the_marked_methods_that_it_does_not_override() -> None:
    class Sale(Shop):
        def price(self) -> str:
            return "less"

        @expose
        def end(self) -> None:
            """Marked too."""

    assert "i0.price" not in names(Sale())
    assert {"i0.end", "i0.buy"} <= set(names(Sale()))


def test_a_registered_function_has_the_name_of_its_mark() -> None:
    @expose(name="plus", idempotent=True)
    def add(a: int, b: int) -> int:
        return a + b

    registry = MethodRegistry()
    registry.add_function(add)
    registry.add_function(add, "add")
    assert registry.names == ["add", "plus"]
    assert registry.is_idempotent("plus", [])


def prop(self: Any) -> None:
    """Is made a property below."""


@pytest.mark.parametrize(
    "wrong",
    [5, Shop, property(prop), len, Shop().price],
    ids=["number", "class", "property", "builtin", "bound"],
)
def test_what_is_no_function_or_cant_be_marked_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"expose marks|can't be marked"):
        expose()(wrong)


def test_a_wrong_argument_is_told_by_its_name() -> None:
    with pytest.raises(TypeError, match="idempotent"):
        expose(idempotent=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="expose marks"):
        expose(5)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["_hidden", "a b", ""])
def test_a_wrong_name_is_told_at_registration(name: str) -> None:
    instance = type("Wrong", (), {"it": expose(name=name)(lambda self: None)})()
    with pytest.raises(ValueError, match="name"):
        names(instance)


def test_two_of_one_name_are_refused() -> None:
    marked = {each: expose(name="same")(lambda self: None) for each in ("one", "two")}
    with pytest.raises(ValueError, match="'same'"):
        names(type("Twice", (), marked)())


def test_what_is_marked_and_no_method_is_refused() -> None:
    class Called:
        def __call__(self) -> None:
            """An object that can be called and marked."""

    with pytest.raises(TypeError, match="'it' is marked by expose, and is no method"):
        names(type("Odd", (), {"it": expose()(Called())})())


# --- modules --------------------------------------------------------------------


def module_of(source: str, own_name: str = "shop", **more: Any) -> types.ModuleType:
    module = types.ModuleType(own_name)
    vars(module).update(more)
    exec(source, vars(module))
    return module


def offered(module: types.ModuleType) -> MethodRegistry:
    registry = MethodRegistry()
    registry.add_module(module)
    return registry


PLAIN = """
from json import dumps
import os
number = 5
class Item: pass
def price(): return 1
def _private(): return 2
def divide(a, b): return a / b
double = lambda a: 2 * a
"""


def test_a_module_offers_the_public_functions_that_it_defines() -> None:
    assert offered(module_of(PLAIN)).names == ["divide", "double", "price"]


def test_or_what_it_lists() -> None:
    module = module_of(PLAIN + "__all__ = ['dumps', 'price', 'Item', 'number']")
    assert offered(module).names == ["dumps", "price"]


MARKED = """
def price(): return 1
@expose(idempotent=True)
def buy(): return 2
@expose(name='sell')
def _sell(): return 3
"""


def test_or_what_is_marked() -> None:
    for more in ("", "__all__ = ['price', 'buy']"):
        registry = offered(module_of(MARKED + more, expose=expose))
        assert registry.names == ["buy", "sell"]
        assert registry.is_idempotent("buy", [])
        assert not registry.is_idempotent("sell", [])
        assert registry.resolve("sell", [])() == 3


def test_what_is_marked_elsewhere_is_offered_only_where_it_is_listed() -> None:
    other = module_of(MARKED, "other", expose=expose)
    assert offered(module_of("def price(): return 1", buy=other.buy)).names == ["price"]
    assert offered(module_of("__all__ = ['buy']", buy=other.buy)).names == ["buy"]


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ("number = 5", TypeError, "shop has no public functions"),
        ("__all__ = []", TypeError, "shop has no public functions"),
        ("__all__ = ['missing']", ValueError, "has no 'missing', which __all__ names"),
        ("def price():\n yield 1", TypeError, "return a list"),
        ("def system(): pass", ValueError, "reserved"),
    ],
)
def test_a_module_that_cant_be_offered_is_refused_as_a_whole(
    source: str, error: type[Exception], text: str
) -> None:
    registry = MethodRegistry()
    with pytest.raises(error, match=text):
        registry.add_module(module_of("def first(): pass\n" * ("def" in source) + source))
    assert registry.names == []


@pytest.mark.parametrize("wrong", ["json", None, Shop()], ids=["text", "none", "instance"])
def test_what_is_no_module_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="module must be a module"):
        MethodRegistry().add_module(wrong)
