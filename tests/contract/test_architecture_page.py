"""The page of the architecture names what there is: each module, and no function that is gone."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.contract.test_layers import ORDER

ROOT = Path(__file__).parents[2]
CODE = ROOT / "qam"
PAGE = (ROOT / "docs/project/architecture.md").read_text(encoding="utf-8")

#: A name of Python, or several with dots.
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def section(heading: str) -> str:
    """The part of the page below *heading*, up to the next of that level."""
    _, _, below = PAGE.partition(f"\n## {heading}\n")
    assert below, heading
    return below.partition("\n## ")[0]


def spans(text: str) -> list[str]:
    """What stands in code spans."""
    return re.findall(r"`([^`\n]+)`", text)


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in *text*, without their heads."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [line.split(" | ") for line in lines if not line.startswith(("what |", "module |"))]


@cache
def names_in(source: str) -> frozenset[str]:
    """What *source* defines: functions, classes, constants, and what is in classes."""
    return frozenset(_defined(ast.parse(source).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from _defined(node.body, f"{prefix}{node.name}.")
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            named = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from (prefix + each.id for each in named if isinstance(each, ast.Name))


def wrong_names(line: str) -> list[str]:
    """What *line* names that is not in the file that it has named last, or names before any."""
    wrong, names = [], frozenset[str]()
    for span in spans(line):
        if span.endswith(".py"):
            path = (ROOT if span.startswith("tests/") else CODE) / span
            names = frozenset()
            if path.is_file():
                names = names_in(path.read_text(encoding="utf-8"))
            else:
                wrong.append(span)
        elif NAME.fullmatch(span) and span not in names:
            wrong.append(span)
    return wrong


WALKS = section("Three walks through the code")
STEPS = [line for line in WALKS.splitlines() if line and not line.startswith("#")]
CHANGES = rows(section("Where do I change …"))


def test_the_import_rule_is_the_one_that_is_tested() -> None:
    [line] = re.findall(r"^exceptions < .*$", PAGE, re.MULTILINE)

    assert [set(part.strip("{}").split(", ")) for part in line.split(" < ")] == ORDER


def test_each_module_is_listed_once_and_none_that_is_not_there() -> None:
    listed = [spans(first)[0] for first, *_ in rows(section("The modules"))]

    modules = (path.relative_to(CODE) for path in CODE.rglob("*.py"))
    # The __init__.py of a package is the package, which another table names.
    there = {path.as_posix() for path in modules if path.parts[1:] != ("__init__.py",)}
    assert sorted(listed) == sorted(there)


def test_each_package_is_listed_with_what_it_is_for() -> None:
    listed = re.findall(r"^\| `(\w+)/` \| ", section("The packages"), re.MULTILINE)

    folders = {path.name for path in CODE.iterdir() if (path / "__init__.py").is_file()}
    assert sorted(listed) == sorted(folders | {"qam"})


@pytest.mark.parametrize("path", sorted({span for span in spans(PAGE) if span.endswith(".py")}))
def test_each_file_that_is_named_exists(path: str) -> None:
    assert ((ROOT if path.startswith("tests/") else CODE) / path).is_file()


@pytest.mark.parametrize("step", STEPS)
def test_each_step_of_a_walk_names_what_is_in_its_file(step: str) -> None:
    assert wrong_names(step) == []


@pytest.mark.parametrize(("what", "where", "tests"), CHANGES)
def test_each_row_names_what_is_in_its_file_and_where_it_is_tested(
    what: str, where: str, tests: str
) -> None:
    assert wrong_names(where) == []
    assert any(span.endswith(".py") for span in spans(where)), what
    assert any(span.startswith("tests/") for span in spans(tests)), what


def test_each_walk_has_its_steps() -> None:
    walks = WALKS.split("\n### ")[1:]

    assert [len(re.findall(r"^\d+\. ", walk, re.MULTILINE)) for walk in walks] == [11, 7, 9]


def test_what_is_not_in_its_file_is_found() -> None:
    line = (
        "`stray` `_broker/fates.py`: `Fate.RETURNED`, `UnderWay.lost`, `UnderWay.gone`, `Gone`; "
        "`_broker/connection_thread.py`: `_EXIT_TIMEOUT`, `UnderWay`; `gone.py`: `x`, `y=1`"
    )

    assert wrong_names(line) == ["stray", "UnderWay.gone", "Gone", "UnderWay", "gone.py", "x"]
