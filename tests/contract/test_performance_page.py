"""The page about performance shows the figures of the data beside it, and says who was measured."""

import re
from pathlib import Path

import pytest

from tests.benchmarks import page
from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.measures import COLUMNS
from tests.benchmarks.options import _parser
from tests.benchmarks.published import read

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/topics/performance.md"
TEXT = PAGE.read_text(encoding="utf-8")
DATA = read(page.folder_of(PAGE))
PLOTS = re.findall(r"^!\[(.*)\]\((performance/.+\.svg)\)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("name", "section"), page.sections_of(DATA).items())
def test_each_table_is_that_of_the_data(name: str, section: str) -> None:
    assert page.part(TEXT, name) == section


@pytest.mark.parametrize(("shows", "file"), PLOTS)
def test_each_plot_is_there_and_is_described(shows: str, file: str) -> None:
    assert "<svg" in (PAGE.parent / file).read_text(encoding="utf-8")
    assert shows


def test_no_plot_is_left_that_the_page_does_not_show() -> None:
    drawn = {path.name for path in page.folder_of(PAGE).glob("*.svg")}

    assert drawn == {Path(file).name for _, file in PLOTS} != set()


def test_the_figures_are_of_a_run_without_failures() -> None:
    assert DATA["failures"] == []
    assert DATA["contestants"] == list(CONTESTANTS)


def test_each_contestant_is_described_and_no_other() -> None:
    rows = TEXT[TEXT.index("### Who takes part") :]

    assert set(re.findall(r"^\| `([\w.-]+)`", rows, re.MULTILINE)) == CONTESTANTS.keys()


def test_each_figure_is_explained() -> None:
    rows = re.findall(r"^\| ([\w ,]+) \| ", TEXT[TEXT.index("| figure | |") :], re.MULTILINE)
    explained = " ".join(rows)

    compared = [column.name for column in COLUMNS if column.compared]
    assert [name for name in compared if name.removeprefix("sync ") not in explained] == []


def test_each_option_is_listed_and_no_other() -> None:
    options = {each for action in _parser()._actions for each in action.option_strings}

    listed = set(re.findall(r"^\| `(--\w+)", TEXT, re.MULTILINE))
    assert listed == {each for each in options if each.startswith("--")} - {"--help"}
