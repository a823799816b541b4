import subprocess
import sys
from pathlib import Path

from tests.each.__main__ import _faults_of, _lines_of
from tests.each.measure import ROOT, Coverage, NotGreen
from tests.each.table import BELOW, faults_of_the_table, files_that_test, modules

MODULE = "qam/_server/intake.py"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_each_module_has_tests_and_each_test_file_a_module() -> None:
    assert faults_of_the_table() == []
    assert len(modules()) > 50


def test_a_module_is_tested_by_the_file_of_its_name_if_nothing_else_is_said() -> None:
    assert files_that_test(MODULE) == ["tests/server/test_intake.py"]
    assert files_that_test("qam/_server/no_such_module.py") == []


def test_files_that_cover_a_module_together_make_up_for_each_other() -> None:
    one = Coverage(frozenset([1, 2, (2, 3)]), frozenset([3, (2, 4)]))
    other = Coverage(frozenset([1, 2, 3]), frozenset([(2, 3), (2, 4)]))

    both = one | other

    assert both.missing == {(2, 4)}
    assert both.percent == 80.0
    assert both.missing_lines == [2]
    assert Coverage().percent == 100.0


def test_a_module_of_which_too_little_is_covered_is_a_fault_with_its_lines() -> None:
    half = Coverage(frozenset([1]), frozenset([7]))

    lines = list(_lines_of(MODULE, [{MODULE: half}]))

    assert lines == [
        (f"  50.0 %  {MODULE}  by tests/server/test_intake.py", False),
        (f"{MODULE}: less than 95 % is covered by its own tests; lines 7", True),
    ]


def test_a_module_that_needs_no_excuse_any_more_is_a_fault() -> None:
    excused = next(iter(BELOW))

    assert _faults_of(excused, Coverage(frozenset([1]))) != []
    assert _faults_of(excused, Coverage(frozenset([1]), frozenset([2]))) == []


def test_of_a_module_whose_tests_fail_no_percentage_is_told() -> None:
    failed = NotGreen("tests/server/test_intake.py", "1 failed")

    ((line, is_fault),) = _lines_of(MODULE, [failed])

    assert "?" in line
    assert not is_fault  # the test file itself is one


def test_what_a_file_covers_by_itself_is_told_line_by_line() -> None:
    ran = run("-m", "tests.each", "qam/_broker/later.py", "qam/_broker/upkeep.py")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    *modules_told, faults = ran.stdout.splitlines()
    assert sorted(modules_told) == [
        " 100.0 %  qam/_broker/later.py  by tests/broker/test_later.py",
        " 100.0 %  qam/_broker/upkeep.py  by tests/broker/test_upkeep.py",
    ]
    assert faults == "0 faults"


def test_a_module_that_is_not_there_is_refused() -> None:
    ran = run("-m", "tests.each", "qam/_broker/no_such_module.py")

    assert ran.returncode == 2
    assert "no such module: qam/_broker/no_such_module.py" in ran.stderr


def test_a_file_that_is_not_green_tells_why(tmp_path: Path) -> None:
    # given
    failing = tmp_path / "test_failing.py"
    failing.write_text("def test_it() -> None:\n    assert False, 'on purpose'\n")
    measure = (
        "import sys; from tests.each.measure import cover_each; "
        "[print(outcome) for _, outcome in cover_each({sys.argv[1]: []}, 1)]"
    )

    # when
    ran = run("-c", measure, str(failing))

    # then
    assert ran.stdout.startswith(f"{failing} is not green by itself:")
    assert "on purpose" in ran.stdout
