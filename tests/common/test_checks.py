import math
import sys
from typing import Any

import pytest

from qam._common import checks


@pytest.mark.parametrize("seconds", [1, 0.001, sys.float_info.max])
def test_a_timeout_is_a_positive_number_of_seconds(seconds: float) -> None:
    assert checks.check_timeout(seconds) == seconds
    assert type(checks.check_timeout(seconds)) is float


@pytest.mark.parametrize("wrong", [0, -1, math.inf, math.nan])
def test_no_other_number_is_one(wrong: float) -> None:
    with pytest.raises(ValueError, match="connect_timeout must be a positive, finite number"):
        checks.check_timeout(wrong, "connect_timeout")


@pytest.mark.parametrize("wrong", ["1", None, True, [1]], ids=repr)
def test_what_is_no_number_is_no_timeout(wrong: Any) -> None:
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        checks.check_timeout(wrong)


def test_a_heartbeat_fits_into_16_bits() -> None:
    checks.check_heartbeat(1)
    checks.check_heartbeat(65535)
    for wrong in (0, -1, 65536):
        with pytest.raises(ValueError, match="heartbeat must be 1 to 65535 seconds"):
            checks.check_heartbeat(wrong)
    for no_number in (1.5, True, "1"):
        with pytest.raises(TypeError, match="heartbeat must be a whole number"):
            checks.check_heartbeat(no_number)


def test_an_entity_name_leaves_room_for_what_is_added_to_it() -> None:
    checks.check_entity_name("x" * 190, "server_id")
    checks.check_entity_name("ä" * 95, "server_id")
    for wrong in ("", "x" * 191, "ä" * 96, "\ud800"):
        with pytest.raises(ValueError, match="server_id must have 1 to 190 bytes"):
            checks.check_entity_name(wrong, "server_id")
    with pytest.raises(TypeError, match="server_id must be a str"):
        checks.check_entity_name(b"x", "server_id")


def test_a_count_is_a_whole_number_from_one_on() -> None:
    assert checks.check_count(1, "max_workers") == 1
    assert checks.check_count(5, "prefetch", most=5) == 5
    with pytest.raises(ValueError, match="max_workers must be at least 1"):
        checks.check_count(0, "max_workers")
    with pytest.raises(ValueError, match="prefetch must be at most 5"):
        checks.check_count(6, "prefetch", most=5)
    for no_number in (True, 1.0, "1"):
        with pytest.raises(TypeError, match="max_workers must be a whole number"):
            checks.check_count(no_number, "max_workers")


def test_a_flag_is_true_or_false_and_nothing_else() -> None:
    assert checks.check_flag(True, "ssl")
    assert not checks.check_flag(False, "ssl")
    for wrong in (1, 0, None, "yes"):
        with pytest.raises(TypeError, match="ssl must be True or False"):
            checks.check_flag(wrong, "ssl")


def test_queue_arguments_are_copied() -> None:
    given = {"x-queue-type": "quorum"}
    checked = checks.check_queue_arguments(given)
    assert checked == given
    assert checked is not given
    assert checks.check_queue_arguments(None) == {}
    wrong: list[Any] = [["x"], "x", {1: 2}]
    for each in wrong:
        with pytest.raises(TypeError, match="queue_arguments must be a dict"):
            checks.check_queue_arguments(each)


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("x" * 255, True),
        ("x" * 256, False),
        ("ä" * 127, True),
        ("ä" * 128, False),
        ("\ud800", False),
        (b"x", False),
        (None, False),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_short_text_has_255_bytes_at_most(value: Any, fits: bool) -> None:
    assert checks.is_short_text(value) is fits


@pytest.mark.parametrize(
    ("value", "is_one"), [(0, True), (2**53, True), (2**53 + 1, False), (-1, False), (True, False)]
)
def test_a_count_of_peers_is_a_number_that_can_be_counted_to(value: Any, is_one: bool) -> None:
    assert checks.is_count(value) is is_one


@pytest.mark.parametrize(
    ("types", "found"),
    [
        (KeyError, (KeyError,)),
        ((KeyError, ValueError), (KeyError, ValueError)),
        ([KeyboardInterrupt], (KeyboardInterrupt,)),
        ((), ()),
    ],
)
def test_exceptions_are_named_by_one_class_or_several(types: Any, found: Any) -> None:
    assert checks.check_exceptions(types, "expected_exceptions") == found


@pytest.mark.parametrize("wrong", [3, int, "KeyError", KeyError("x"), [KeyError, int]], ids=repr)
def test_what_is_no_class_of_exceptions_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected_exceptions must be classes of exceptions"):
        checks.check_exceptions(wrong, "expected_exceptions")


def test_no_timeout_is_none() -> None:
    assert checks.check_timeout_or_none(None) is None
    assert checks.check_timeout_or_none(3) == 3.0
    with pytest.raises(ValueError, match="timeout must be a positive"):
        checks.check_timeout_or_none(0)
