"""One server among the others of its server_id: who knows whom, at times that the tests give."""

from collections.abc import Iterable
from math import inf

import pytest

from qam._broker.messages import QueueState
from qam._server import known_siblings
from qam._server.known_siblings import GRACE, VALID
from qam._server.membership import Findings, Membership

START = 100.0
NOTHING = Findings(roll_is_called=False, forgotten=[])


def announce(membership: Membership, now: float = START, without_gap: bool = False) -> None:
    """A connection is open, and the hello on it came back, and is safe."""
    number = membership.opened(without_gap, now)
    membership.heard_own_hello(number)
    membership.hello_confirmed(number)


def look(
    membership: Membership,
    now: float = START,
    messages: int = 0,
    consumers: int = 1,
    holders: Iterable[str] = (),
    strangers: int = 0,
) -> Findings:
    """Inspect the request queue, which this server consumes from."""
    membership.servers_counted(membership.known.count_present() + strangers)
    return membership.queue_inspected(QueueState(messages, consumers), 1, holders, now)


@pytest.fixture
def membership() -> Membership:
    """A server that is announced, and has not seen the request queue yet."""
    made = Membership()
    announce(made)
    return made


def join(membership: Membership, *instances: str, consumes: bool = True) -> None:
    """Siblings come, and say that they are there."""
    for instance in instances:
        assert membership.add(instance, there=True)
        assert not membership.heard(instance, consumes, START)


# --- the connection -------------------------------------------------------------------------


def test_a_server_is_announced_once_its_latest_hello_came_back() -> None:
    membership = Membership()
    first = membership.opened(without_gap=False, now=START)
    assert not membership.announced
    membership.heard_own_hello(first)
    membership.hello_confirmed(first)
    assert membership.announced
    # when it opens another connection, and the hello of the first comes again
    second = membership.opened(without_gap=True, now=START + 1)
    membership.heard_own_hello(first)
    membership.hello_confirmed(first)
    assert not membership.announced
    # then it is announced by the second one, and stays so
    membership.heard_own_hello(second)
    membership.hello_confirmed(second)
    membership.heard_own_hello(first)
    membership.hello_confirmed(first)
    assert membership.announced
    assert (first, second, membership.opened_at) == (1, 2, START + 1)


def test_a_hello_that_a_killed_broker_may_lose_announces_nobody() -> None:
    membership = Membership()
    number = membership.opened(without_gap=False, now=START)
    membership.heard_own_hello(number)
    assert not membership.announced
    membership.hello_confirmed(number)
    assert membership.announced


def test_nor_does_one_that_does_not_come_back() -> None:
    membership = Membership()
    number = membership.opened(without_gap=False, now=START)
    membership.hello_confirmed(number)
    assert not membership.announced
    membership.heard_own_hello(number)
    assert membership.announced


def test_after_a_loss_others_may_need_what_it_remembers(membership: Membership) -> None:
    join(membership, "b")
    look(membership, consumers=2)
    assert not membership.is_needed(START)
    # when the last acks may be lost with its connection
    membership.lost(START)
    announce(membership, START, without_gap=True)
    assert membership.is_needed(START)
    # then it looks soon whether all that is delivered again was asked about
    assert membership.next_inspection(holds=False, now=START) == START + 1.0
    look(membership, messages=1, consumers=2)
    look(membership, consumers=3)
    assert membership.is_needed(START)
    look(membership, consumers=2)
    assert not membership.is_needed(START)
    assert membership.next_inspection(holds=False, now=START) == START + 10.0


def test_after_a_loss_it_is_needed_until_the_broker_has_noticed_that(
    membership: Membership,
) -> None:
    join(membership, "b")
    membership.lost(START)
    announce(membership, START, without_gap=True)
    # when the queue is never empty
    look(membership, START, messages=1)
    end = START + 30.0
    assert membership.is_needed(end - 0.1)
    assert membership.next_due(holds=False, now=end - 0.5) == START + 1.0
    # then there is an end to it all the same
    assert not membership.is_needed(end)


def test_where_nobody_else_is_there_it_is_not_needed(membership: Membership) -> None:
    look(membership)
    membership.lost(START)
    announce(membership, START + 10.0, without_gap=True)
    assert not membership.is_needed(START + 10.0)
    assert membership.next_due(holds=False, now=START + 10.0) == inf


def test_a_gap_in_what_it_heard_ends_its_vouching(membership: Membership) -> None:
    look(membership)
    membership.lost(START)
    membership.opened(without_gap=True, now=START)
    assert membership.vouches
    membership.opened(without_gap=False, now=START)
    assert not membership.vouches


def test_after_a_gap_a_consumer_counts_only_once_it_is_heard(membership: Membership) -> None:
    join(membership, "b")
    announce(membership, without_gap=False)

    look(membership, consumers=2)
    assert not membership.vouches

    membership.heard("b", consumes=True, now=START)
    look(membership, consumers=2)
    assert membership.vouches


def test_one_that_left_just_before_the_connection_was_lost_is_in_doubt(
    membership: Membership,
) -> None:
    join(membership, "b")
    membership.known.leave("b", START)
    assert not membership.is_in_doubt

    membership.lost(START + 1)

    assert membership.is_in_doubt


def test_a_roll_call_is_given_up_with_the_connection(membership: Membership) -> None:
    join(membership, "b")
    assert look(membership).roll_is_called

    membership.lost(START)

    assert not membership.known.roll_is_called


# --- whether it vouches ---------------------------------------------------------------------


def test_it_vouches_once_the_queue_was_empty_without_a_stranger(membership: Membership) -> None:
    assert not membership.vouches
    for messages, consumers in [(1, 1), (0, 2), (0, 0)]:
        look(membership, messages=messages, consumers=consumers)
        assert not membership.vouches

    assert look(membership) == NOTHING

    assert membership.vouches


def test_others_may_rely_on_it_after_a_while(membership: Membership) -> None:
    assert not membership.vouches_to_others(START + VALID)
    look(membership)
    look(membership, now=START + 1)
    assert not membership.vouches_to_others(START + VALID - 0.1)
    assert membership.vouches_to_others(START + VALID)


def test_a_sibling_that_does_not_consume_makes_up_for_no_stranger(membership: Membership) -> None:
    join(membership, "b", consumes=False)
    look(membership, consumers=2)
    assert not membership.vouches


def test_without_room_for_all_it_does_not_vouch(
    membership: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_siblings, "MAX_SIBLINGS", 1)
    join(membership, "b", consumes=False)
    look(membership)
    assert membership.vouches
    # when there is no room for one more
    assert not membership.add("c", there=True)
    assert not membership.vouches
    assert membership.is_in_doubt
    assert look(membership) == NOTHING
    # then the roll is called once there is room again
    membership.known.leave("b", START)
    assert look(membership) == NOTHING
    assert look(membership) == Findings(roll_is_called=True, forgotten=[])
    assert not membership.vouches
    assert not membership.is_in_doubt
    # and it vouches if nobody else shows up
    look(membership)
    assert membership.vouches


def test_one_that_takes_no_requests_and_says_nothing_is_a_stranger_too(
    membership: Membership,
) -> None:
    # given one that closes, and can't speak, while a method of its runs
    look(membership, strangers=1)
    assert not membership.vouches
    # when it has just gone, the broker may be about to deliver again what it had
    look(membership)
    assert not membership.vouches
    # then that is in the queue at the next look
    look(membership, messages=1)
    assert not membership.vouches
    look(membership)
    assert membership.vouches


def test_where_the_others_cant_be_counted_it_does_not_vouch(membership: Membership) -> None:
    membership.servers_counted(None)
    membership.queue_inspected(QueueState(0, 1), 1, (), START)
    assert not membership.vouches


def test_a_queue_that_counts_no_consumer_shows_nothing(membership: Membership) -> None:
    """RabbitMQ says so of a quorum queue that did not answer it in time, whatever is in it."""
    membership.servers_counted(0)
    membership.queue_inspected(QueueState(0, 0), 0, (), START)
    assert not membership.vouches
    # when it counts the consumer that this server has by now
    membership.servers_counted(0)
    membership.queue_inspected(QueueState(0, 1), 1, (), START)
    assert membership.vouches


def test_one_that_takes_no_requests_any_more_is_counted(membership: Membership) -> None:
    join(membership, "b", consumes=False)
    membership.servers_counted(0)
    membership.queue_inspected(QueueState(0, 1), 1, (), START)
    assert not membership.vouches
    membership.servers_counted(1)
    membership.queue_inspected(QueueState(0, 1), 1, (), START)
    assert membership.vouches


# --- the dead -------------------------------------------------------------------------------


def test_the_roll_is_called_if_a_consumer_is_missing(membership: Membership) -> None:
    join(membership, "b")

    called = START + 1.0
    assert look(membership, now=called) == Findings(roll_is_called=True, forgotten=[])

    # and not again while the answers are awaited
    assert membership.next_due(holds=False, now=called) == called + 1.0
    assert look(membership, now=called + 2.5) == NOTHING
    assert membership.next_due(holds=False, now=called + 2.5) == called + GRACE
    assert membership.known.end_roll_call(called + GRACE) == ["b"]


def test_the_roll_is_not_called_for_a_stranger(membership: Membership) -> None:
    join(membership, "b")
    assert look(membership, consumers=3) == NOTHING


def test_the_roll_is_called_if_the_death_of_a_holder_would_not_show(
    membership: Membership,
) -> None:
    join(membership, "b", "c")
    membership.heard("c", consumes=False, now=START)
    assert look(membership, consumers=2, holders=["b"]) == NOTHING
    assert look(membership, consumers=2, holders=["b", "c"]).roll_is_called


def test_one_that_is_taken_for_dead_may_come_back(membership: Membership) -> None:
    membership.add("b", there=False)
    assert membership.is_in_doubt
    assert membership.heard("b", consumes=True, now=START)
    assert not membership.heard("b", consumes=True, now=START)
    assert not membership.is_in_doubt


def test_a_dead_one_is_forgotten_when_what_it_had_is_judged(membership: Membership) -> None:
    for name in "bc":
        membership.add(name, there=False)
    assert look(membership, messages=1) == NOTHING
    # when the queue is seen empty, and again some time later
    assert look(membership, now=START) == NOTHING
    later = START + VALID + 1
    assert look(membership, now=later, messages=1) == NOTHING
    found = look(membership, now=later)
    # then
    assert sorted(found.forgotten) == ["b", "c"]
    assert not membership.known
    assert not membership.is_in_doubt


# --- what is due ----------------------------------------------------------------------------


def test_the_queue_is_inspected_only_by_one_that_is_announced() -> None:
    membership = Membership()
    assert membership.next_inspection(holds=False, now=START) == inf
    announce(membership)
    assert membership.next_inspection(holds=False, now=START) == -inf


def test_one_that_vouches_and_knows_nobody_has_nothing_to_find_out(membership: Membership) -> None:
    look(membership, messages=1)
    assert membership.next_inspection(holds=False, now=START) == START + 1.0
    look(membership)
    assert membership.next_inspection(holds=False, now=START) == inf


def test_the_queue_is_inspected_more_often_while_something_is_to_be_found_out(
    membership: Membership,
) -> None:
    join(membership, "b")
    look(membership, messages=1, consumers=2)
    assert membership.next_inspection(holds=False, now=START) == START + 1.0
    # when it vouches
    look(membership, consumers=2)
    assert membership.next_inspection(holds=False, now=START) == START + 10.0
    # then, if a sibling has a request, or may be dead
    assert membership.next_inspection(holds=True, now=START) == START + 1.0
    membership.known.mark_absent("b")
    assert membership.next_inspection(holds=False, now=START) == START + 1.0


def test_the_queue_is_inspected_soon_after_a_sibling_has_begun_to_consume(
    membership: Membership,
) -> None:
    join(membership, "b", consumes=False)
    look(membership)
    assert membership.next_due(holds=False, now=START) == START + 10.0
    # when
    membership.heard("b", consumes=True, now=START)
    # then
    assert membership.next_due(holds=False, now=START) == START + 0.05
    look(membership, consumers=2)
    assert membership.next_due(holds=False, now=START) == START + 10.0
    # and not when it only says so again
    membership.heard("b", consumes=True, now=START)
    assert membership.next_due(holds=False, now=START) == START + 10.0
