"""The words that a server is about to send to the other servers of its server_id."""

import pytest

from qam._protocol.correlation import CallKey
from qam._server import sibling_outbox
from qam._server.known_siblings import KnownSiblings
from qam._server.sibling_outbox import SiblingOutbox
from qam._server.sibling_questions import Question
from qam._server.sibling_words import Word, decode


def key(number: int) -> CallKey:
    return CallKey("replies", f"c:{number}")


def taken(
    outbox: SiblingOutbox, *asked: Question, others: KnownSiblings | None = None
) -> list[Word]:
    """The words that are sent now, while *asked* are open and *others* are known."""
    words = map(decode, outbox.take_messages(asked, others or KnownSiblings()))
    return [word for word in words if word is not None]


@pytest.fixture
def outbox() -> SiblingOutbox:
    return SiblingOutbox("a")


def test_an_outbox_without_words_is_false_and_sends_nothing(outbox: SiblingOutbox) -> None:
    assert not outbox
    assert taken(outbox) == []


def test_what_is_answered_is_said_first(outbox: SiblingOutbox) -> None:
    outbox.say_goodbye()
    outbox.tell_done([key(1)])
    outbox.tell_done(key(number) for number in (1, 2))

    done, bye = taken(outbox)

    assert (done.kind, done.calls, bye.kind) == ("done", {key(1): True, key(2): True}, "bye")
    assert not outbox


def test_one_that_leaves_asks_nothing_any_more(outbox: SiblingOutbox) -> None:
    outbox.ask(key(1), resent=False)
    outbox.ask_to_repeat(key(2))
    outbox.say_goodbye()

    assert [word.kind for word in taken(outbox)] == ["repeat", "bye"]


def test_an_answered_call_is_a_word_of_its_own(outbox: SiblingOutbox) -> None:
    outbox.tell_done([key(1)])
    assert outbox


def test_each_word_is_sent_once_and_tells_if_its_server_takes_requests(
    outbox: SiblingOutbox,
) -> None:
    outbox.say("here")
    outbox.consumes = True
    outbox.say("here")
    assert outbox

    assert taken(outbox) == [Word("here", "a", False), Word("here", "a", True)]
    assert not outbox
    assert taken(outbox) == []


def test_a_question_is_asked_once(outbox: SiblingOutbox) -> None:
    outbox.ask(key(1), resent=True)
    outbox.ask(key(2), resent=False)
    assert outbox

    assert taken(outbox) == [Word("ask", "a", calls={key(1): True, key(2): False})]
    assert taken(outbox) == []


def test_a_question_that_is_withdrawn_is_not_asked(outbox: SiblingOutbox) -> None:
    for number in (1, 2):
        outbox.ask(key(number), resent=False)

    outbox.withdraw_question(key(1))
    outbox.withdraw_question(key(3))
    assert taken(outbox) == [Word("ask", "a", calls={key(2): False})]

    outbox.ask(key(4), resent=False)
    outbox.forget_questions()
    assert taken(outbox) == []


def test_a_newcomer_hears_once_who_is_here_and_what_is_asked(outbox: SiblingOutbox) -> None:
    asked = Question(key(1), True, 100.0, False, set())

    outbox.greet()
    assert outbox

    assert taken(outbox, asked) == [Word("here", "a"), Word("ask", "a", calls={key(1): True})]
    assert taken(outbox, asked) == []


def test_a_goodbye_greets_nobody(outbox: SiblingOutbox) -> None:
    outbox.greet()

    outbox.say_goodbye()

    assert taken(outbox) == [Word("bye", "a")]
    assert taken(outbox) == []


def test_all_answers_to_one_instance_are_one_word_that_names_the_siblings(
    outbox: SiblingOutbox,
) -> None:
    outbox.answer("b", {key(1): "mine"}, known=2)
    outbox.answer("c", {key(2): "lost"}, known=2)
    outbox.answer("b", {key(3): "never"}, known=2)

    others = KnownSiblings()
    others.add("b", there=True)
    others.add("c", there=False)
    knows = {"b": True, "c": False}
    assert taken(outbox, others=others) == [
        Word("answer", "a", calls={key(1): "mine", key(3): "never"}, to="b", knows=knows),
        Word("answer", "a", calls={key(2): "lost"}, to="c", knows=knows),
    ]
    # and the next answer is another word
    outbox.answer("b", {key(4): "mine"}, known=2)
    assert [word.calls for word in taken(outbox)] == [{key(4): "mine"}]


#: What one answer about one call counts, where three siblings are known.
OF_THE_FIRST = 3 * 80 + len("replies") + len("c:1") + 40
OF_ANOTHER_CALL = len("replies") + len("c:1") + 40


@pytest.mark.parametrize(
    ("limit", "is_full"),
    [(OF_THE_FIRST + OF_ANOTHER_CALL, True), (OF_THE_FIRST + OF_ANOTHER_CALL + 1, False)],
)
def test_it_is_full_when_the_answers_have_so_many_characters(
    outbox: SiblingOutbox, limit: int, is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sibling_outbox, "_MAX_CHARACTERS", limit)
    for number in (1, 1, 2):  # what is asked twice is answered once
        assert not outbox.full
        outbox.answer("b", {key(number): "mine"}, known=3)

    assert outbox.full is is_full
    # and it has room again once they are sent
    taken(outbox)
    assert not outbox.full
