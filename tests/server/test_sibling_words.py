"""What comes from the exchange of siblings, whoever wrote it: it costs little, and harms nobody."""

import json
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qam._broker.messages import Delivery, QueueState
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._server.known_siblings import GRACE
from qam._server.record import Record
from qam._server.sibling_questions import Verdict
from qam._server.sibling_words import (
    MAX_BYTES,
    MAX_SIBLINGS,
    NoWordError,
    Word,
    decode,
    encode,
    in_portions,
)
from qam._server.siblings import Siblings
from tests.server.test_siblings import Call, Group, key, log
from tests.support.clock import MovableClock, StandingClock
from tests.support.examples import examples

texts = st.text(max_size=40) | st.sampled_from(["", "client:1", "web#1:5#2", "\ud83d", "x" * 255])
keys = st.builds(CallKey, texts, texts, st.integers(1, 2**53))
names = st.sampled_from("abc") | st.text("azAZ09 _.:-", min_size=1, max_size=64)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars, lambda each: st.lists(each) | st.dictionaries(texts, each), max_leaves=5
)
CALL = ["key", "client:1", 1, True]
FIELDS: dict[str, list[Any]] = {
    "protocol": [1],
    "kind": ["hello", "here", "bye", "ask", "answer", "done", "later"],
    "from": ["a", "b", "c"],
    "consumes": [True, False],
    "number": [0, 1, 2**60],
    "calls": [[], [CALL], [[*CALL[:3], "mine"], [*CALL[:3], "lost"]], [[*CALL[:3], "vouch"]]],
    "to": ["a", "b"],
    "knows": [{}, {"b": False, "c": True}, {"d": True}],
}


@st.composite
def odd_words(draw: st.DrawFn) -> dict[str, Any]:
    """A word in which up to two fields are anything, or missing."""
    word = {name: draw(st.sampled_from(usual)) for name, usual in FIELDS.items()}
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=2)):
        word[name] = draw(values | st.lists(st.lists(scalars, max_size=5), max_size=3))
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=1)):
        word.pop(name)
    return word


def body_of(word: Any) -> bytes:
    return json.dumps(word, ensure_ascii=False).encode("utf-8", "surrogatepass")


bodies = st.binary(max_size=200) | odd_words().map(body_of) | values.map(body_of)


# --- how words travel -----------------------------------------------------------------------


@given(
    st.builds(Word, st.sampled_from(["hello", "here", "bye"]), names, st.booleans())
    | st.builds(
        Word,
        *(st.sampled_from(["ask", "done"]), names, st.booleans(), st.just(0)),
        st.dictionaries(keys, st.booleans(), max_size=5),
    )
    | st.builds(
        Word,
        *(st.just("answer"), names, st.booleans(), st.just(0)),
        st.dictionaries(keys, st.sampled_from(["mine", "lost", "vouch", "never"]), max_size=5),
        *(names, st.dictionaries(names, st.booleans(), max_size=5)),
    )
)
def test_a_word_arrives_as_it_was_said(word: Word) -> None:
    assert decode(encode(word)) == word


def test_what_a_later_version_adds_is_ignored() -> None:
    # given words as one may say them in years
    more = {"later": {"anything": [1, None]}, "protocol": 1, "from": "x"}
    call = ["reply_to", "id", 1, True, "later", {}]
    known = ["reply_to", "id", 1, "never"]
    # then
    assert decode(body_of(more | {"kind": "later"})) is None
    asked = decode(body_of(more | {"kind": "ask", "calls": [call]}))
    assert asked == Word("ask", "x", calls={CallKey("reply_to", "id"): True})
    answer = {"kind": "answer", "to": "a", "knows": {}, "calls": [known, ["", "2", 1, "later"]]}
    # and who says what is not understood has not answered
    assert decode(body_of(more | answer)) == Word(
        "answer", "x", calls={CallKey("reply_to", "id"): "never"}, to="a"
    )


@pytest.mark.parametrize(
    "former",
    [
        {"kind": "hello", "from": "x", "consumes": True, "number": 1},
        {"kind": "ask", "from": "x", "calls": {"client:1#2": True}},
        {"kind": "answer", "from": "x", "to": "a", "calls": {"client:1": "vouch"}, "knows": {}},
    ],
)
def test_a_word_of_the_form_before_there_was_a_number_is_none(former: dict[str, Any]) -> None:
    with pytest.raises(NoWordError, match="no protocol number"):
        decode(body_of(former))


@given(bodies)
def test_whatever_comes_is_a_word_or_none(body: bytes) -> None:
    try:
        word = decode(body)
    except NoWordError as error:
        assert len(str(error)) < 100  # noqa: PT017  # it is one of two ways out
    else:
        assert word is None or isinstance(word, Word)


@pytest.mark.parametrize("text", ["id", "é" * 127, "\x00" * 255, "\U0001f600" * 63, '"' * 255])
def test_a_question_about_many_calls_is_put_in_words_of_bounded_size(text: str) -> None:
    asked = {CallKey(text, f"{number}", 1): True for number in range(3_000)}
    # when
    words = [encode(Word("ask", "x" * 32, calls=calls)) for calls in in_portions(asked)]
    # then all of it is heard
    assert max(map(len, words)) <= MAX_BYTES - 45 * MAX_SIBLINGS
    heard = [decode(word) for word in words]
    assert {k: v for word in heard if word for k, v in word.calls.items()} == asked


def test_an_answer_of_one_who_knows_as_many_as_can_be_known_is_heard() -> None:
    knows = {f"{number:032x}": True for number in range(MAX_SIBLINGS)}
    [calls] = in_portions(
        {CallKey("x" * 255, "\x00" * 9, number): "vouch" for number in range(1, 51)}
    )
    body = encode(Word("answer", "x" * 32, calls=calls, to="x" * 32, knows=knows))
    assert decode(body) is not None


# --- an owner that hears them ---------------------------------------------------------------


def make_siblings(clock: Callable[[], float] | None = None) -> Siblings:
    clock = clock or MovableClock()
    siblings = Siblings("a", Record(), clock, RareWarnings(log, clock))
    siblings.opened(without_gap=False)
    settle(siblings)
    siblings.servers_counted(0)
    siblings.queue_inspected(QueueState(0, 1), own_consumers=1)
    return siblings


def settle(siblings: Siblings) -> int:
    """Have it hear what it says itself; return how many words those were."""
    words = siblings.take_messages()
    for body in words:
        siblings.heard(body)
    return len(words)


@examples(60)
@given(st.lists(bodies, max_size=10))
def test_one_lives_and_judges_whatever_it_hears(heard: list[bytes]) -> None:
    # given a request under judgement
    clock = MovableClock()
    siblings = make_siblings(clock)
    request = Call(Delivery(b"", 1, True, {"correlation_id": "client:1", "reply_to": "key"}), 1)
    siblings.ask(request)
    # when
    for body in heard:
        siblings.heard(body)
        siblings.take_verdicts()
        siblings.next_due()
        assert all(len(each) <= MAX_BYTES for each in siblings.take_messages())
    # then
    other = Call(Delivery(b"", 2, True, {"correlation_id": "client:2", "reply_to": "key"}), 1)
    siblings.ask(other)
    settle(siblings)
    clock.advance(3 * GRACE)
    verdicts = [verdict for calls, verdict in siblings.take_verdicts() if other in calls]
    assert verdicts in ([Verdict.RUN], [Verdict.LOST], [Verdict.MINE])


def test_a_flood_of_nonsense_is_told_once_a_minute_and_in_few_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = MovableClock()
    siblings = make_siblings(clock)
    for _ in range(1000):
        siblings.heard(b'{"from": "' + b"x" * 10_000 + b'"}')
    assert len(caplog.records) == 1
    clock.advance(61)
    siblings.heard(b"")
    assert len(caplog.records) == 2
    assert "999 times more" in caplog.text
    assert all(len(record.getMessage()) < 300 for record in caplog.records)


def hello(name: str) -> bytes:
    return encode(Word("hello", name, consumes=True, number=1))


def flood_of(kind: str, size: int) -> list[bytes]:
    """*size* things that somebody says: in one word where that can be."""
    name = "{:x}".format
    numbers = range(size)
    made: dict[str, Callable[[], list[bytes]]] = {
        "hello": lambda: [hello(name(n)) for n in numbers],
        "hello and bye": lambda: [
            body for n in numbers for body in (hello(name(n)), encode(Word("bye", name(n))))
        ],
        "knows": lambda: [
            encode(Word("answer", "x", to="a", knows={name(n): n % 2 == 0 for n in numbers}))
        ],
        "asks": lambda: [
            encode(Word("ask", "x", calls={key(n): True for n in each}))
            for each in (numbers[at : at + 500] for at in range(0, size, 500))
        ],
        "asks about nothing": lambda: [encode(Word("ask", name(n % 50))) for n in numbers],
        "answers": lambda: [
            encode(Word("answer", name(n), to="a", calls={key(1): "never"})) for n in numbers
        ],
        "comes and goes": lambda: [
            encode(Word("here", name(n % 9), consumes=n % 2 == 0)) for n in numbers
        ],
        "nonsense": lambda: [b"{}" for n in numbers],
    }
    return made[kind]()


FLOODS = [
    *("hello", "hello and bye", "knows", "asks", "asks about nothing"),
    *("answers", "comes and goes", "nonsense"),
]


def seconds_for(heard: list[bytes], known: int = 0) -> float:
    """CPU time of an owner with 200 open questions that takes turns as it hears them."""
    siblings = make_siblings()
    for number in range(known):
        siblings.heard(hello(f"known {number}"))
    for number in range(200):
        properties = {"correlation_id": f"client:{number}", "reply_to": "key"}
        siblings.ask(Call(Delivery(b"", number, True, properties), 1))
    settle(siblings)
    started = time.thread_time()
    for at in range(0, len(heard), 20):
        for body in heard[at : at + 20]:
            siblings.heard(body)
        siblings.take_verdicts()
        siblings.next_due()
        siblings.take_messages()
    return time.thread_time() - started


@pytest.mark.parametrize("flood", FLOODS)
def test_what_is_heard_costs_time_in_proportion_to_how_much_it_is(flood: str) -> None:
    # as many as one can know, and beyond
    few, many = flood_of(flood, 1000), flood_of(flood, 4000)
    # the least of some tries, since others use the machine
    shorter, longer = (min(seconds_for(heard) for _ in range(2)) for heard in (few, many))
    # then it is four times as much, and not sixteen times
    assert longer < 10 * max(shorter, 0.001)


@pytest.mark.parametrize("flood", ["knows", "asks", "answers", "comes and goes", "nonsense"])
def test_what_is_heard_costs_little_beside_reading_it_where_many_are_known(flood: str) -> None:
    heard = flood_of(flood, 2000)
    reading = min(seconds_to_read(heard) for _ in range(3))
    # given one who knows as many as can be; the least of some tries, since others use the machine
    hearing = min(seconds_for(heard, known=MAX_SIBLINGS) for _ in range(2))
    # then it does not look at all of them for each name that it hears
    assert hearing < 25 * max(reading, 0.001)


def seconds_to_read(heard: list[bytes]) -> float:
    started = time.thread_time()
    for body in heard:
        with suppress(NoWordError):
            decode(body)
    return time.thread_time() - started


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_does_not_fill_the_memory(flood: str) -> None:
    siblings = make_siblings()
    tracemalloc.start()
    try:
        for body in flood_of(flood, 3_000):
            siblings.heard(body)
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # then
    assert now < 8 * 2**20
    assert len(siblings._membership.known) <= MAX_SIBLINGS


# --- more of them than can be known ---------------------------------------------------------


def test_nothing_that_is_marked_runs_where_not_all_are_known() -> None:
    # given more than it can know, all of which answer
    clock = MovableClock()
    siblings = make_siblings(clock)
    everybody = [f"{number:x}" for number in range(16, MAX_SIBLINGS + 17)]
    for name in everybody:
        siblings.heard(hello(name))
    assert not siblings.vouches
    # when
    siblings.ask(Call(Delivery(b"", 1, True, {"correlation_id": "client:1", "reply_to": "key"}), 1))
    settle(siblings)
    about = {CallKey("key", "client:1"): "vouch"}
    for name in everybody:
        siblings.heard(encode(Word("answer", name, to="a", calls=about)))
    # then
    assert [verdict for _, verdict in siblings.take_verdicts()] == [Verdict.LOST]
    # and when one has left, and the queue is empty, it vouches again
    siblings.heard(encode(Word("bye", everybody[0])))
    others = MAX_SIBLINGS - 1
    siblings.servers_counted(others)
    siblings.queue_inspected(QueueState(0, 1), own_consumers=1)
    assert not siblings.vouches
    for name in everybody[1:MAX_SIBLINGS]:
        siblings.heard(encode(Word("here", name, consumes=False)))
    siblings.servers_counted(others)
    siblings.queue_inspected(QueueState(0, 1), own_consumers=1)
    assert siblings.vouches


def test_many_who_leave_at_once_are_missed_rather_than_forgotten() -> None:
    siblings = make_siblings(StandingClock())
    for number in range(16, MAX_SIBLINGS + 20):
        siblings.heard(hello(f"{number:x}"))
        siblings.heard(encode(Word("bye", f"{number:x}")))
    assert len(siblings._membership.known._left) == MAX_SIBLINGS
    assert len(siblings._membership.known) == 4


def test_a_word_of_another_version_keeps_a_server_from_vouching_for_its_sender() -> None:
    # given one that says nothing that is understood, and consumes
    group = Group()
    server = group.start("a")
    stranger = group.start("b")
    stranger.connected = False
    server.siblings.heard(b'{"protocol": 2, "kind": "hello", "from": "c"}')
    later = group.start("c2")
    # then whoever does not know it does not vouch while it consumes
    later.siblings.servers_counted(3)
    later.siblings.queue_inspected(QueueState(0, 4), own_consumers=1)
    assert not later.siblings.vouches


@pytest.mark.parametrize("character", ["x", "\U0001f600", "\ud83d", '"', "\\", "\n", "é"])
def test_whatever_names_are_invented_an_answer_is_short_enough_to_be_heard(character: str) -> None:
    # given as many siblings as can be known, all of which were invented by somebody
    siblings = make_siblings()
    for number in range(MAX_SIBLINGS):
        name = f"{number:x}"
        siblings.heard(hello(name + character * (64 - len(name))))
    # when one of the others asks
    siblings.heard(encode(Word("ask", "b", calls={key(1): True})))
    # then
    words = siblings.take_messages()
    assert [word for word in words if decode(word).kind == "answer"]
    assert max(map(len, words)) <= MAX_BYTES
