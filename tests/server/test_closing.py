"""The steps by which a server closes, on a clock that the tests move."""

from math import inf

import pytest

from qam._server.closing import CloseStep, Closing
from tests.server.group import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def closing(clock: Clock) -> Closing:
    return Closing(clock)


def test_nothing_is_due_before_it_begins(closing: Closing) -> None:
    assert not closing.begun
    assert closing.next_due() is None


def test_first_no_more_requests_are_taken(closing: Closing, clock: Clock) -> None:
    closing.begin(clock.now + 5)
    assert closing.begun
    assert closing.next_step(consuming=True, idle=True) is CloseStep.STOP_CONSUMING


def test_it_leaves_when_nothing_is_open(closing: Closing, clock: Clock) -> None:
    closing.begin(clock.now + 5)
    assert closing.next_step(consuming=False, idle=True) is CloseStep.LEAVE


def test_what_is_at_hand_has_its_time_and_then_some_to_be_given_back(
    closing: Closing, clock: Clock
) -> None:
    closing.begin(clock.now + 5)
    assert closing.next_step(consuming=False, idle=False) is CloseStep.WAIT
    assert closing.next_due() == 5
    # when that is up
    clock.now += 5
    assert closing.next_due() == 0
    assert closing.next_step(consuming=False, idle=False) is CloseStep.GIVE_BACK
    # then it is given back once, and waited for
    assert closing.next_step(consuming=False, idle=False) is CloseStep.WAIT
    assert closing.next_due() == 2
    clock.now += 1.75
    assert closing.next_step(consuming=False, idle=False) is CloseStep.WAIT
    # but no longer than two seconds
    clock.now += 0.25
    assert closing.next_step(consuming=False, idle=False) is CloseStep.END


def test_it_leaves_when_all_that_was_given_back_is_settled(closing: Closing, clock: Clock) -> None:
    closing.begin(clock.now)
    assert closing.next_step(consuming=False, idle=False) is CloseStep.GIVE_BACK
    assert closing.next_step(consuming=False, idle=True) is CloseStep.LEAVE


def test_the_first_timeout_counts(closing: Closing, clock: Clock) -> None:
    closing.begin(clock.now + 5)
    closing.begin(clock.now + 50)
    assert closing.next_due() == 5


def test_it_may_wait_for_ever_but_nothing_waits_longer_than_a_day(
    closing: Closing, clock: Clock
) -> None:
    closing.begin(inf)
    assert closing.next_due() is None
    assert closing.next_step(consuming=False, idle=False) is CloseStep.WAIT
    other = Closing(clock)
    other.begin(clock.now + 1e9)
    assert other.next_due() == 24 * 3600
