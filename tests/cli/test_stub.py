import ast

import pytest

from qam._cli.description import Described, Description
from qam._cli.stub import stub_of
from tests.cli.conftest import EXAMPLES, Run


def stub(*methods: tuple[str, str], server_id: str = "calc", doc: str = "") -> str:
    described = [Described(name, signature, doc, False) for name, signature in methods]
    return stub_of(Description(server_id, "1.0.0", described))


def classes(text: str) -> dict[str, ast.ClassDef]:
    return {each.name: each for each in ast.parse(text).body if isinstance(each, ast.ClassDef)}


def methods_of(text: str, name: str) -> list[str]:
    """The methods of a class, each in one line, without what they do."""
    body = classes(text)[name].body
    found = [each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [ast.unparse(each).splitlines()[-2].removesuffix(":") for each in found]


def test_the_example_is_what_is_written_for_its_server(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    from qam import QAMServer

    monkeypatch.setattr("sys.path", [str(EXAMPLES)])
    url = "memory://stub-of-the-example"
    with QAMServer(url, server_id="calc") as server:
        namespace: dict[str, object] = {"__name__": "calc"}
        exec((EXAMPLES / "calc.py").read_text(encoding="utf-8"), namespace)
        for name in ("add", "divide", "nap"):
            server.register_function(namespace[name], name)  # type: ignore[call-overload]
        server.start()

        # when
        exit_code, output, errors = run("methods", "calc", "--stub", "--broker", url)

    # then
    assert (exit_code, errors) == (0, "")
    assert output == (EXAMPLES / "calc_api.py").read_text(encoding="utf-8")


def test_the_methods_have_their_parameters_in_both_protocols() -> None:
    text = stub(("add", "(a: int, /, b: int = 0, *rest: str, c: float = ..., **more) -> None"))

    (line,) = methods_of(text, "Calc")
    assert line == (
        "def add(self, a: int, /, b: int=..., *rest: str, c: float=..., **more: Any) -> None"
    )
    assert methods_of(text, "AsyncCalc") == [f"async {line}"]
    assert "from typing import Any, Protocol" in text


def test_what_only_has_a_name_is_named_so() -> None:
    text = stub(("add", "(a, *, b)"), ("self", "(self)"), ("type", "(self, self_)"))

    assert methods_of(text, "Calc") == [
        "def add(self, a: Any, *, b: Any) -> Any",
        "def self(self_, self: Any) -> Any",
        "def type(self__, self: Any, self_: Any) -> Any",
    ]


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "(a",
        "(): pass\nimport os\ndef f()",
        "(a=)",
        "x(a)",
        "(a, *, a)",
        "\0",
        "(a) -> int: pass; x = (1)",
    ],
)
def test_what_is_no_signature_takes_any_arguments(signature: str) -> None:
    text = stub(("add", signature))

    assert methods_of(text, "Calc") == ["def add(self, *args: Any, **kwargs: Any) -> Any"]
    assert "import os" not in text


def test_a_long_line_is_broken() -> None:
    names = [f"parameter_{number}" for number in range(10)]
    text = stub(("add", f"({', '.join(f'{name}: int' for name in names)}) -> int"))

    assert max(map(len, text.splitlines())) <= 100
    assert "        parameter_0: int,\n" in text


def test_instances_have_protocols_of_their_own() -> None:
    text = stub(("shop.cart.add", "(what: str) -> int"), ("shop.open", "()"), ("shop", "() -> str"))

    assert list(classes(text)) == [
        *("CalcShopCart", "CalcShop", "Calc"),
        *("AsyncCalcShopCart", "AsyncCalcShop", "AsyncCalc"),
    ]
    assert methods_of(text, "Calc") == ["def shop(self) -> CalcShop"]
    assert methods_of(text, "CalcShop") == [
        "def cart(self) -> CalcShopCart",
        "def open(self) -> Any",
        "def __call__(self) -> str",
    ]
    assert methods_of(text, "AsyncCalcShopCart") == ["async def add(self, what: str) -> int"]


@pytest.mark.parametrize(
    ("server_id", "name"),
    [
        ("calc", "Calc"),
        ("shop.orders-2", "ShopOrders2"),
        ("my_service", "MyService"),
        ("größe", "Größe"),
        ("2", "Service2"),
        ("none", "ServiceNone"),
        ("any", "Any2"),
        ('"""\nimport os', "ImportOs"),
        ("§", "Service"),
    ],
)
def test_the_classes_are_named_after_the_server(server_id: str, name: str) -> None:
    text = stub(("add", "()"), server_id=server_id)

    assert list(classes(text)) == [name, f"Async{name}"]


def test_two_classes_never_have_one_name() -> None:
    text = stub(("a_b.c", "()"), ("aB.c", "()"), ("CalcAB", "()"))

    assert len(classes(text)) == 6
    assert len(ast.parse(text).body) == 2 + 6


@pytest.mark.parametrize("name", ["class", "close", "_add", "a.class", "a b", "", "x\nimport os"])
def test_what_is_no_attribute_of_a_proxy_is_left_out(name: str) -> None:
    text = stub((name, "()"), ("add", "()"))

    assert methods_of(text, "Calc") == ["def add(self) -> Any"]
    assert f"# Left out, since it is no attribute of a proxy: proxy[{name!r}]\n" in text
    assert "\nimport os" not in text


@pytest.mark.parametrize(
    ("doc", "shown"),
    [
        ("Return it.\n\nAnd more.", "Return it."),
        ('Say "no".', None),
        ("back\\slash", None),
        ('"""\n', None),
        ("x" * 200, None),
        ("\x1b[2J", None),
    ],
    ids=["first-line", "quotes", "backslash", "end", "long", "control"],
)
def test_a_docstring_is_kept_where_it_can_stand_as_it_is(doc: str, shown: str | None) -> None:
    text = stub(("add", "()"), doc=doc)

    method = classes(text)["Calc"].body[1]
    assert isinstance(method, ast.FunctionDef)
    assert ast.get_docstring(method) == shown


def test_a_server_without_methods_has_empty_protocols() -> None:
    assert methods_of(stub(), "Calc") == methods_of(stub(), "AsyncCalc") == []
