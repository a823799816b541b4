"""The requests under judgement, and what the answers of other servers do to them."""

from math import inf

import pytest

from qam._protocol.correlation import CallKey
from qam._protocol.entities import reply_routing_key
from qam._server.known_siblings import GRACE, VALID
from qam._server.sibling_questions import Question, Questions, Verdict


def question(number: int = 1, vouched: bool = False) -> Question:
    """Asked at 100, of the siblings *a* and *b*."""
    key = CallKey(reply_routing_key("c"), f"c:{number}")
    return Question(key, False, 100.0, vouched, {"a", "b"})


@pytest.mark.parametrize(
    ("said", "holders", "lost", "vouched"),
    [
        ("mine", {"a"}, False, False),
        ("lost", set(), True, False),
        ("vouch", set(), False, True),
        ("never", set(), False, False),
    ],
)
def test_an_answer_says_one_thing(said: str, holders: set[str], lost: bool, vouched: bool) -> None:
    asked = question()

    asked.take_word("a", known=True, said=said, now=101.0)

    assert (asked.holders, asked.lost, asked.vouched) == (holders, lost, vouched)
    assert asked.verdict is None
    assert (asked.silent, asked.answered) == ({"b"}, {"a"})


def test_a_sibling_vouches_only_for_what_was_asked_just_now() -> None:
    late = question()
    late.take_word("a", known=True, said="vouch", now=100.0 + VALID)
    assert not late.vouched

    in_time = question()
    in_time.take_word("a", known=True, said="vouch", now=100.0 + VALID - 0.1)
    assert in_time.vouched


def test_a_request_that_was_answered_elsewhere_is_decided_at_once() -> None:
    reused = Question(CallKey("its queue", "1"), False, 100.0, False, {"a", "b"})

    reused.take_word("a", known=True, said="done", now=101.0)

    assert (reused.verdict, reused.holders) == (Verdict.MINE, set())


def test_a_request_that_was_published_anew_elsewhere_is_decided_at_once() -> None:
    asked = question()

    asked.take_word("a", known=True, said="again", now=101.0)

    assert asked.verdict is Verdict.AGAIN


def test_one_that_has_a_request_says_later_if_it_has_it_no_more() -> None:
    asked = question()
    asked.take_word("a", known=True, said="mine", now=101.0)

    asked.take_word("a", known=True, said="never", now=102.0)

    assert (asked.holders, asked.lost) == (set(), False)


def test_a_stranger_that_has_a_request_is_not_waited_for() -> None:
    asked = question()

    asked.take_word("stranger", known=False, said="mine", now=101.0)

    assert (asked.holders, asked.verdict) == (set(), Verdict.MINE)


def test_the_open_questions_hear_of_those_that_have_a_request() -> None:
    questions, runs, asked = Questions(), question(1), question(2)
    for each in (runs, asked):
        questions.add(each)
    runs.take_word("a", known=True, said="mine", now=101.0)
    runs.take_word("b", known=True, said="mine", now=101.0)
    assert questions.held == [runs]

    # one leaves: it has given back what it had
    questions.left("a")
    assert (runs.holders, runs.lost) == ({"b"}, False)
    assert (asked.silent, asked.lost) == ({"b"}, True)
    # the other one dies of it
    questions.died("b")
    assert (runs.holders, runs.lost) == (set(), True)
    assert questions.held == []


def test_a_request_that_another_has_answered_is_decided() -> None:
    questions, one, other = Questions(), question(1), question(2)
    for each in (one, other):
        questions.add(each)

    questions.answered([one.key, CallKey("replies", "unknown")], "stranger")

    assert [each.verdict for each in (one, other)] == [Verdict.MINE, None]


def test_an_earlier_request_with_the_same_key_decides_nothing() -> None:
    questions = Questions()
    reused = Question(CallKey("its queue", "1"), False, 100.0, False, {"a", "b"})
    questions.add(reused)
    reused.take_word("a", known=True, said="mine", now=101.0)

    questions.answered([reused.key], "b")
    assert reused.verdict is None

    questions.answered([reused.key], "a")
    assert reused.verdict is Verdict.MINE


def test_a_later_answer_does_not_take_back_an_earlier_one() -> None:
    asked = question(vouched=True)
    asked.verdict = Verdict.LOST

    asked.take_word("a", known=True, said="mine", now=101.0)
    asked.take_word("b", known=True, said="never", now=101.0)

    assert asked.verdict is Verdict.LOST
    assert asked.vouched


def test_a_stranger_that_answers_is_asked_again_once_it_is_known() -> None:
    questions, asked = Questions(), question()
    questions.add(asked)

    asked.take_word("stranger", known=False, said="never", now=101.0)
    asked.take_word("a", known=True, said="never", now=101.0)
    for instance in ("stranger", "a"):
        questions.wait_for(instance)

    assert asked.silent == {"b", "stranger"}


def test_the_echo_of_a_question_is_awaited_for_a_while() -> None:
    assert question().ends(opened_at=90.0) == 100.0 + 10 * GRACE


def test_the_open_questions_hear_of_their_echo_and_of_siblings() -> None:
    questions, one, other = Questions(), question(1), question(2)
    for each in (one, other):
        questions.add(each)
    assert list(questions) == [one, other]

    questions.echoed([one.key, CallKey("replies", "unknown")], now=101.0)
    questions.died("b")

    assert [each.echoed_at for each in (one, other)] == [101.0, None]
    assert [each.silent for each in (one, other)] == [{"a"}, {"a"}]


def test_a_question_is_open_until_it_is_removed() -> None:
    questions, one, other = Questions(), question(1), question(2)
    for each in (one, other):
        questions.add(each)

    questions.remove(one)
    assert one.key not in questions
    assert questions.get(one.key) is None
    assert questions.get(other.key) is other

    questions.clear()
    assert other.key not in questions


LATE = 10_000.0


@pytest.mark.parametrize(
    ("changes", "verdict_early", "verdict_late"),
    [
        ({"silent": {"a"}}, None, Verdict.LOST),
        ({"echoed_at": None}, None, Verdict.LOST),
        ({"vouched": True}, Verdict.RUN, Verdict.RUN),
        ({"vouched": True, "silent": {"a"}}, None, Verdict.LOST),
        ({"vouched": True, "echoed_at": None}, None, Verdict.LOST),
        ({"vouched": True, "lost": True}, Verdict.LOST, Verdict.LOST),
        ({"vouched": True, "holders": {"a"}}, None, Verdict.MINE),
        ({"lost": True, "holders": {"a"}}, None, Verdict.MINE),
        ({"lost": True, "verdict": Verdict.MINE}, Verdict.MINE, Verdict.MINE),
        ({}, None, Verdict.LOST),
    ],
)
def test_a_question_is_decided_by_what_was_heard_or_by_time(
    changes: dict[str, object], verdict_early: Verdict | None, verdict_late: Verdict
) -> None:
    asked = question()
    asked.silent, asked.echoed_at = set(), 100.5
    for name, value in changes.items():
        setattr(asked, name, value)

    assert asked.judge(101.0, opened_at=99.0, in_doubt=False) is verdict_early
    assert asked.judge(LATE, opened_at=99.0, in_doubt=False) is verdict_late


def test_nothing_runs_while_a_server_that_may_have_had_it_is_missed() -> None:
    asked = question(vouched=True)
    asked.silent, asked.echoed_at = set(), 100.5

    assert asked.judge(101.0, opened_at=99.0, in_doubt=True) is Verdict.LOST


def test_a_question_ends_in_time() -> None:
    asked = question()
    asked.echoed_at = 102.0
    assert asked.ends(opened_at=101.0) == 102.0 + GRACE  # for who is silent

    asked.silent.clear()
    assert asked.ends(opened_at=101.0) == 101.0 + GRACE  # for who lost a connection, too

    asked.holders = {"a"}
    assert asked.ends(opened_at=101.0) == 100.0 + 25 * 60.0
    # and not later than that
    asked.holders.clear()
    assert asked.judge(101.0 + GRACE - 0.01, opened_at=101.0, in_doubt=False) is None
    assert asked.judge(101.0 + GRACE, opened_at=101.0, in_doubt=False) is Verdict.LOST


def test_the_open_questions_tell_what_is_held_and_when_the_first_of_them_ends() -> None:
    questions = Questions()
    assert (questions.held, questions.held_longest, questions.holders) == ([], None, set())
    assert questions.next_end(opened_at=90.0) == inf
    # given three, the first of which is not held
    first, second, third = (question(number) for number in (1, 2, 3))
    for each, asked_at in [(first, 98.0), (second, 101.0), (third, 100.0)]:
        each.asked_at = asked_at
        questions.add(each)
    second.holders, third.holders = {"a"}, {"a", "b"}
    # then
    assert questions.held == [second, third]
    assert questions.held_longest is third
    assert questions.holders == {"a", "b"}
    assert questions.next_end(opened_at=90.0) == first.ends(opened_at=90.0)
