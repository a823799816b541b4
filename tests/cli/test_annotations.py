import ast

import pytest

from qam._cli.annotations import Types


def written(annotation: str, taken: set[str] | None = None) -> tuple[str, set[str], set[str]]:
    """The type, and what has to be imported for it."""
    modules, of_typing = set[str](), set[str]()
    expression = ast.parse(annotation, mode="eval").body
    return Types(taken or set(), modules, of_typing).of(expression), modules, of_typing


@pytest.mark.parametrize(
    ("annotation", "type"),
    [
        ("int", "int"),
        ("None", "None"),
        ("int | None", "int | None"),
        ("Optional[str]", "str | None"),
        ("typing.Union[int, str, int]", "int | str"),
        ("list[int]", "list[int]"),
        ("List[Dict[str, float]]", "list[dict[str, float]]"),
        ("tuple[int, str]", "tuple[int, str]"),
        ("tuple[int, ...]", "tuple[int, ...]"),
        ("object", "object"),
    ],
)
def test_known_types_are_kept(annotation: str, type: str) -> None:
    assert written(annotation) == (type, set(), set())


@pytest.mark.parametrize(
    ("annotation", "type"),
    [
        ("Any", "Any"),
        ("shop.Order", "Any"),
        ("list[shop.Order]", "list[Any]"),
        ("list", "list[Any]"),
        ("dict", "dict[Any, Any]"),
        ("tuple", "tuple[Any, ...]"),
        ("list[int, str]", "Any"),
        ("Callable[[int], str]", "Any"),
        ("print('here')", "Any"),
        ("(lambda: 1)", "Any"),
        ("'text'", "Any"),
        ("...", "Any"),
        ("tuple[..., int]", "tuple[Any, int]"),
        ("os.system", "Any"),
    ],
)
def test_what_is_not_known_is_any(annotation: str, type: str) -> None:
    assert written(annotation) == (type, set(), {"Any"})


def test_types_of_well_known_modules_are_imported() -> None:
    assert written("datetime.date | decimal.Decimal") == (
        "datetime.date | decimal.Decimal",
        {"datetime", "decimal"},
        set(),
    )


@pytest.mark.parametrize(
    ("annotation", "type"),
    [
        ("Literal['a', 1, None]", 'Literal["a", 1, None]'),
        ("Literal['\"']", "Literal['\"']"),
        ("Literal['\\n']", "Literal['\\n']"),
    ],
)
def test_literals_are_kept(annotation: str, type: str) -> None:
    assert written(annotation) == (type, set(), {"Literal"})


def test_a_literal_of_something_else_is_any() -> None:
    assert written("Literal[f()]")[0] == "Any"


def test_a_builtin_that_a_method_hides_is_named_with_its_module() -> None:
    assert written("list[int]", {"list"}) == ("builtins.list[int]", {"builtins"}, set())
    assert written("shop.Order", {"Any"}) == ("typing.Any", {"typing"}, set())
    assert written("datetime.date", {"datetime"})[0] == "Any"
