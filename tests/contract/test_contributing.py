"""The page for contributors names commands, files, fixtures and tools that there are."""

import configparser
import re
from pathlib import Path

import pytest

from tests.contract.test_architecture_page import names_in, spans

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SUPPORT = ROOT / "tests" / "support"

ENVIRONMENTS = sorted(
    {name for names in re.findall(r"tox run -e ([\w,]+)", PAGE) for name in names.split(",")}
)
#: The rows of the tools in `tests/support`.
TOOLS = re.findall(
    r"^\| (.*) \| (.*) \|$", PAGE.partition("The tools in `tests/support`")[2], re.MULTILINE
)
TOOLS = [row for row in TOOLS if row[0].startswith("`")]


def tox_file() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    return parser


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_row_of_tox_that_is_named_exists(name: str) -> None:
    # py is the base of all others
    assert name == "py" or tox_file().has_section(f"testenv:{name}")


def test_each_label_of_tox_that_is_named_exists() -> None:
    labels = re.findall(r"^(\w+) = ", tox_file().get("tox", "labels").strip(), re.MULTILINE)

    assert set(re.findall(r"tox run -m (\w+)", PAGE)) == set(labels)


def test_each_row_that_is_not_in_the_gate_is_told_of() -> None:
    tox = tox_file()
    gate = tox.get("tox", "env_list").split(", ")
    rows = {each.partition(":")[2] for each in tox.sections() if each.startswith("testenv:")}
    by_label = {"py{312,313,314}"}

    assert rows - set(gate) - by_label - set(ENVIRONMENTS) == set()


def test_the_row_apart_from_coverage_names_each_file_that_has_tests_for_it() -> None:
    command = tox_file().get("testenv:uncovered", "commands")
    named = {ROOT / path for path in re.findall(r"tests/[\w/]+(?:\.py)?", command)}
    marked = [
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"pytest\.mark\.(watched|cluster)\b", path.read_text(encoding="utf-8"))
    ]

    assert marked
    assert [path for path in marked if named.isdisjoint({path, *path.parents})] == []


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:tests|qam)/[\w/]+(?:\.py)?)`", PAGE)))
)
def test_each_file_or_folder_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_each_module_of_the_tools_is_listed_once() -> None:
    listed = [name for modules, _ in TOOLS for name in spans(modules)]

    modules = {path.stem for path in SUPPORT.glob("*.py") if not path.stem.startswith("test_")}
    assert sorted(listed) == sorted(modules - {"__init__"})


@pytest.mark.parametrize(("modules", "gives"), TOOLS)
def test_each_tool_that_is_named_is_in_its_module(modules: str, gives: str) -> None:
    files = [SUPPORT / f"{name}.py" for name in spans(modules)]

    there = frozenset[str]().union(*(names_in(file.read_text(encoding="utf-8")) for file in files))
    assert set(spans(gives)) - there == set()


@pytest.mark.parametrize("name", ["broker", "rabbitmq_node", "own_node", "service", "proxy"])
def test_each_fixture_that_is_named_exists(name: str) -> None:
    assert f"`{name}`" in PAGE
    assert name in names_in((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
