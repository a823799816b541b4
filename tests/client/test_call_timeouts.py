import math
from functools import partial

from qam._client.call_timeouts import CallTimeouts
from tests.support.interrupts import interrupted_at


def test_none_is_next_at_first() -> None:
    timeouts = CallTimeouts()

    assert timeouts.next == math.inf
    assert timeouts.take_expired(1e9) == []


def test_they_are_taken_at_their_times_in_their_order() -> None:
    timeouts = CallTimeouts()

    assert timeouts.add(3, 3.0)
    assert timeouts.add(1, 1.0)
    assert not timeouts.add(2, 2.0)

    assert timeouts.next == 1.0
    assert timeouts.take_expired(0.9) == []
    assert timeouts.take_expired(2.0) == [1, 2]
    assert timeouts.next == 3.0
    assert timeouts.take_expired(3.0) == [3]


def test_those_that_are_over_are_forgotten_when_they_are_the_most() -> None:
    # given
    timeouts = CallTimeouts()
    for number in range(66):
        timeouts.add(number, float(number))
    waiting = {65}.__contains__

    # when there are not enough of them
    timeouts.forget_ended(waiting, 1)
    assert len(timeouts) == 66

    # when one more comes
    timeouts.add(66, 66.0)
    timeouts.forget_ended(waiting, 1)
    assert len(timeouts) == 1
    assert timeouts.take_expired(100.0) == [65]


def test_ctrl_c_while_those_that_are_over_are_forgotten_leaves_the_others_in_order() -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        # given many that are over, the first one of all among them
        timeouts = CallTimeouts()
        for at in (0.0, 50.0, 1.0, *range(60, 130)):
            timeouts.add(int(at), at)
        # when
        forget = partial(timeouts.forget_ended, {50, 1}.__contains__, 2)
        struck.append(interrupted_at(len(struck) + 1, forget, "/call_timeouts.py"))
        # then
        in_order = [each for each in timeouts.take_expired(200.0) if each in (50, 1)]
        assert in_order == [1, 50]
    assert len(struck) > 3
