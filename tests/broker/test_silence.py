"""When a queue of which the broker says nothing counts as down."""

import pytest

from qam._broker import silence as silence_module
from qam._broker.silence import Silence
from qam.exceptions import QAMConnectionException
from tests.support.clock import move


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
    silence.forget()
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


def test_one_that_is_down_is_asked_after_a_while_and_stays_down_unless_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = move(monkeypatch, silence_module)
    silence = Silence()
    fail(silence, unanswered=True)
    fail(silence, unanswered=True)
    assert silence.rests
    # when it is asked later, by a connection that is in use, and is lost by that
    clock.advance(301.0)
    assert not silence.rests
    fail(silence, unanswered=False)
    # then it is left alone for as long again
    assert silence.rests
    # when it answers
    clock.advance(301.0)
    with silence.counted():
        pass
    assert not silence.is_down
