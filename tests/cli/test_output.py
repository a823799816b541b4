import datetime
import io
import json
import sys
import uuid
from decimal import Decimal
from typing import Any

import pytest

from qam._cli import output
from qam._cli.exits import FAILED, Mistake


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (None, "null"),
        ("ü", '"ü"'),
        ("\x1b[2J\x9b", '"\\u001b[2J\\u009b"'),
        ((1, [2.5, True]), "[1, [2.5, true]]"),
        ({"a": 1, 2: 3}, '{"a": 1, "2": 3}'),
        ({7}, "[7]"),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (datetime.datetime(2026, 1, 2, 3), '"2026-01-02T03:00:00"'),
        (Decimal("1.50"), '"1.50"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (b"\xff", "\"b'\\\\xff'\""),
        ({(1, 2): 3}, '"{(1, 2): 3}"'),
    ],
    ids=lambda each: type(each).__name__ if not isinstance(each, str) else None,
)
def test_a_result_is_shown_as_json(value: Any, text: str) -> None:
    assert output.as_json(value) == text
    json.loads(text)


def test_a_list_that_contains_itself_is_shown_as_a_text() -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert output.as_json(endless) == '"[[...]]"'


def test_what_is_told_is_one_line_that_no_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.tell("qam call", "two\nlines \x1b[2J \ud800")

    assert capsys.readouterr().err == "qam call: two lines \\x1b[2J \\ud800\n"


def test_what_the_terminal_can_not_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)

    output.write("ü")

    assert stdout.buffer.getvalue() == b"\\xfc\n"  # type: ignore[attr-defined]


def test_without_a_stdout_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    output.write("5")


class Full(io.StringIO):
    """A disk without room."""

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full())

    with pytest.raises(Mistake, match="stdout can't be written: No space left") as raised:
        output.write("5")

    assert raised.value.exit_code == FAILED
