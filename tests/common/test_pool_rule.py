import math

import pytest

from qam._common.pool_rule import PoolRule


@pytest.fixture
def rule() -> PoolRule:
    return PoolRule(delay=0.01, many=16)


def test_nothing_that_waits_needs_no_thread(rule: PoolRule) -> None:
    assert rule.next_start(None, 0) == math.inf
    assert rule.next_start(None, 5) == math.inf


def test_the_first_job_gets_a_thread_at_once(rule: PoolRule) -> None:
    assert rule.next_start(7.0, threads=0) == 7.0


def test_beside_others_a_job_waits_for_one_of_them_first(rule: PoolRule) -> None:
    assert rule.next_start(7.0, threads=1) == pytest.approx(7.01)


def test_one_thread_starts_at_a_time(rule: PoolRule) -> None:
    rule.started(7.005)

    assert rule.next_start(7.0, threads=2) == pytest.approx(7.015)


def test_after_a_start_that_failed_the_next_one_is_delayed_too(rule: PoolRule) -> None:
    rule.started(7.005)

    assert rule.next_start(7.0, threads=0) == pytest.approx(7.015)


@pytest.mark.parametrize(("threads", "delay"), [(16, 0.01), (32, 0.02), (160, 0.1)])
def test_many_threads_are_more_reluctant(rule: PoolRule, threads: int, delay: float) -> None:
    assert rule.next_start(7.0, threads) == pytest.approx(7.0 + delay)
