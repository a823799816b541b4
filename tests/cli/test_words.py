from typing import Any

import pytest

from qam._cli.exits import WRONG_USE, Mistake
from qam._cli.words import arguments_of


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("2", 2),
        ("-2.5", -2.5),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
        ('"2"', "2"),
        ('"a=b"', "a=b"),
        ("", ""),
        ("True", "True"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("two words", "two words"),
        ("2026-01-02", "2026-01-02"),
        ("a-b=c", "a-b=c"),
        ("=c", "=c"),
        ("1=2", "1=2"),
    ],
)
def test_an_argument_is_json_or_else_a_text(word: str, value: Any) -> None:
    assert arguments_of([word]) == ([value], {})


@pytest.mark.parametrize(
    ("word", "kwargs"),
    [
        ("a=1", {"a": 1}),
        ("größe=x", {"größe": "x"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ('a="1"', {"a": "1"}),
        ("class=1", {"class": 1}),
    ],
)
def test_a_name_makes_it_a_keyword_argument(word: str, kwargs: dict[str, Any]) -> None:
    assert arguments_of([word]) == ([], kwargs)


def test_positional_and_keyword_arguments_may_be_mixed() -> None:
    assert arguments_of(["1", "a=2", "3"]) == ([1, 3], {"a": 2})


@pytest.mark.parametrize("word", ["[1, 2", "{a: 1}", '"a', "a=[1,", " [", "[" * 100_000])
def test_what_begins_like_json_and_is_none_is_refused(word: str) -> None:
    with pytest.raises(
        Mistake, match=r"begins like JSON, and is none: .* in a shell, put"
    ) as raised:
        arguments_of([word])

    assert raised.value.exit_code == WRONG_USE
    assert len(str(raised.value)) < 400


def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.raises(Mistake, match="the argument a= is given twice"):
        arguments_of(["a=1", "a=2"])
