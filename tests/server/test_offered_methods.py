"""What a registered instance offers: every kind of attribute, wherever it stands."""

import datetime
import functools
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from types import ClassMethodDescriptorType, MethodDescriptorType, WrapperDescriptorType
from typing import Any, ClassVar

import pytest

from qam._common.deadline import Deadline
from qam._server.method_registry import MethodRegistry
from qam._server.offered_methods import check_called_plainly
from qam.exceptions import QAMMethodNotFoundException

#: What was run although nobody called it.
evaluated: list[str] = []


@pytest.fixture(autouse=True)
def nothing_is_evaluated() -> Iterator[None]:
    """Fails a test that runs code of an instance by registering it."""
    evaluated.clear()
    yield
    assert not evaluated


def twice(*args: Any) -> Any:
    """As a function, a method or a static method: doubles its last argument."""
    return 2 * args[-1]


def evaluate(*args: Any) -> Any:
    evaluated.append("it")
    return twice


class Doubler:
    """Its instances can be called."""

    def __call__(self, *args: Any) -> Any:
        return 2 * args[-1]


class OwnDescriptor:
    """Hands out what can be called, but runs code for that."""

    def __get__(self, instance: Any, owner: Any) -> Any:
        return evaluate()


class OwnClassmethod(classmethod):  # type: ignore[type-arg]
    """Is one by its type, and binds in a way of its own."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return evaluate()


class PlainClassmethod(classmethod):  # type: ignore[type-arg]
    """Is one, with another name."""


METHODS: dict[str, Any] = {
    "function": twice,
    "lambda": lambda self, a: 2 * a,
    "staticmethod": staticmethod(twice),
    "staticmethod of a builtin": staticmethod(divmod),
    "staticmethod of a partial": staticmethod(functools.partial(twice, 1)),
    "classmethod": classmethod(twice),
    "derived classmethod": PlainClassmethod(twice),
    "lru_cache": functools.lru_cache(twice),
    "cache in a staticmethod": staticmethod(functools.cache(twice)),
    "partialmethod": functools.partialmethod(twice, 1),
    "partialmethod of a classmethod": functools.partialmethod(classmethod(twice), 1),
    "singledispatchmethod": functools.singledispatchmethod(twice),
    "singledispatchmethod of a classmethod": functools.singledispatchmethod(classmethod(twice)),
    "method of a builtin type": str.upper,
    "classmethod of a builtin type": vars(int)["from_bytes"],
    "special method of a builtin type": str.__len__,
}
NO_METHODS: dict[str, Any] = {
    "number": 3,
    "property": property(evaluate),
    "cached_property": functools.cached_property(evaluate),
    "classmethod of a property": classmethod(property(evaluate)),  # type: ignore[arg-type]
    "partialmethod of a property": functools.partialmethod(property(evaluate)),  # type: ignore[arg-type]
    "descriptor of its own": OwnDescriptor(),
    "classmethod that binds in its own way": OwnClassmethod(twice),
}
#: They are offered where they are named.
CALLED: dict[str, Any] = {
    "callable object": Doubler(),
    "builtin function": len,
    "bound method": Doubler().__call__,
}
CLASSES: dict[str, Any] = {
    "class": datetime.date,
    "class of C": dict,
    "staticmethod of a class": staticmethod(dict),
    "classmethod of a class": classmethod(dict),  # type: ignore[arg-type]
}


OF_A_BUILTIN_TYPE = (MethodDescriptorType, ClassMethodDescriptorType, WrapperDescriptorType)


def parametrize(*tables: dict[str, Any]) -> Any:
    kinds = {kind: found for table in tables for kind, found in table.items()}
    return pytest.mark.parametrize("found", kinds.values(), ids=kinds.keys())


def instance_with(found: Any) -> Any:
    """An instance in whose type *found* stands as `it`, beside a method `real`."""
    builtin = issubclass(type(found), OF_A_BUILTIN_TYPE)
    base = found.__objclass__ if builtin else object  # else it could not be bound
    return type("Made", (base,), {"it": found, "real": lambda self: "real"})()


def offered(instance: Any, **options: Any) -> dict[str, Any]:
    """The methods that *instance* offers, by their names."""
    registry = MethodRegistry()
    registry.add_instance(instance, "x", **options)
    return {name.removeprefix("x."): each for name, each in registry._methods.items()}


class TestInTheType:
    @parametrize(METHODS)
    def test_every_kind_of_method_is_offered(self, found: Any) -> None:
        instance = instance_with(found)

        assert callable(offered(instance)["it"])
        assert set(offered(instance, only=["it"])) == {"it"}

    @parametrize(NO_METHODS, CALLED, CLASSES)
    def test_nothing_else_is(self, found: Any) -> None:
        assert set(offered(instance_with(found))) == {"real"}

    @parametrize(METHODS)
    def test_a_method_of_a_base_is_offered_too_unless_something_hides_it(self, found: Any) -> None:
        inherited = type("Inherits", (type(instance_with(found)),), {})
        hides = type("Hides", (type(instance_with(found)),), {"it": property(evaluate)})

        assert {"it", "real"} <= offered(inherited()).keys()
        assert "it" not in offered(hides())

    @parametrize(CALLED)
    def test_what_can_be_called_but_is_no_method_is_offered_where_it_is_named(
        self, found: Any
    ) -> None:
        assert set(offered(instance_with(found), only=["it"])) == {"it"}

    @pytest.mark.parametrize("kind", [kind for kind in NO_METHODS if "binds" not in kind])
    def test_what_is_evaluated_is_not_offered_where_it_is_named_either(self, kind: str) -> None:
        with pytest.raises(ValueError, match="'it' is no public method"):
            offered(instance_with(NO_METHODS[kind]), only=["it"])

    @parametrize(CLASSES)
    def test_nor_is_a_class(self, found: Any) -> None:
        with pytest.raises(ValueError, match="'it' is no public method"):
            offered(instance_with(found), only=["it"])

    def test_what_is_offered_is_bound_as_python_binds_it(self) -> None:
        class Shop:
            def of_instance(self, a: int) -> Any:
                return self, a

            cached = functools.lru_cache(of_instance)
            part = functools.partialmethod(of_instance, 5)

            @classmethod
            def of_class(cls) -> Any:
                return cls

            @staticmethod
            def of_nobody(a: int) -> int:
                return a

            @functools.singledispatchmethod
            def dispatched(self, a: object) -> Any:
                return self, "object"

            @dispatched.register
            def _(self, a: int) -> Any:
                return self, "int"

        shop = Shop()
        methods = offered(shop)

        assert methods["of_instance"](1) == (shop, 1)
        assert methods["cached"](2) == (shop, 2)
        assert methods["part"]() == (shop, 5)
        assert methods["of_class"]() is Shop
        assert methods["of_nobody"](3) == 3
        assert methods["dispatched"]("a") == (shop, "object")
        assert methods["dispatched"](1) == (shop, "int")


class TestInTheInstance:
    #: All that can be called where it stands in an instance, which binds nothing.
    CALLED: ClassVar = {
        **CALLED,
        "function": twice,
        "function of the standard library": subprocess.run,
        "partial": functools.partial(twice, 1),
        "lru_cache": functools.lru_cache(twice),
        "method of a builtin type": str.upper,
    }

    @parametrize(CALLED)
    def test_nothing_is_offered(self, found: Any) -> None:
        instance = instance_with(3)
        instance.run = found

        assert set(offered(instance)) == {"real"}

    @parametrize(CALLED)
    def test_nothing_is_offered_in_a_slot(self, found: Any) -> None:
        class Slots:
            __slots__ = ("run",)

            def real(self) -> None:
                """The only method there is."""

        instance: Any = Slots()
        instance.run = found

        assert set(offered(instance)) == {"real"}
        assert offered(instance, only=["run"])["run"] is found

    @parametrize(CALLED)
    def test_what_is_named_is_offered_as_it_is(self, found: Any) -> None:
        instance = instance_with(3)
        instance.run = found

        assert offered(instance, only=["run"]) == {"run": found}

    def test_what_hides_a_method_is_not_offered_in_its_place(self) -> None:
        instance = instance_with(twice)
        instance.it = subprocess.run

        assert offered(instance)["it"](4) == 8
        assert offered(instance, only=["it"]) == {"it": subprocess.run}

    @pytest.mark.parametrize("found", [3, dict, None, property(evaluate), "a text"])
    def test_what_can_not_be_called_or_is_a_class_is_refused_by_name(self, found: Any) -> None:
        instance = instance_with(3)
        instance.run = found

        with pytest.raises(ValueError, match="'run' is no public method"):
            offered(instance, only=["run"])

    def test_a_name_that_is_no_text_or_private_or_empty_is_refused(self) -> None:
        class Slots:
            __slots__ = ("_hidden", "empty")

            def real(self) -> None:
                """The only method there is."""

        instance: Any = Slots()
        instance._hidden = len

        for name in ("_hidden", "empty", "missing", "__init__", 3):
            with pytest.raises(ValueError, match=f"methods: {name!r} is no public method"):
                offered(instance, only=[name])

    def test_what_may_run_again_is_what_is_offered(self) -> None:
        instance = instance_with(twice)
        instance.run = len

        with pytest.raises(ValueError, match="idempotent: 'run'"):
            offered(instance, idempotent=["run"])
        assert set(offered(instance, only=["run"], idempotent=["run"])) == {"run"}


class TestTricks:
    def test_an_instance_is_not_asked_what_it_has(self) -> None:
        class Metaclass(type):
            @property
            def __mro__(cls) -> Any:
                return evaluate()

            @property
            def __dict__(cls) -> Any:
                return evaluate()

            @property
            def __name__(cls) -> Any:
                return evaluate()

            def __dir__(cls) -> Any:
                return evaluate()

            def __getattr__(cls, name: str) -> Any:
                return evaluate()

            def __getattribute__(cls, name: str) -> Any:
                return evaluate()

            def __instancecheck__(cls, instance: Any) -> Any:
                return evaluate()

            def __subclasscheck__(cls, derived: Any) -> Any:
                return evaluate()

        class Tricky(metaclass=Metaclass):
            def real(self) -> str:
                return "real"

            @property
            def __class__(self) -> Any:
                return evaluate()

            def __dir__(self) -> Any:
                return evaluate()

            def __getattribute__(self, name: str) -> Any:
                return evaluate()

            def __getattr__(self, name: str) -> Any:
                return evaluate()

            def __repr__(self) -> Any:
                return evaluate()

            def __eq__(self, other: object) -> Any:
                return evaluate()

            __hash__ = None  # type: ignore[assignment]

            def __bool__(self) -> Any:
                return evaluate()

        instance = Tricky()
        evaluated.clear()

        assert set(offered(instance)) == {"real"}
        assert offered(instance)["real"]() == "real"
        assert set(offered(instance, only=["real"])) == {"real"}
        for name in ("unreal", "__mro__"):
            with pytest.raises(ValueError, match="no public method"):
                offered(instance, only=[name])
        with pytest.raises(TypeError, match="is a class; pass an instance"):
            offered(Tricky)

    def test_an_attribute_of_the_type_is_not_asked_what_it_is(self) -> None:
        class Attribute:
            @property
            def __class__(self) -> Any:
                return evaluate()

            def __getattr__(self, name: str) -> Any:
                return evaluate()

            def __eq__(self, other: object) -> Any:
                return evaluate()

            __hash__ = None  # type: ignore[assignment]

        assert set(offered(instance_with(Attribute()))) == {"real"}


async def coroutine(*args: Any) -> int:
    return len(args)


def generator(*args: Any) -> Iterator[int]:
    yield 1


async def asynchronous_generator(*args: Any) -> AsyncIterator[int]:
    yield 1


def dispatching(method: Any) -> Any:
    """A method that is another one for ints."""
    dispatched = functools.singledispatchmethod(twice)
    dispatched.register(int)(method)
    return dispatched


class TestGenerators:
    WRAPPED: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "as it is": lambda method: method,
        "staticmethod": staticmethod,
        "classmethod": classmethod,
        "lru_cache": functools.lru_cache,
        "partialmethod": lambda method: functools.partialmethod(method, 1),
        "partial in a staticmethod": lambda method: staticmethod(functools.partial(method, 1)),
        "partialmethod of a classmethod": lambda method: functools.partialmethod(
            classmethod(method), 1
        ),
        "cache in a staticmethod": lambda method: staticmethod(functools.cache(method)),
        "singledispatchmethod": functools.singledispatchmethod,
        "one of several": dispatching,
    }
    METHODS = (generator, asynchronous_generator)

    @pytest.mark.parametrize("method", METHODS)
    @parametrize(WRAPPED)
    def test_is_refused_in_a_type(self, found: Any, method: Any) -> None:
        instance = instance_with(found(method))

        for options in ({}, {"only": ["it"]}, {"only": ["real", "it"]}):
            with pytest.raises(TypeError, match=r"method 'it' is an? .*return a list; methods="):
                offered(instance, **options)
        assert set(offered(instance, only=["real"])) == {"real"}

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(
        "wrap",
        [lambda method: method, functools.cache, functools.partial],
        ids=["bare", "cached", "partial"],
    )
    def test_is_refused_in_an_instance_and_as_a_function(self, wrap: Any, method: Any) -> None:
        instance = instance_with(3)
        instance.run = wrap(method)

        with pytest.raises(TypeError, match="return a list"):
            offered(instance, only=["run"])
        with pytest.raises(TypeError, match="return a list"):
            MethodRegistry().add_function(wrap(method), "run")

    @pytest.mark.parametrize("method", METHODS)
    def test_is_refused_as_the_call_of_an_object(self, method: Any) -> None:
        found = type("Called", (), {"__call__": method})()
        instance = instance_with(found)

        with pytest.raises(TypeError, match="return a list"):
            offered(instance, only=["it"])
        with pytest.raises(TypeError, match="return a list"):
            MethodRegistry().add_function(found, "run")


class TestCoroutines:
    CACHED = ("lru_cache", "cache in a staticmethod")

    @parametrize({k: wrap for k, wrap in TestGenerators.WRAPPED.items() if "cache" not in k})
    def test_are_told_from_other_methods(self, found: Any) -> None:
        with pytest.raises(TypeError, match="is a coroutine function"):
            check_called_plainly(found(coroutine), "it")
        check_called_plainly(found(twice), "it")

    @pytest.mark.parametrize("name", CACHED)
    def test_in_a_cache_are_refused(self, name: str) -> None:
        instance = instance_with(TestGenerators.WRAPPED[name](coroutine))

        with pytest.raises(TypeError, match="'it' is a cache of a coroutine"):
            offered(instance)

    def test_are_waited_for_as_functions_methods_and_objects(self) -> None:
        registry = MethodRegistry()
        found = type("Called", (), {"__call__": coroutine})()
        registry.add_function(coroutine)
        registry.add_function(functools.partial(coroutine, 1), "partial")
        registry.add_function(found, "object")
        registry.add_instance(instance_with(coroutine), "x")
        registry.add_instance(instance_with(dispatching(coroutine)), "several")
        names = ("coroutine", "partial", "object", "x.it", "several.it")
        results = [registry.resolve(name, [5])() for name in names]
        plain = registry.resolve("several.it", ["text"])()
        registry.coroutines.close()
        registry.coroutines.join(Deadline(60))

        assert results == [1, 2, 2, 2, 2]
        assert plain == "texttext"


class TestWhatIsNoInstance:
    def test_a_class_is_refused_with_what_to_write(self) -> None:
        class Calc:
            def add(self, a: int, b: int) -> int:
                return a + b

        with pytest.raises(TypeError, match=r"register_class\(Calc\(\), 'calc'\)"):
            MethodRegistry().add_instance(Calc, "calc")

    @pytest.mark.parametrize("nothing", [None, object(), functools, lambda: 3])
    def test_what_has_no_public_method_is_refused(self, nothing: Any) -> None:
        with pytest.raises(TypeError, match=r"has no public methods; .* methods=\[...\]"):
            MethodRegistry().add_instance(nothing, "nothing")

    def test_what_is_refused_leaves_what_was_there(self) -> None:
        registry = MethodRegistry()
        registry.add_instance(instance_with(twice), "x")

        for refused in (object(), dict, instance_with(generator)):
            with pytest.raises(TypeError):
                registry.add_instance(refused, "x")

        assert registry.resolve("x.it", [4])() == 8
        with pytest.raises(QAMMethodNotFoundException):
            registry.resolve("x.run", [])

    def test_functions_of_a_module_are_offered_where_they_are_named(self) -> None:
        assert set(offered(functools, only=["reduce"])) == {"reduce"}
