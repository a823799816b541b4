"""The promises to users and the page that says how they are kept have the same rows.

The second page names tests for each row, and each of them exists.
"""

import re
from pathlib import Path

import pytest

import qam
from tests.contract.test_architecture_page import spans

ROOT = Path(__file__).parents[2]
PROMISES = (ROOT / "docs/topics/guarantees.md").read_text(encoding="utf-8")
KEPT = (ROOT / "docs/project/how-guarantees-are-kept.md").read_text(encoding="utf-8")


def rows_of(page: str) -> list[list[str]]:
    """The cells of the rows that begin with a number."""
    rows = re.findall(r"^\| (\d+ \| .*) \|$", page, re.MULTILINE)
    return [row.split(" | ") for row in rows]


@pytest.mark.parametrize("page", [PROMISES, KEPT], ids=["promises", "kept"])
def test_both_pages_have_all_rows(page: str) -> None:
    assert [int(number) for number, *_ in rows_of(page)] == list(range(1, 26))


def test_the_rows_of_both_pages_are_about_the_same_failures() -> None:
    assert [row[:2] for row in rows_of(PROMISES)] == [row[:2] for row in rows_of(KEPT)]


@pytest.mark.parametrize("row", rows_of(PROMISES), ids=lambda row: row[0])
def test_each_promise_is_told_in_one_cell_without_the_inside(row: list[str]) -> None:
    _, _, promise = row

    assert promise
    assert not re.search(r"tests/|`_\w+|method_queue|\brecord\b", promise)


@pytest.mark.parametrize("row", rows_of(KEPT), ids=lambda row: row[0])
def test_each_row_names_tests_that_exist(row: list[str]) -> None:
    number, _, how, named = row
    tests = re.findall(r"`(tests/[^`]+)`", named)

    assert how
    assert tests, f"row {number} names no test"
    for test in tests:
        path, _, name = test.partition("::")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^\s*(def|class) {name}\b", source, re.MULTILINE), test


@pytest.mark.parametrize("row", rows_of(PROMISES), ids=lambda row: row[0])
def test_both_pages_tell_the_same_exceptions_of_a_row(row: list[str]) -> None:
    (kept,) = [how for number, _, how, _ in rows_of(KEPT) if number == row[0]]

    promised = {name for name in spans(row[2]) if name.endswith("Exception")}
    assert {name for name in spans(kept) if name.endswith("Exception")} == promised
    assert all(hasattr(qam, name) for name in promised)


def test_users_are_led_to_how_the_promises_are_kept_and_maintainers_back() -> None:
    assert "](../project/how-guarantees-are-kept.md)" in PROMISES
    assert "](../topics/guarantees.md)" in KEPT
