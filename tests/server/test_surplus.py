"""When a server looks at the requests that it can't start."""

from math import inf

from qam._server.surplus import Surplus


def test_it_does_not_look_while_nothing_waits() -> None:
    assert Surplus().next_look(waiting_since=None) == inf


def test_it_looks_when_something_has_waited_for_a_second() -> None:
    assert Surplus().next_look(waiting_since=100.0) == 101.0


def test_it_looks_sooner_when_it_is_told() -> None:
    surplus = Surplus()
    surplus.looked(now=101.0)

    surplus.looked_long_ago()

    assert surplus.next_look(waiting_since=100.5) == 101.5


def test_it_looks_once_in_ten_seconds_whatever_came_of_it() -> None:
    surplus = Surplus()

    surplus.looked(now=101.0)

    assert surplus.next_look(waiting_since=100.0) == 111.0
    assert surplus.next_look(waiting_since=120.0) == 121.0
