import pytest

from qam._client.callback_items import FINISHED, PROCESSING, WAITING, CallbackItems
from qam._common.deadline import NO_END


@pytest.fixture
def items() -> CallbackItems:
    return CallbackItems()


def test_one_that_is_added_waits_under_a_uid_of_its_own(items: CallbackItems) -> None:
    first, second = items.add(3, NO_END, None), items.add(4, NO_END, None)

    assert first != second
    assert (items.by_uid[first]["id"], items.by_uid[first]["state"]) == (3, WAITING)
    assert items.uid_in(3) == first
    assert items.uid_in(4) == second


def test_its_state_can_be_set_until_it_is_finished(items: CallbackItems) -> None:
    uid = items.add(3, NO_END, None)
    item = items.by_uid[uid]

    items.set_state(uid, PROCESSING)
    assert item["state"] == PROCESSING

    items.finish(uid)
    assert item["state"] == FINISHED
    assert items.by_uid == {}
    # and nobody minds that it is not there
    items.finish(uid)
    items.set_state(uid, WAITING)
    items.remove(uid)
    assert item["state"] == FINISHED


def test_a_slot_that_is_given_back_has_no_callback(items: CallbackItems) -> None:
    items.add(3, NO_END, None)

    items.forget_slot(3)
    items.forget_slot(3)

    assert items.uid_in(3) == ""


def test_in_a_forked_child_there_are_none(items: CallbackItems) -> None:
    items.add(1, NO_END, None)
    before = items.lock

    items.clear_after_fork()

    assert items.by_uid == {}
    assert items.lock is not before
