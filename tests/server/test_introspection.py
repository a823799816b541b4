import functools
from collections.abc import Callable
from typing import Any

import pytest

from qam import QAMMethodNotFoundException, QAMProxy, QAMServer
from qam._common.version import own_version
from qam._server.introspection import Introspection, doc_of, signature_of
from qam._server.method_registry import MethodRegistry
from tests.conftest import Broker


class Color:
    """A class of the application."""

    def __repr__(self) -> str:
        raise AssertionError("code of the application runs")


def add(a: int, b: int = 0) -> int:
    """Return the sum."""
    return a + b


def quoted(a: "list[int]", *, color: "Color | None" = None) -> "Color":
    """Has annotations that are texts."""
    raise NotImplementedError


def inside() -> Callable[..., Any]:
    class Hidden:
        pass

    def method(a: Hidden, b: Any = Hidden(), c: float = 0.5) -> Any:  # noqa: B008
        return a, b, c

    return method


def described(**methods: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    registry = MethodRegistry()
    for name, method in methods.items():
        registry.add_function(method, name)
    description = Introspection("calc", registry).describe()
    return {each["name"]: each for each in description["methods"]}


# --- signatures ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "signature"),
    [
        (add, "(a: int, b: int = 0) -> int"),
        (quoted, "(a: list[int], *, color: Color | None = None) -> Color"),
        (lambda a, /, b, *rest, **named: None, "(a, /, b, *rest, **named)"),
        (functools.partial(add, 1), "(b: int = 0) -> int"),
        (str.upper, "(self, /)"),
        (min, "(*args, **kwargs)"),
        (inside(), "(a, b: Any = ..., c: float = 0.5) -> Any"),
    ],
    ids=["function", "texts", "kinds", "partial", "builtin", "without", "no-expressions"],
)
def test_a_signature_is_written_as_in_python(method: Callable[..., Any], signature: str) -> None:
    assert signature_of(method) == signature


def test_a_default_that_is_no_plain_value_is_not_shown() -> None:
    def paint(color: Color = Color(), name: str = "x" * 201, key: bytes = b"a") -> None:  # noqa: B008
        """Has values of the application as its defaults."""

    module = Color.__module__
    assert signature_of(paint) == (
        f"(color: {module}.Color = ..., name: str = ..., key: bytes = b'a') -> None"
    )


def test_code_of_the_application_that_fails_costs_its_signature_alone() -> None:
    class Annotation:
        def __repr__(self) -> str:
            raise ValueError

    def method(a: Annotation()) -> None:  # type: ignore[valid-type]
        """Can't be shown."""

    methods = described(add=add, method=method)

    assert methods["method"]["signature"] == "(*args, **kwargs)"
    assert methods["add"]["signature"] == "(a: int, b: int = 0) -> int"


def test_a_long_signature_is_told_without_its_parameters() -> None:
    names = ", ".join(f"parameter_{number}" for number in range(100))
    method = eval(f"lambda {names}: None")

    assert signature_of(method) == "(*args, **kwargs)"


async def later(a: int) -> str:
    """Return it as a text."""
    return str(a)


def test_a_coroutine_function_is_told_as_what_its_caller_calls() -> None:
    (method,) = described(later=later).values()

    assert (method["signature"], method["doc"]) == ("(a: int) -> str", "Return it as a text.")


# --- docstrings ---------------------------------------------------------------------------


def test_a_docstring_is_told_without_its_indentation() -> None:
    def method() -> None:
        """Do it.

        And do it well.
        """

    assert doc_of(method) == "Do it.\n\nAnd do it well."
    assert doc_of(functools.partial(functools.lru_cache(add), 1)) == "Return the sum."
    assert doc_of(lambda: None) == ""


def test_a_docstring_is_cut() -> None:
    def method() -> None: ...

    method.__doc__ = "x" * 5000

    assert doc_of(method) == "x" * 4000 + "…"


def test_a_docstring_that_can_not_be_read_is_none() -> None:
    class Method:
        @property
        def __doc__(self) -> str:  # type: ignore[override]
            raise ValueError

        def __call__(self) -> None: ...

    assert doc_of(Method()) == ""


def test_an_object_that_has_every_attribute_is_described() -> None:
    class Endless:
        """Is like a method of another kind of proxy."""

        def __getattr__(self, name: str) -> "Endless":
            return Endless()

        def __call__(self) -> None: ...

    assert doc_of(Endless()) == "Is like a method of another kind of proxy."
    assert signature_of(Endless()) == "(*args, **kwargs)"


# --- descriptions -------------------------------------------------------------------------


def test_a_description_has_a_megabyte_of_texts_at_most() -> None:
    def method(a: int) -> None: ...

    method.__doc__ = "x" * 4000
    methods = described(**{f"method_{number:03}": method for number in range(300)})

    assert len(methods) == 300
    assert methods["method_000"] == {
        "name": "method_000",
        "signature": "(a: int) -> None",
        "doc": "x" * 4000,
        "idempotent": False,
    }
    assert methods["method_299"]["doc"] == ""
    assert sum(len(each["doc"]) + len(each["signature"]) for each in methods.values()) <= 2**20


def test_what_is_registered_later_is_described_too() -> None:
    registry = MethodRegistry()
    introspection = Introspection("calc", registry)
    registry.add_function(add, idempotent=True)

    assert introspection.list_methods() == ["add"]
    assert [each["idempotent"] for each in introspection.describe()["methods"]] == [True]


# --- from a proxy -------------------------------------------------------------------------


class Counter:
    def add(self, number: int) -> int:
        """Add it; return the total."""
        return number


def make_server(broker: Broker, server_id: str, **options: Any) -> QAMServer:
    server = QAMServer(server_id=server_id, **options, **broker.kwargs)
    server.register_function(add, idempotent=True)
    server.register_class(Counter(), "counter")
    server.start()
    return server


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_a_proxy_asks_what_its_server_offers(
    broker: Broker, server_id: str, serializer: str
) -> None:
    with (
        make_server(broker, server_id, serializer=serializer),
        QAMProxy(server_id, timeout=60, serializer=serializer, **broker.kwargs) as proxy,
    ):
        assert proxy.system.listMethods() == ["add", "counter.add"]
        assert proxy.system.methodHelp("counter.add") == "Add it; return the total."
        assert proxy.system.methodSignature("add") == "(a: int, b: int = 0) -> int"
        description = proxy.system.describe()
        assert description["server_id"] == server_id
        assert description["version"][0].isdigit()
        assert description["methods"][0] == {
            "name": "add",
            "signature": "(a: int, b: int = 0) -> int",
            "doc": "Return the sum.",
            "idempotent": True,
        }
        with pytest.raises(LookupError, match="no method 'subtract' is registered"):
            proxy.system.methodHelp("subtract")


def test_a_server_can_keep_to_itself_what_it_offers(broker: Broker, server_id: str) -> None:
    with (
        make_server(broker, server_id, introspection=False),
        QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy,
    ):
        assert proxy.system.ping() is None
        for method in ("listMethods", "methodHelp", "methodSignature", "describe"):
            with pytest.raises(QAMMethodNotFoundException):
                proxy[f"system.{method}"]()
        assert proxy.add(2, 3) == 5


def test_no_application_can_replace_what_a_server_tells(broker: Broker, server_id: str) -> None:
    with QAMServer(server_id=server_id, **broker.kwargs) as server:
        with pytest.raises(ValueError, match="'system' is reserved"):
            server.register_function(add, "system.describe")
        with pytest.raises(TypeError, match="introspection must be True or False"):
            QAMServer(server_id=server_id, introspection=1, **broker.kwargs)  # type: ignore[arg-type]


def test_a_copy_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])

    assert own_version() == "unknown"
