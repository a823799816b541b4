import pytest

from qam._cli import exits
from qam._cli.exits import exit_code_of, mistake_of, raised_by_method
from qam.exceptions import (
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMMethodNotFoundException,
    QAMSerializationException,
    QAMServerLostException,
    QAMServerNotFoundException,
    QAMTimeoutException,
)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (QAMConnectionException("x"), 3),
        (QAMMethodNotFoundException("x"), 4),
        (QAMServerNotFoundException("x"), 5),
        (QAMTimeoutException("x"), 6),
        (QAMServerLostException("x"), 7),
        (QAMClosedException("x"), 7),
        (QAMException("x"), 7),
        (QAMSerializationException("x", executed="no"), 2),
        (QAMSerializationException("x", executed="yes"), 1),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, QAMException) else str(each),
)
def test_each_way_in_which_a_call_fails_has_its_exit_code(
    error: QAMException, exit_code: int
) -> None:
    assert exit_code_of(error) == mistake_of(error).exit_code == exit_code


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (QAMMethodNotFoundException("x"), "`qam methods calc`"),
        (QAMTimeoutException("x"), "`qam health calc`"),
        (QAMSerializationException("x"), "--serializer"),
    ],
    ids=["method", "timeout", "serialization"],
)
def test_what_to_do_is_told_too(error: QAMException, hint: str) -> None:
    assert hint in str(mistake_of(error, "calc"))
    assert str(mistake_of(error)) == "x"


def test_what_a_method_raised_is_told_with_its_type() -> None:
    assert str(raised_by_method("add", ValueError("no"), "calc")) == (
        "add() raised ValueError: no; executed: yes"
    )
    assert str(raised_by_method("add", KeyError(), "calc")) == (
        "add() raised KeyError; executed: yes"
    )
    wrong_arguments = raised_by_method("add", TypeError("missing"), "calc")
    assert "`qam methods calc` shows its parameters" in str(wrong_arguments)
    assert wrong_arguments.exit_code == exits.FAILED
