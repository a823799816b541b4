"""Where and when a lost connection is opened again: decided without a clock."""

import pytest

from qam._broker.endpoint import Endpoint
from qam._broker.reconnection import Reconnection
from qam.amqp_credentials import AMQPCredentials


def endpoints(*hosts: str) -> tuple[Endpoint, ...]:
    return AMQPCredentials(hosts).endpoints()


def hosts(reconnection: Reconnection) -> list[str]:
    return [each.host for each in reconnection.candidates()]


# --- where ------------------------------------------------------------------------------


def test_the_hosts_are_tried_in_the_order_that_was_given() -> None:
    assert hosts(Reconnection(endpoints("a", "b", "c"))) == ["a", "b", "c"]


def test_a_host_that_did_not_serve_is_tried_last() -> None:
    reconnection = Reconnection(endpoints("a", "b", "c"))
    for first in ["bca", "cab", "abc", "bca"]:
        reconnection.skip()
        assert hosts(reconnection) == list(first)


def test_it_says_where_it_connects_to() -> None:
    shown = str(Reconnection(endpoints("a", "b")))
    assert shown == " or ".join(map(str, endpoints("a", "b")))


# --- when -------------------------------------------------------------------------------


@pytest.mark.parametrize("chance", [0.5, 1.0])
def test_attempts_that_fail_are_repeated_ever_more_slowly(
    chance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: {0.5: low, 1.0: high}[chance])
    reconnection = Reconnection(endpoints("a"))

    pauses = [reconnection.pause_after_failure() for _ in range(8)]

    assert pauses == [chance * each for each in (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)]


def test_after_one_that_serves_the_attempts_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    reconnection = Reconnection(endpoints("a"))
    for _ in range(5):
        reconnection.pause_after_failure()

    reconnection.serves()

    assert reconnection.pause_after_failure() == 0.05


def test_to_be_reached_is_not_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    reconnection = Reconnection(endpoints("a"))
    reconnection.pause_after_failure()

    reconnection.opened(now=1.0)

    assert reconnection.pause_after_failure() == 0.1


def test_what_lasted_is_opened_again_at_once() -> None:
    reconnection = Reconnection(endpoints("a"))
    for now in range(10):
        reconnection.opened(now)
        assert reconnection.pause_after_loss(now + 1.0) == 0.0


def test_one_short_life_after_the_other_is_ended_ever_more_slowly() -> None:
    reconnection = Reconnection(endpoints("a"))
    pauses = []
    for now in range(8):
        reconnection.opened(now)
        pauses.append(reconnection.pause_after_loss(now + 0.9))

    assert pauses == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_a_long_life_makes_up_for_short_ones() -> None:
    reconnection = Reconnection(endpoints("a"))
    for life in (0.5, 0.5, 0.5, 1.5):
        reconnection.opened(0.0)
        reconnection.pause_after_loss(life)

    reconnection.opened(10.0)

    assert reconnection.pause_after_loss(10.5) == 0.0


# --- what is logged ---------------------------------------------------------------------


def test_each_new_reason_is_news_and_the_same_one_once_a_minute() -> None:
    reconnection = Reconnection(endpoints("a"))
    told = [
        (reason, now)
        for reason, now in [
            *(("lost", 0.0), ("down", 1.0), ("down", 2.0), ("down", 60.9)),
            *(("down", 61.0), ("down", 62.0), ("refused", 63.0), ("down", 64.0)),
        ]
        if reconnection.is_news(reason, now)
    ]
    assert told == [("lost", 0.0), ("down", 1.0), ("down", 61.0), ("refused", 63.0), ("down", 64.0)]


def test_the_reason_is_known_until_there_is_a_connection() -> None:
    reconnection = Reconnection(endpoints("a"))
    reconnection.is_news("down", 0.0)
    assert reconnection.reason == "down"
    reconnection.serves()
    assert reconnection.reason == ""
    # and is news if it comes back
    assert reconnection.is_news("down", 1.0)
