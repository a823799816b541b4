from pathlib import Path

import pytest

from tests.each.measure import ROOT, Coverage, NotGreenByItselfError, cover
from tests.each.table import faults_of_the_table, files_that_test, modules


def test_each_module_has_tests_and_each_test_file_a_module() -> None:
    assert faults_of_the_table() == []
    assert len(modules()) > 50


def test_a_module_is_tested_by_the_file_of_its_name_if_nothing_else_is_said() -> None:
    assert files_that_test("qam/_server/intake.py") == ["tests/server/test_intake.py"]
    assert files_that_test("qam/_server/no_such_module.py") == []


def test_files_that_cover_a_module_together_make_up_for_each_other() -> None:
    one = Coverage(frozenset([1, 2, (2, 3)]), frozenset([3, (2, 4)]))
    other = Coverage(frozenset([1, 2, 3]), frozenset([(2, 3), (2, 4)]))

    both = one | other

    assert both.missing == {(2, 4)}
    assert both.percent == 80.0
    assert both.missing_lines == [2]
    assert Coverage().percent == 100.0


def test_what_a_file_covers_by_itself_is_measured() -> None:
    covered = cover("tests/broker/test_later.py")

    assert covered["qam/_broker/later.py"].percent > 95.0
    assert covered["qam/_broker/fates.py"].percent < 95.0


def test_a_file_that_is_not_green_says_nothing(tmp_path: Path) -> None:
    failing = tmp_path / "test_failing.py"
    failing.write_text("def test_it() -> None:\n    assert False, 'on purpose'\n")

    with pytest.raises(NotGreenByItselfError, match="on purpose"):
        cover(str(failing))
    assert ROOT.joinpath("pyproject.toml").exists()
