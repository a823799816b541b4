import logging

import pytest

from qam._common.rare_warnings import RareWarnings
from tests.support.clock import StandingClock

log = logging.getLogger("tests.rare_warnings")


def test_it_warns_once_a_minute_and_says_how_many_went_unsaid(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given
    clock = StandingClock()
    warnings = RareWarnings(log, clock)
    # when
    for seconds in (0.0, 1.0, 58.0, 1.0):
        clock.now += seconds
        warnings.warn("%s is wrong", "this")
    clock.now += 60.0
    warnings.warn("all is wrong")
    # then
    assert caplog.messages == [
        "this is wrong",
        "this is wrong (and 2 times more since the last warning)",
        "all is wrong",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
