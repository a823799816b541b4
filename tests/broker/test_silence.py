"""When a queue of which the broker says nothing counts as down."""

import pytest

from qam._broker.silence import Silence
from qam.exceptions import QAMConnectionException


def fail(silence: Silence, unanswered: bool) -> None:
    failure = QAMConnectionException("no answer")
    failure.unanswered = unanswered
    with pytest.raises(QAMConnectionException), silence.counted():
        raise failure


def test_a_queue_counts_as_down_after_two_attempts_without_an_answer() -> None:
    silence = Silence()
    fail(silence, unanswered=True)
    assert not silence.is_down
    fail(silence, unanswered=True)
    assert silence.is_down
    # when another queue is tried
    silence.broken()
    assert not silence.is_down


def test_an_answer_between_two_attempts_shows_that_the_broker_was_busy() -> None:
    silence = Silence()
    fail(silence, unanswered=True)
    with silence.counted():
        pass
    fail(silence, unanswered=True)
    assert not silence.is_down


def test_a_connection_that_is_lost_says_nothing_about_the_queue() -> None:
    silence = Silence()
    fail(silence, unanswered=True)
    fail(silence, unanswered=False)
    fail(silence, unanswered=True)
    assert not silence.is_down
