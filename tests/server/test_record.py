from typing import Any

import pytest

from qam._broker.messages import Delivery
from qam._protocol.correlation import CallKey
from qam._protocol.entities import reply_routing_key
from qam._protocol.properties import RUNS
from qam._server import record as record_module
from qam._server.call import Answer, Call
from qam._server.record import Elsewhere, Record


def where(correlation_id: str) -> str:
    """Where a proxy wants its reply whose call has this correlation id."""
    return reply_routing_key(correlation_id.rpartition(":")[0])


def key(correlation_id: str, runs: int = 1) -> CallKey:
    """By what the request of a proxy is recognized."""
    return CallKey(where(correlation_id), correlation_id, runs)


def call(correlation_id: str | None, runs: int = 1) -> Call:
    """A request of a proxy that came with this correlation id."""
    properties: dict[str, Any] = {}
    if correlation_id is not None:
        properties |= {"correlation_id": correlation_id, "reply_to": where(correlation_id)}
    if runs > 1:
        properties["headers"] = {RUNS: runs}
    return Call(Delivery(b"request", 1, properties=properties), connection_number=1)


def answered(record: Record, *correlation_ids: str, body: bytes = b"reply") -> None:
    for correlation_id in correlation_ids:
        request = call(correlation_id)
        record.begin(request, first=True)
        request.answer = Answer("key", body)
        record.end([request])


def test_a_request_runs_until_it_is_answered() -> None:
    record, request = Record(), call("c:1")
    record.begin(request, first=True)

    assert record.running == {key("c:1"): request}
    assert record.answer(key("c:1")) is None

    request.answer = Answer("key", b"reply")
    record.end([request])

    assert record.running == {}
    assert record.knows(key("c:1"))
    assert record.answer(key("c:1")) == Answer("key", b"reply")


def test_one_that_needed_no_answer_is_done_too() -> None:
    record, request = Record(), call("c:1")
    record.begin(request, first=True)
    record.end([request])

    assert record.knows(key("c:1"))
    assert record.answer(key("c:1")) is None


def test_the_request_of_a_client_that_gives_no_id_is_not_kept() -> None:
    record, request = Record(), call(None)
    record.begin(request, first=True)
    record.end([request])

    assert record.running == {}
    assert not record.knows(key("None"))


def test_one_that_was_not_begun_leaves_no_trace() -> None:
    record, request = Record(), call("c:1")
    record.begin(request, first=True)
    record.drop(request)
    record.end([request])

    assert record.running == {}
    assert not record.knows(key("c:1"))


def test_the_end_of_a_copy_is_not_the_end_of_the_request() -> None:
    record, request = Record(), call("c:1")
    record.begin(request, first=True)
    record.end([call("c:1")])

    assert record.running == {key("c:1"): request}


def test_a_second_run_of_an_idempotent_method_is_another_request() -> None:
    record = Record()
    record.begin(call("c:1"), first=True)
    record.begin(call("c:1", runs=2), first=False)

    assert set(record.running) == {key("c:1"), key("c:1", 2)}


@pytest.mark.parametrize("bounds", [{"max_answers": 3}, {"max_bytes": 300}])
def test_what_is_too_much_is_forgotten_oldest_first(bounds: dict[str, int]) -> None:
    record = Record(**bounds)

    answered(record, *(f"c:{number}" for number in range(10, 16)), body=b"x" * 100)

    assert [record.knows(key(f"c:{number}")) for number in range(10, 16)] == [False] * 3 + [
        True
    ] * 3
    # and it knows what it forgot
    assert record.is_lost(key("c:12"))
    assert not record.is_lost(key("c:13"))
    assert not record.is_lost(key("another:12"))


def test_a_large_answer_leaves_room_for_others() -> None:
    record = Record(max_bytes=300)
    answered(record, "c:1", body=b"x" * 301)
    answered(record, "c:2", "c:3", body=b"x" * 150)

    assert [record.knows(key(f"c:{number}")) for number in (1, 2, 3)] == [False, True, True]


def test_it_covers_what_comes_after_the_first_call_of_a_client() -> None:
    record = Record()
    record.begin(call("c:5"), first=True)

    assert record.covers(key("c:5"))
    assert record.covers(key("c:6"))
    assert record.covers(key("c:6", 2))
    assert not record.covers(key("c:4"))
    assert not record.covers(key("another:6"))


def test_a_call_that_others_may_have_had_proves_nothing() -> None:
    record = Record()
    record.begin(call("c:5"), first=False)

    assert not record.covers(key("c:6"))


@pytest.mark.parametrize("odd", ["", "c", "c:", "c:x", "c:" + "9" * 50, ":"])
def test_an_id_that_is_none_of_this_library_proves_nothing(odd: str) -> None:
    record = Record(max_answers=1)
    record.begin(call(odd or None), first=True)

    assert not record.covers(key(odd))
    assert not record.is_lost(key(odd))


def test_a_call_that_others_may_have_knows_that_however_many_there_are() -> None:
    record, early, late = Record(max_answers=2), call("c:1"), call("c:2")
    record.note_elsewhere(key("c:1"))
    for each in (early, late):
        record.begin(each, first=False)
    record.note_elsewhere(key("c:2"))
    for number in range(3, 10):
        record.note_elsewhere(key(f"c:{number}"))

    assert not record.is_elsewhere(key("c:1"))
    assert early.is_elsewhere
    assert late.is_elsewhere
    assert not call("c:3").is_elsewhere


def test_a_key_that_is_used_again_has_one_answer() -> None:
    record = Record(max_answers=10, max_bytes=1000)
    for _ in range(100):
        answered(record, "c:1", body=b"x" * 100)
    answered(record, "c:2", body=b"x" * 900)

    assert record.answer(key("c:1")) is not None
    assert record.answer(key("c:2")) is not None


def test_two_with_one_key_run_and_end_each_by_itself() -> None:
    record, calls = Record(), [call("c:1") for _ in range(3)]
    for each in calls:
        record.begin(each, first=False)

    record.drop(calls[1])
    record.drop(calls[1])
    assert record.running == {key("c:1"): calls[0]}
    record.end([calls[0]])
    assert record.running == {key("c:1"): calls[2]}
    record.end([calls[2], calls[0]])
    assert record.running == {}
    assert record.knows(key("c:1"))


def test_what_others_asked_about_is_remembered() -> None:
    record = Record(max_answers=2)
    record.note_elsewhere(key("c:1"))

    assert record.is_elsewhere(key("c:1"))
    assert not record.is_lost(key("c:1"))

    record.note_elsewhere(key("c:2"), Elsewhere.DOUBTFUL)
    record.note_elsewhere(key("c:2"))
    assert record.is_lost(key("c:2"))

    record.note_elsewhere(key("c:3"))
    assert not record.is_elsewhere(key("c:1"))


def test_clients_are_forgotten_when_they_are_too_many() -> None:
    record = Record()
    for number in range(10_001):
        record.begin(call(f"client-{number}:1"), first=True)

    assert not record.covers(key("client-0:1"))
    assert record.covers(key("client-1:1"))
    assert record.covers(key("client-10000:1"))


def test_the_last_run_of_an_idempotent_method_speaks_for_all() -> None:
    record = Record()
    first, second = call("c:1"), call("c:1", runs=2)
    record.begin(first, first=True)
    record.end([first])  # published anew
    assert record.latest(key("c:1")) == key("c:1")

    record.begin(second, first=False)
    assert record.latest(key("c:1")) == key("c:1", 2)

    second.answer = Answer("key", b"reply")
    record.end([second])
    assert record.answer(record.latest(key("c:1"))) == Answer("key", b"reply")


def test_the_last_run_is_the_highest_in_whatever_order_they_come() -> None:
    record = Record()
    for runs in (3, 2):
        record.begin(call("c:1", runs), first=False)

    assert record.latest(key("c:1")) == key("c:1", 3)
    assert record.latest(key("c:1", 2)) == key("c:1", 3)
    assert record.latest(key("c:1", 4)) == key("c:1", 4)


def test_a_run_that_was_not_begun_is_not_the_last_one() -> None:
    record, second = Record(), call("c:1", runs=2)
    record.begin(second, first=False)

    record.drop(second)

    assert record.latest(key("c:1")) == key("c:1")
    assert not record.knows(key("c:1", 2))


def test_a_run_that_was_dropped_takes_no_later_one_with_it() -> None:
    record, second = Record(), call("c:1", runs=2)
    record.begin(second, first=False)
    record.begin(call("c:1", runs=3), first=False)

    record.drop(second)

    assert record.latest(key("c:1")) == key("c:1", 3)


def test_a_run_that_is_forgotten_is_not_the_last_one_any_more() -> None:
    record, second = Record(max_answers=1), call("c:1", runs=2)
    record.begin(second, first=False)
    record.end([second])
    assert record.latest(key("c:1")) == key("c:1", 2)

    answered(record, "c:2")

    assert record.latest(key("c:1")) == key("c:1")
    assert record.is_lost(key("c:1"))


def test_what_nobody_can_ask_any_more_is_not_covered() -> None:
    record = Record()
    answered(record, "c:1")
    assert record.covers(key("c:1"))

    record.uncover()

    assert not record.covers(key("c:1"))
    assert record.knows(key("c:1"))


def test_a_doubt_about_what_was_asked_stays() -> None:
    record = Record()
    record.note_elsewhere(key("c:1"), Elsewhere.DOUBTFUL)
    record.note_elsewhere(key("c:1"))
    record.note_elsewhere(key("c:2"))

    assert [record.is_lost(key(each)) for each in ("c:1", "c:2", "c:3")] == [True, False, False]
    assert [record.is_elsewhere(key(each)) for each in ("c:1", "c:2", "c:3")] == [True, True, False]


def test_what_an_old_client_was_answered_is_not_kept() -> None:
    record, old = Record(), call(None)
    assert old.key == call(None).key != call(None, runs=2).key
    record.begin(old, first=False)
    old.answer = Answer("key", b"reply")
    record.end([old])
    assert record.knows(old.key)
    assert record.answer(old.key) is None
    record.forget([old.key])
    assert not record.knows(old.key)


def test_a_client_may_have_any_name() -> None:
    record, first, again = Record(max_answers=1), call("a#b:5"), call("a#b:5", runs=2)
    record.begin(first, first=True)
    assert record.covers(key("a#b:5"))
    assert record.covers(key("a#b:6", 2))
    assert not record.covers(key("a#b:4"))
    # when it has run, and another run of it
    record.end([first])
    assert record.latest(key("a#b:5")) == key("a#b:5")
    record.begin(again, first=False)
    assert record.latest(key("a#b:5")) == key("a#b:5", 2)
    record.end([again])
    # then the first is forgotten, and no other
    assert record.is_lost(key("a#b:5"))
    assert not record.is_lost(key("a#b:6"))
    assert not record.is_lost(key("a#c:5"))
    assert not record.is_lost(key("1"))


@pytest.mark.parametrize("odd", ["", "#", "c#", "c#x", "c:1#" + "9" * 5000, "#2"])
def test_an_id_that_looks_like_another_run_does_no_harm(odd: str) -> None:
    record = Record()
    answered(record, odd)

    assert record.latest(key(odd)) == key(odd)


def test_what_ends_together_is_forgotten_as_if_one_by_one() -> None:
    record = Record(max_answers=2)
    calls = [call(f"{client}:{number}") for number in (12, 11, 13) for client in "cd"]
    for each in calls:
        record.begin(each, first=True)
    # when
    record.end(calls)
    # then
    assert [each.key for each in calls if each.key and record.knows(each.key)] == [
        key("c:13"),
        key("d:13"),
    ]
    for client in "cd":
        assert record.is_lost(key(f"{client}:12"))
        assert not record.is_lost(key(f"{client}:13"))


def test_the_latest_of_very_many_runs_is_found() -> None:
    record = Record()
    for runs in range(1, 3001):
        record.begin(call("c:1", runs=runs), first=False)

    assert record.latest(key("c:1")) == key("c:1", 3000)


def test_it_covers_nobody_whose_forgotten_calls_it_does_not_remember(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a client of which a call is forgotten
    monkeypatch.setattr(record_module, "_MAX_CLIENTS", 3)
    record = Record(max_answers=1)
    answered(record, "c:1", "c:2")
    assert record.is_lost(key("c:1"))
    assert record.covers(key("c:1"))

    # when others, whose calls have no numbers, push that out
    answered(record, *(f"other{n}:x" for n in range(5)))

    # then nothing is known of that client
    assert not record.is_lost(key("c:1"))
    assert not record.covers(key("c:1"))


def test_the_first_number_of_a_client_may_be_zero() -> None:
    record = Record(max_answers=1)
    answered(record, "c:0")
    assert record.covers(key("c:0"))

    answered(record, "c:1")

    assert [record.is_lost(key(each)) for each in ("c:0", "c:1")] == [True, False]


def test_requests_without_an_answer_take_no_room_of_answers() -> None:
    # given a record with room for two bytes, and more requests than that without an answer
    record = Record(max_answers=3, max_bytes=2)
    calls = [call(f"c:{number}") for number in range(6)]
    for each in calls:
        record.begin(each, first=True)
    record.end(calls)
    assert [record.knows(each.key) for each in calls] == [False] * 3 + [True] * 3

    # when an answer comes that is too large, although some without an answer were forgotten
    answered(record, "c:6", body=b"xxx")

    # then it is not kept
    assert not record.knows(key("c:6"))


def test_what_is_withdrawn_gives_its_room_to_others() -> None:
    record = Record(max_bytes=10)
    answered(record, "c:1", body=b"x" * 10)

    record.forget([key("c:1"), key("unknown:1")])

    answered(record, "c:2", body=b"x" * 10)
    assert record.knows(key("c:2"))
    answered(record, "c:3", body=b"x" * 11)
    assert not record.knows(key("c:3"))


def test_what_was_asked_about_again_is_remembered_longer() -> None:
    record = Record(max_answers=2)

    for correlation_id in ("c:1", "c:2", "c:1", "c:3"):
        record.note_elsewhere(key(correlation_id))

    assert [record.is_elsewhere(key(f"c:{number}")) for number in (1, 2, 3)] == [True, False, True]


def test_the_answer_to_one_of_two_with_the_same_key_is_kept() -> None:
    record, one, other = Record(), call("c:1"), call("c:1")
    for each in (one, other):
        record.begin(each, first=False)

    one.answer = Answer("key", b"reply")
    record.end([one])
    record.drop(other)

    assert record.answer(key("c:1")) == Answer("key", b"reply")


def test_of_those_with_the_same_key_only_what_is_at_hand_is_answered() -> None:
    # given two requests with the same key, and a copy of them that was not begun
    record, one, other, copy = Record(), call("c:1"), call("c:1"), call("c:1")
    for each in (one, other):
        record.begin(each, first=False)

    # when the copy is settled, and the two are given back
    copy.answer = Answer("key", b"reply")
    record.end([copy])
    for each in (one, other):
        record.drop(each)

    # then nothing was answered
    assert not record.knows(key("c:1"))


def test_a_run_that_is_withdrawn_is_not_the_last_one_any_more() -> None:
    record, second = Record(), call("c:1", runs=2)
    record.begin(second, first=False)
    record.end([second])

    record.forget([key("c:1", 2)])

    assert record.latest(key("c:1")) == key("c:1")


@pytest.mark.parametrize("what", Elsewhere)
def test_it_is_known_what_another_server_has_answered(what: Elsewhere) -> None:
    record = Record()
    assert not record.is_answered_elsewhere(key("c:1"))

    record.note_elsewhere(key("c:1"), what)

    assert record.is_answered_elsewhere(key("c:1")) is (what is Elsewhere.ANSWERED)
