"""Which fate messages have, with a clock of the test."""

import pytest

from qam._broker.fates import Fate, UnderWay


def test_what_has_its_fate_is_not_under_way_any_more() -> None:
    under_way = UnderWay()
    under_way.written(3)

    under_way.ended(Fate.CONFIRMED, 2)
    assert under_way.in_flight == 1
    under_way.ended(Fate.RETURNED, 1)
    assert under_way.in_flight == 0


@pytest.mark.parametrize(
    ("number", "by_message", "fate"),
    [
        (0, False, Fate.UNKNOWN),
        (0, True, Fate.UNKNOWN),
        (1, False, Fate.UNKNOWN),
        (1, True, Fate.CULPRIT),
        (2, True, Fate.UNKNOWN),
    ],
)
def test_a_culprit_is_found_where_nothing_else_was_under_way(
    number: int, by_message: bool, fate: Fate
) -> None:
    under_way = UnderWay()
    under_way.written(number)

    assert under_way.lost(number, by_message) is fate
    assert under_way.in_flight == 0


def test_suspects_go_one_at_a_time_until_each_has_its_fate() -> None:
    # given
    under_way = UnderWay()
    assert not under_way.one_at_a_time
    under_way.suspect(3)

    # when one after the other is written
    for fate in (Fate.CONFIRMED, Fate.REFUSED):
        assert under_way.one_at_a_time
        assert not under_way.has_to_wait
        under_way.written(1)
        assert under_way.has_to_wait
        under_way.ended(fate, 1)
    under_way.written(1)
    assert under_way.lost(1, by_message=True) is Fate.CULPRIT

    # then the others are written together again
    assert not under_way.one_at_a_time
    under_way.written(5)
    assert not under_way.has_to_wait


def test_at_first_nothing_is_under_way_and_nothing_is_suspect() -> None:
    under_way = UnderWay()

    assert under_way.in_flight == 0
    assert not under_way.one_at_a_time
    under_way.suspect(1)
    assert under_way.one_at_a_time
    assert not under_way.has_to_wait


def test_after_a_culprit_the_others_are_still_suspect() -> None:
    under_way = UnderWay()
    under_way.suspect(3)

    for _ in range(2):
        under_way.written(1)
        assert under_way.lost(1, by_message=True) is Fate.CULPRIT
        assert under_way.one_at_a_time
    under_way.written(1)
    under_way.lost(1, by_message=True)

    assert not under_way.one_at_a_time


def test_a_loss_for_another_reason_leaves_the_suspects_suspect() -> None:
    under_way = UnderWay()
    under_way.suspect(2)
    under_way.written(1)

    assert under_way.lost(1, by_message=False) is Fate.UNKNOWN
    assert under_way.one_at_a_time


class TestAConnectionOnWhichAllIsRefused:
    def test_is_given_up_after_a_second_and_the_next_after_two_and_a_minute_at_most(self) -> None:
        under_way, now = UnderWay(), 0.0
        borne = []
        for _ in range(9):
            began = now = now + 1.0
            while not under_way.gives_up(now):
                now += 0.5
            borne.append(now - began)

        assert borne == [1, 2, 4, 8, 16, 32, 64, 64, 64]

    def test_is_kept_if_something_is_confirmed_meanwhile(self) -> None:
        under_way = UnderWay()
        assert not under_way.gives_up(1.0)
        under_way.ended(Fate.CONFIRMED, 1)

        assert not under_way.gives_up(2.5)
        assert under_way.gives_up(3.5)

    def test_is_borne_a_second_again_after_a_confirm(self) -> None:
        under_way = UnderWay()
        under_way.gives_up(1.0)
        assert under_way.gives_up(2.0)
        under_way.ended(Fate.CONFIRMED, 1)
        under_way.gives_up(3.0)

        assert under_way.gives_up(4.0)
