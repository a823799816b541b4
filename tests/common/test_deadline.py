import math
import threading
from fractions import Fraction
from typing import Any

import pytest

from qam._common import deadline as deadline_module
from qam._common.checks import check_timeout
from qam._common.deadline import Deadline, backoff, sooner


class FakeTime:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(deadline_module, "time", clock)
    return clock


def test_it_counts_down_and_stops_at_zero(clock: FakeTime) -> None:
    # given
    deadline = Deadline(5.0)
    assert (deadline.remaining(), deadline.wait_time(), deadline.expired) == (5.0, 5.0, False)

    # when
    clock.now += 2.0

    # then
    assert (deadline.remaining(), deadline.wait_time(), deadline.expired) == (3.0, 3.0, False)

    # when
    clock.now += 4.0

    # then
    assert (deadline.remaining(), deadline.wait_time(), deadline.expired) == (0.0, 0.0, True)


def test_it_is_expired_at_the_very_moment(clock: FakeTime) -> None:
    deadline = Deadline(5.0)

    clock.now += 5.0

    assert deadline.expired
    assert deadline.remaining() == 0.0


def test_without_a_timeout_it_never_expires(clock: FakeTime) -> None:
    deadline = Deadline(None)

    clock.now += 1e12

    assert deadline.remaining() is None
    assert deadline.wait_time() is None
    assert deadline.lock_time() == -1
    assert not deadline.expired


def test_the_time_to_wait_is_never_more_than_a_lock_takes(clock: FakeTime) -> None:
    deadline = Deadline(1e100)

    assert deadline.lock_time() == threading.TIMEOUT_MAX
    assert threading.Lock().acquire(timeout=deadline.lock_time())


def test_the_time_to_wait_is_never_more_than_a_selector_takes(clock: FakeTime) -> None:
    wait_time = Deadline(1e100).wait_time()

    assert wait_time == 24 * 3600.0


@pytest.mark.parametrize("timeout", [1, 0.001, 1e300, 5e-324])
def test_a_timeout_that_is_a_positive_number_is_taken_as_float(timeout: float) -> None:
    checked = check_timeout(timeout)

    assert type(checked) is float
    assert checked == timeout


@pytest.mark.parametrize("timeout", ["1", None, True, [1], 1j, Fraction(1, 2), b"1"])
def test_a_timeout_that_is_no_number_is_a_type_error_with_its_name(timeout: Any) -> None:
    with pytest.raises(TypeError, match=r"connect_timeout must be a number"):
        check_timeout(timeout, "connect_timeout")


@pytest.mark.parametrize(
    "timeout",
    [0, -1, 0.0, -0.5, math.inf, -math.inf, math.nan, 10**400],
    ids=lambda timeout: str(timeout)[:9],
)
def test_a_timeout_that_never_or_at_once_ends_is_a_value_error_with_its_name(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"connect_timeout must be a positive, finite number"):
        check_timeout(timeout, "connect_timeout")


def test_the_name_is_timeout_where_nothing_else_is_said() -> None:
    with pytest.raises(ValueError, match=r"^timeout must be"):
        check_timeout(0)


def test_a_pause_doubles_up_to_the_longest_however_often_it_failed() -> None:
    pauses = [backoff(times, 0.05, 1.0) for times in range(7)]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff(100_000, 0.05, 1.0) == 1.0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(1.0, 2.0, 1.0), (2.0, 1.0, 1.0), (None, 1.0, 1.0), (0.0, None, 0.0), (None, None, None)],
)
def test_the_sooner_of_two_times_is_never_the_one_without_end(
    first: float | None, second: float | None, expected: float | None
) -> None:
    assert sooner(first, second) == expected
