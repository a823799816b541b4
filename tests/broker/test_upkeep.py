"""When exchanges, queues and bindings are declared again."""

from math import inf

from qam._broker.upkeep import Upkeep


def test_nothing_is_due_before_it_was_declared_once() -> None:
    assert Upkeep().due == inf


def test_it_is_due_within_a_minute_and_not_for_all_at_once() -> None:
    due = set()
    for _ in range(100):
        upkeep = Upkeep()
        upkeep.done(now=1000.0)
        due.add(upkeep.due)

    assert all(1036.0 <= each <= 1054.0 for each in due)
    assert len(due) > 50
