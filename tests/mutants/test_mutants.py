from pathlib import Path

import pytest

from tests.mutants.__main__ import MODULES
from tests.mutants.changes import changes_of
from tests.mutants.run import ROOT


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("return a < b", "return a <= b"),
        ("return a in b", "return a not in b"),
        ("return a and b", "return a or b"),
        ("return a + b", "return a - b"),
        ("return not a", "return a"),
        ("return True", "return False"),
        ("return 1", "return 2"),
        ("return max(a, b)", "return min(a, b)"),
        ("a.clear()", "pass"),
        ("a.b = c", "pass"),
        ("a += b", "pass"),
        ("return a if b else c", "return a if not b else c"),
    ],
)
def test_a_statement_is_changed_in_its_way(statement: str, changed: str) -> None:
    source = f"def f(a, b, c):\n    {statement}\n"

    assert f"def f(a, b, c):\n    {changed}" in [each.source for each in changes_of(source)]


def test_the_guard_of_a_case_is_dropped() -> None:
    source = "def f(a, b):\n    match a:\n        case 1 if b:\n            return a\n"

    assert any("case 1:" in change.source for change in changes_of(source))


@pytest.mark.parametrize(
    "statement", ["log.info(a)", "self._log.warning(a)", "'text'", "a: int", "return a"]
)
def test_what_decides_nothing_is_left_alone(statement: str) -> None:
    assert list(changes_of(f"LIMIT = 1\n\ndef f(a):\n    {statement}\n")) == []


def test_each_change_is_one_and_says_where_it_is() -> None:
    source = "def f(a):\n    if a > 1:\n        a.clear()\n    return a\n"

    changes = [str(change) for change in changes_of(source)]

    assert changes == [
        "line 2: a > 1  ->  a >= 1",
        "line 2: 1  ->  2",
        "line 3: a.clear()  ->  pass",
    ]


def test_all_that_is_changed_is_there() -> None:
    assert [module for module in MODULES if not Path(ROOT, module).exists()] == []


def test_each_change_of_a_module_can_be_compiled() -> None:
    module = "qam/_broker/later.py"
    changes = list(changes_of(Path(ROOT, module).read_text()))

    assert len(changes) > 10
    for change in changes:
        compile(change.source, module, "exec")
