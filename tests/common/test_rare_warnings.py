"""What others can make happen as often as they like is told a few times a minute."""

import pytest

from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from tests.support.clock import MovableClock

log = get_logger("qam.qam_server")


@pytest.mark.parametrize("at_most", [1, 3])
def test_so_many_are_told_in_a_minute(at_most: int, caplog: pytest.LogCaptureFixture) -> None:
    warnings = RareWarnings(log, MovableClock(), at_most)

    for number in range(10):
        warnings.warn("number %d", number)

    assert caplog.messages == [f"number {each}" for each in range(at_most)]


def test_the_first_of_the_next_minute_says_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = MovableClock()
    warnings = RareWarnings(log, clock, at_most=2)
    for _ in range(5):
        warnings.warn("before")
    caplog.clear()

    clock.advance(59.9)
    warnings.warn("too early")
    clock.advance(0.2)
    for _ in range(3):
        warnings.warn("after %s", "that")

    assert caplog.messages == [
        "after that (and 4 times more since the last warning)",
        "after that",
    ]
