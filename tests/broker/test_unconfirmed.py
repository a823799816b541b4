from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from qam._broker.events import Confirmed, Event, Refused, Returned
from qam._broker.messages import Publish, Route
from qam._broker.unconfirmed import Unconfirmed


def message(correlation_id: str | None = None) -> Publish:
    properties: dict[str, Any] = (
        {} if correlation_id is None else {"correlation_id": correlation_id}
    )
    return Publish(Route("exchange", "key"), b"body", properties)


def written(*correlation_ids: str | None) -> tuple[Unconfirmed, list[Publish]]:
    unconfirmed = Unconfirmed()
    messages = [message(correlation_id) for correlation_id in correlation_ids]
    for each in messages:
        unconfirmed.add([each])
    return unconfirmed, messages


def fates(events: list[Event]) -> list[tuple[str, Publish]]:
    """Each message of *events* with what became of it."""
    found: list[tuple[str, Publish]] = []
    for event in events:
        if isinstance(event, Confirmed):
            found += [("confirmed", each) for each in event.messages]
        else:
            assert isinstance(event, (Returned, Refused))
            found.append((type(event).__name__.lower(), event.message))
    return found


def test_an_ack_confirms_the_message_that_it_counts() -> None:
    unconfirmed, (first, second, third) = written("a", "b", "c")

    assert fates(unconfirmed.acked(2, multiple=False)) == [("confirmed", second)]
    assert unconfirmed.take_all() == [first, third]


def test_an_ack_of_multiple_confirms_all_up_to_it() -> None:
    unconfirmed, (first, second, third) = written("a", "b", "c")

    assert fates(unconfirmed.acked(2, multiple=True)) == [
        ("confirmed", first),
        ("confirmed", second),
    ]
    assert unconfirmed.take_all() == [third]


def test_a_second_ack_confirms_nothing() -> None:
    unconfirmed, _ = written("a")
    unconfirmed.acked(1, multiple=False)

    assert fates(unconfirmed.acked(1, multiple=False)) == []
    assert fates(unconfirmed.acked(1, multiple=True)) == []
    assert fates(unconfirmed.acked(7, multiple=False)) == []


def test_a_nack_refuses_the_messages_that_it_counts() -> None:
    unconfirmed, (first, second, third) = written("a", "b", "c")

    assert fates(unconfirmed.nacked(3, multiple=False)) == [("refused", third)]
    assert fates(unconfirmed.nacked(2, multiple=True)) == [("refused", first), ("refused", second)]


def test_a_message_that_comes_back_is_returned_when_it_is_acked() -> None:
    # given
    unconfirmed, (first, second, third) = written("a", "b", None)

    # when
    unconfirmed.returned("b")
    unconfirmed.returned(None)

    # then
    assert sorted(fates(unconfirmed.acked(3, multiple=True)), key=str) == sorted(
        [("confirmed", first), ("returned", second), ("confirmed", third)], key=str
    )


def test_a_message_that_is_sent_again_after_its_return_can_be_confirmed() -> None:
    # given
    unconfirmed, (first,) = written("a")
    unconfirmed.returned("a")
    assert fates(unconfirmed.acked(1, multiple=False)) == [("returned", first)]

    # when
    unconfirmed.add([first])

    # then
    assert fates(unconfirmed.acked(2, multiple=False)) == [("confirmed", first)]


def test_two_messages_of_one_call_that_come_back_are_both_returned() -> None:
    # given
    unconfirmed, (first, second) = written("a", "a")

    # when
    unconfirmed.returned("a")
    unconfirmed.returned("a")

    # then
    assert fates(unconfirmed.acked(2, multiple=True)) == [("returned", first), ("returned", second)]


def test_all_that_is_taken_is_forgotten_and_the_count_goes_on() -> None:
    # given
    unconfirmed, messages = written("a", "b")
    assert unconfirmed.take_all() == messages
    assert unconfirmed.take_all() == []

    # when
    later = message("c")
    unconfirmed.add([later])

    # then
    assert fates(unconfirmed.acked(2, multiple=True)) == []
    assert fates(unconfirmed.acked(3, multiple=False)) == [("confirmed", later)]


@given(st.data())
def test_each_message_has_one_fate_and_the_right_one(data: st.DataObject) -> None:
    # given
    unconfirmed = Unconfirmed()
    waiting: dict[int, Publish] = {}  # the model: what the broker has not answered, by its count
    came_back: set[int] = set()
    count = 0

    for action in data.draw(st.lists(st.sampled_from(["write"] * 3 + ["return", "ack", "nack"]))):
        # when
        if action == "write":
            count += 1
            waiting[count] = message(str(count))
            unconfirmed.add([waiting[count]])
            continue
        if not waiting:
            continue
        tag = data.draw(st.sampled_from(sorted(waiting)))
        if action == "return":
            came_back.add(tag)
            unconfirmed.returned(str(tag))
            continue
        multiple = data.draw(st.booleans())
        tags = [each for each in waiting if each <= tag] if multiple else [tag]
        if action == "nack":
            # What came back is acked, never nacked.
            if came_back.intersection(tags):
                continue
            expected = [("refused", waiting.pop(each)) for each in tags]
            actual = fates(unconfirmed.nacked(tag, multiple))
        else:
            expected = [
                ("returned" if each in came_back else "confirmed", waiting.pop(each))
                for each in tags
            ]
            actual = fates(unconfirmed.acked(tag, multiple))

        # then
        for fate in ("confirmed", "returned", "refused"):
            assert [m for f, m in actual if f == fate] == [m for f, m in expected if f == fate]
        assert len(actual) == len(expected)
    assert unconfirmed.take_all() == list(waiting.values())


def test_what_was_acked_singly_is_not_passed_again_by_an_ack_of_all() -> None:
    unconfirmed, messages = written(*[None] * 50)
    for tag in range(1, 51):
        unconfirmed.acked(tag, multiple=False)
    assert unconfirmed._lowest_tag == 51

    last = message()
    unconfirmed.add([last])

    assert fates(unconfirmed.acked(51, multiple=True)) == [("confirmed", last)]
    assert len(messages) == 50
