"""Who of the servers of one server_id is there."""

from math import inf

import pytest

from qam._server import known_siblings
from qam._server.known_siblings import GRACE, VALID, KnownSiblings
from qam._server.open_deliveries import UNSAFE_ACKS


@pytest.fixture
def siblings() -> KnownSiblings:
    known = KnownSiblings()
    for name in "ab":
        assert known.add(name, there=True)
    return known


def test_who_is_taken_for_dead_is_absent_until_it_speaks(siblings: KnownSiblings) -> None:
    assert siblings.mark_absent("a")
    assert not siblings.mark_absent("a")
    assert siblings.present == {"b"}
    assert siblings.report == {"a": False, "b": True}
    assert siblings.heard("a", consumes=False, now=0.0)
    assert not siblings.heard("a", consumes=False, now=0.0)
    assert siblings.present == {"a", "b"}


def test_only_consumers_of_those_that_are_heard_and_there_count(siblings: KnownSiblings) -> None:
    for name in "ab":
        siblings.heard(name, consumes=True, now=0.0)
    assert siblings.count_consumers() == 2
    siblings.mark_absent("a")
    assert siblings.count_consumers() == 1
    siblings.mark_all_unheard()
    assert siblings.count_consumers() == 0


def test_there_is_room_for_so_many(
    siblings: KnownSiblings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_siblings, "MAX_SIBLINGS", 2)
    assert not siblings.crowded
    assert not siblings.add("c", there=True)
    assert siblings.crowded
    assert not siblings.has_room_again()
    assert siblings.crowded
    assert siblings.leave("a", now=0.0)
    assert siblings.has_room_again()
    assert not siblings.crowded


def test_one_that_left_is_missed_only_if_the_broker_dies_soon_after(
    siblings: KnownSiblings,
) -> None:
    assert siblings.leave("a", now=0.0)
    assert not siblings.leave("a", now=0.0)
    assert siblings.leave("b", now=4.0)
    assert siblings.has_heard_of("a")
    siblings.restore_recently_left(now=5.0)
    assert siblings.absent == {"b"}
    assert "a" not in siblings
    assert not siblings.has_heard_of("a")


def test_one_that_left_is_known_by_name_for_as_long_as_its_acks_may_be_lost(
    siblings: KnownSiblings,
) -> None:
    siblings.add("c", there=True)
    siblings.leave("a", now=10.0)

    siblings.leave("b", now=14.9)
    assert siblings.has_heard_of("a")

    siblings.leave("c", now=15.0)
    assert not siblings.has_heard_of("a")
    assert siblings.has_heard_of("b")


def test_one_that_left_twice_is_known_since_the_second_time(siblings: KnownSiblings) -> None:
    siblings.add("c", there=True)
    siblings.leave("a", now=10.0)
    siblings.leave("b", now=11.0)
    siblings.add("a", there=True)
    siblings.leave("a", now=14.0)

    siblings.leave("c", now=16.5)

    assert siblings.has_heard_of("a")
    assert not siblings.has_heard_of("b")


def test_one_stays_known_where_too_many_have_left(
    siblings: KnownSiblings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_siblings, "MAX_SIBLINGS", 1)
    assert siblings.leave("a", now=0.0)

    assert not siblings.leave("b", now=1.0)

    assert "b" in siblings


def test_a_roll_call_finds_those_that_say_nothing(siblings: KnownSiblings) -> None:
    siblings.call_roll(now=10.0)
    assert siblings.roll_is_called
    assert siblings.roll_call_ends() == 10.0 + GRACE
    siblings.heard("a", consumes=True, now=10.0)
    assert siblings.end_roll_call(now=10.0 + GRACE - 0.1) == []
    assert siblings.end_roll_call(now=10.0 + GRACE) == ["b"]
    assert siblings.roll_call_ends() == inf


def test_a_roll_call_that_is_given_up_finds_nobody(siblings: KnownSiblings) -> None:
    siblings.call_roll(now=10.0)

    siblings.give_up_roll_call()

    assert not siblings.roll_is_called
    assert siblings.end_roll_call(now=10.0 + GRACE) == []


def test_a_dead_one_is_forgotten_for_good_when_what_it_had_is_judged(
    siblings: KnownSiblings,
) -> None:
    siblings.mark_absent("a")
    assert not siblings.forget_if_judged("a", now=1.0)
    assert not siblings.forget_if_judged("a", now=1.0 + VALID)
    assert siblings.forget_if_judged("a", now=1.1 + VALID)
    assert "a" not in siblings
    assert not siblings.absent
    assert siblings.has_heard_of("a")
    # until it says something itself, and leaves
    siblings.add("a", there=True)
    siblings.heard("a", consumes=True, now=20.0)
    siblings.leave("a", now=20.0)
    siblings.leave("b", now=20.0 + UNSAFE_ACKS)
    assert not siblings.has_heard_of("a")


def test_the_names_of_so_many_forgotten_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_siblings, "_MAX_FORGOTTEN", 2)
    siblings = KnownSiblings()
    for name in "abc":
        siblings.add(name, there=False)
        siblings.forget_if_judged(name, now=0.0)
        siblings.forget_if_judged(name, now=VALID + 1)
    assert [siblings.has_heard_of(name) for name in "abc"] == [False, True, True]
