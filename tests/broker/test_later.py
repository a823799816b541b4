from qam._broker.later import Later
from qam._broker.messages import Publish, Route


def message(body: bytes) -> Publish:
    return Publish(Route("exchange", "key"), body, {})


def test_nothing_is_due_at_first() -> None:
    later: Later[Publish] = Later()

    assert later.next_due() is None
    assert later.take_due(1e9) == []
    assert len(later) == later.bytes == 0


def test_each_is_taken_at_its_time_and_those_of_one_time_in_their_order() -> None:
    # given
    later: Later[Publish] = Later()
    last, first, second = (message(body) for body in (b"last", b"first", b"second"))
    later.add(last, 3.0)
    later.add(first, 2.0)
    later.add(second, 2.0)

    # then
    assert later.next_due() == 2.0
    assert later.take_due(1.9) == []
    assert later.take_due(2.0) == [first, second]
    assert later.next_due() == 3.0
    assert later.items() == [last]
    assert later.take_due(9.0) == [last]


def test_the_bytes_of_what_is_kept_are_counted() -> None:
    later: Later[Publish] = Later()
    later.add(message(b"x" * 10), 1.0)
    later.add(message(b"x" * 5), 2.0)
    assert (len(later), later.bytes) == (2, 15)

    later.take_due(1.0)

    assert (len(later), later.bytes) == (1, 5)
