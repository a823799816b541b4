"""The page of the guarantees names a test for each row, and each of them exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/topics/guarantees.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)


def test_the_page_has_all_rows() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 26))


@pytest.mark.parametrize(("number", "row"), ROWS)
def test_each_row_names_tests_that_exist(number: str, row: str) -> None:
    tests = re.findall(r"`(tests/[^`]+)`", row)
    assert tests, f"row {number} names no test"
    for test in tests:
        path, _, name = test.partition("::")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^\s*(def|class) {name}\b", source, re.MULTILINE), test
