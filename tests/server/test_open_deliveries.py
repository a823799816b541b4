from hypothesis import given
from hypothesis import strategies as st

from qam._server.open_deliveries import OpenDeliveries


class Channel:
    """What a broker holds unacknowledged; refuses an ack of what it does not hold."""

    def __init__(self) -> None:
        self.unacknowledged: list[int] = []
        self.acknowledged: list[int] = []

    def acknowledge(self, tag: int, multiple: bool) -> list[int]:
        assert tag in self.unacknowledged, f"unknown delivery tag {tag}"
        tags = [each for each in self.unacknowledged if each <= tag] if multiple else [tag]
        for each in tags:
            self.unacknowledged.remove(each)
        self.acknowledged += tags
        return tags


def opened(*tags: int) -> OpenDeliveries:
    deliveries = OpenDeliveries()
    for tag in tags:
        deliveries.opened(tag)
    return deliveries


def test_what_is_open_is_not_acknowledged() -> None:
    deliveries = opened(1, 2)

    assert deliveries.take_acks() == []
    assert len(deliveries) == 2


def test_all_that_is_done_in_a_row_is_acknowledged_at_once() -> None:
    deliveries = opened(1, 2, 3)

    deliveries.done([3, 1, 2])

    assert deliveries.take_acks() == [(3, True)]
    assert len(deliveries) == 0


def test_what_is_done_above_an_open_one_is_acknowledged_singly() -> None:
    deliveries = opened(1, 2, 3, 4, 5)

    deliveries.done([5, 1, 2, 4])

    assert deliveries.take_acks() == [(2, True), (4, False), (5, False)]
    assert len(deliveries) == 1


def test_nothing_is_acknowledged_twice() -> None:
    deliveries = opened(1)
    deliveries.done([1])
    assert deliveries.take_acks() == [(1, True)]

    deliveries.done([1])

    assert deliveries.take_acks() == []


def test_what_was_never_opened_is_not_acknowledged() -> None:
    deliveries = opened(1)

    deliveries.done([2])

    assert deliveries.take_acks() == []


def test_what_is_done_and_not_acknowledged_yet_counts() -> None:
    deliveries = opened(1, 2)

    deliveries.done([1])

    assert len(deliveries) == 2


def test_what_was_dropped_is_not_acknowledged_and_holds_nothing_up() -> None:
    deliveries = opened(1, 2)

    deliveries.dropped(1)
    deliveries.done([1, 2])

    assert deliveries.take_acks() == [(2, True)]
    deliveries.dropped(1)
    assert len(deliveries) == 0


@given(st.data())
def test_in_any_order_no_open_one_is_acknowledged_and_each_once_in_the_end(
    data: st.DataObject,
) -> None:
    # given
    deliveries, channel = OpenDeliveries(), Channel()
    still_open: list[int] = []
    dropped: list[int] = []
    last_tag = 0

    def acknowledge() -> None:
        for tag, multiple in deliveries.take_acks():
            acknowledged = channel.acknowledge(tag, multiple)
            assert not set(acknowledged) & set(still_open)

    # when
    for action in data.draw(st.lists(st.sampled_from("ooodddrt"), max_size=60), "actions"):
        if action == "o":
            last_tag += data.draw(st.integers(1, 3), "gap")
            deliveries.opened(last_tag)
            channel.unacknowledged.append(last_tag)
            still_open.append(last_tag)
        elif action == "t":
            acknowledge()
        elif still_open:
            tag = data.draw(st.sampled_from(still_open), "which")
            still_open.remove(tag)
            if action == "d":
                deliveries.done([tag])
            else:
                deliveries.dropped(tag)
                channel.unacknowledged.remove(tag)
                dropped.append(tag)
        assert len(deliveries) == len(channel.unacknowledged)
    rest = data.draw(st.permutations(still_open), "rest")
    still_open.clear()
    deliveries.done(rest)
    acknowledge()

    # then
    assert channel.unacknowledged == []
    assert len(set(channel.acknowledged)) == len(channel.acknowledged)
    assert not set(channel.acknowledged) & set(dropped)
    assert len(deliveries) == 0
