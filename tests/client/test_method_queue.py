import threading
from functools import partial
from typing import Any

import pytest

from qam._client.method_queue import MethodQueue
from qam._client.pending_call import PendingCall
from qam._client.result_list import ResultList
from qam._common.deadline import NO_END, Deadline
from qam.exceptions import Executed, QAMClosedException
from tests.support.interrupts import interrupted_at
from tests.support.waiting import until

LONG = 30.0  # seconds; nothing here takes that long unless it is broken


@pytest.fixture
def results() -> ResultList:
    return ResultList()


@pytest.fixture
def queue(results: ResultList) -> MethodQueue:
    return MethodQueue(results, max_queued=None, held=False)


def call(results: ResultList, deadline: Deadline = NO_END) -> PendingCall:
    begun = PendingCall(results.reserve(), results.new_call_id(), "add", b"body", deadline)
    results.begin(begun)
    return begun


def closed(executed: Executed) -> QAMClosedException:
    return QAMClosedException("closed", executed=executed)


def test_calls_are_taken_together_in_their_order(queue: MethodQueue, results: ResultList) -> None:
    calls = [call(results) for _ in range(3)]
    for each in calls:
        assert queue.add(each, waits=False)

    assert queue.has_more
    assert queue.take(alone=False) == calls
    assert [each.times_written for each in calls] == [1, 1, 1]
    assert not queue.has_more
    assert queue.take(alone=False) == []


def test_one_may_be_taken_alone(queue: MethodQueue, results: ResultList) -> None:
    first, second = call(results), call(results)
    queue.add(first, waits=False)
    queue.add(second, waits=False)

    assert queue.take(alone=True) == [first]
    assert queue.take(alone=True) == [second]


def test_one_that_is_withdrawn_is_never_taken(queue: MethodQueue, results: ResultList) -> None:
    # given three, of which two are withdrawn, one of them twice
    first, second, third = (call(results) for _ in range(3))
    for each in (first, second, third):
        queue.add(each, waits=False)

    assert queue.withdraw(second)
    assert queue.withdraw(second)
    assert queue.calls == [first, second, third]
    assert queue.withdraw(first)

    # then it is dropped as soon as such ones are the half of all
    assert queue.calls == [third]
    assert queue.take(alone=False) == [third]
    assert not queue.withdraw(third)


def test_one_that_was_written_and_has_its_outcome_is_not_written_again(
    queue: MethodQueue, results: ResultList
) -> None:
    over, pending = call(results), call(results)
    for each in (over, pending):
        each.times_written = 1
    results.conclude(over.call_id, "outcome")

    queue.put_first([over, pending])

    assert queue.take(alone=False) == [pending]


def test_what_is_put_first_is_there_once(queue: MethodQueue, results: ResultList) -> None:
    first, second = call(results), call(results)
    queue.add(first, waits=False)

    queue.put_first([second, first])

    assert queue.calls == [second, first]


def test_all_that_was_not_written_can_be_withdrawn(queue: MethodQueue, results: ResultList) -> None:
    written, waiting = call(results), call(results)
    written.times_written = 1
    queue.calls += [written, waiting]

    assert queue.withdraw_all() == [waiting]


class TestWhileItIsHeld:
    def test_nothing_is_taken(self, queue: MethodQueue, results: ResultList) -> None:
        waiting = call(results)
        queue.add(waiting, waits=False)
        queue.hold()

        assert not queue.has_more
        assert queue.take(alone=False) == []
        assert not queue.bypass(call(results))

        queue.release()
        assert queue.has_more
        assert queue.take(alone=False) == [waiting]
        lone = call(results)
        assert queue.bypass(lone)
        assert lone.times_written == 1

    def test_it_is_known_what_was_written_before(
        self, queue: MethodQueue, results: ResultList
    ) -> None:
        written, _ = call(results), call(results)
        written.times_written = 1

        assert queue.hold() == [written]


class TestAQueueThatIsFull:
    @pytest.fixture
    def queue(self, results: ResultList) -> MethodQueue:
        queue = MethodQueue(results, max_queued=1, held=False)
        assert queue.add(call(results), waits=True)
        return queue

    def test_has_no_room_for_who_does_not_wait(
        self, queue: MethodQueue, results: ResultList
    ) -> None:
        late = call(results)

        assert not queue.add(late, waits=False)
        assert late.withdrawn
        assert queue.withdraw(late)
        assert len(queue.calls) == 1

    def test_has_no_room_for_whose_time_is_up(
        self, queue: MethodQueue, results: ResultList
    ) -> None:
        assert not queue.add(call(results, Deadline(0.01)), waits=True)

    def test_has_room_again_for_who_waits(self, queue: MethodQueue, results: ResultList) -> None:
        added = self.adding(queue, call(results, Deadline(LONG)))

        queue.take(alone=False)

        assert added() is True
        assert len(queue.calls) == 1

    def test_gives_room_that_one_who_gave_up_was_told_of_to_another(
        self, queue: MethodQueue, results: ResultList
    ) -> None:
        # given two that wait, of which the first one's time is up as it is told of room
        late, other = call(results, Deadline(LONG)), call(results, Deadline(LONG))
        waited: list[bool] = []

        class Room(threading.Condition):
            def wait(self, timeout: float | None = None) -> bool:
                if threading.current_thread() is first:
                    super().wait(timeout)
                    late.deadline.at = 0.0
                    return False
                return super().wait(timeout)

        def add(one: PendingCall) -> None:
            waited.append(queue._is_full() and not queue.add(one, waits=True))

        queue._room = Room(queue._lock)
        first = threading.Thread(target=add, args=(late,))
        second = threading.Thread(target=add, args=(other,))
        for number, thread in enumerate((first, second), 1):
            thread.start()
            until(lambda number=number: len(queue._room._waiters) == number)
        # when
        queue.withdraw(queue.calls[0])
        # then
        second.join(LONG / 2)
        assert not second.is_alive()
        assert other in queue.calls
        queue.wake_callers()
        first.join(LONG)

    def test_gives_room_that_one_was_told_of_as_ctrl_c_came_to_another(
        self, results: ResultList
    ) -> None:
        struck: list[str] = []
        while not struck or struck[-1]:
            # given two that wait for room, this thread before another one
            queue = MethodQueue(results, max_queued=1, held=False)
            assert queue.add(call(results), waits=True)
            mine, other = call(results), call(results, Deadline(LONG))
            left = threading.Event()
            second = threading.Thread(target=queue.add, args=(other, True))
            helper = threading.Thread(target=self.make_room, args=(queue, second, left))
            helper.start()
            # when
            act = partial(queue.add, mine, waits=True)
            struck.append(interrupted_at(len(struck) + 1, act, "/method_queue.py"))
            left.set()
            helper.join(LONG)
            # then
            if mine in queue.calls:
                queue.take(alone=True)
            second.join(LONG / 2)
            assert not second.is_alive()
            assert queue.calls == [other]
        assert struck.count("MethodQueue._wait_for_room") > 5

    @staticmethod
    def make_room(queue: MethodQueue, second: threading.Thread, left: threading.Event) -> None:
        """Make room for one as soon as *second* waits too, or the first has left."""
        until(lambda: queue._room._waiters or left.is_set())
        waiting = len(queue._room._waiters)
        second.start()
        until(lambda: len(queue._room._waiters) > waiting)
        queue.take(alone=True)

    def test_has_room_again_when_one_is_withdrawn(
        self, queue: MethodQueue, results: ResultList
    ) -> None:
        added = self.adding(queue, call(results, Deadline(LONG)))

        queue.withdraw(queue.calls[0])

        assert added() is True

    def test_holds_nobody_whose_call_has_ended(
        self, queue: MethodQueue, results: ResultList
    ) -> None:
        added = self.adding(queue, call(results, Deadline(LONG)))

        results.close(closed)
        queue.wake_callers()

        assert added() is False

    def test_counts_those_that_wait_and_not_those_that_were_withdrawn(
        self, results: ResultList
    ) -> None:
        # given room for four, of which one is withdrawn, and one more in its place
        queue = MethodQueue(results, max_queued=4, held=False)
        first, *others = (call(results) for _ in range(4))
        for each in (first, *others):
            assert queue.add(each, waits=False)
        assert queue.withdraw(first)
        assert queue.add(call(results), waits=False)
        assert not queue.add(call(results), waits=False)
        # when all are taken, the withdrawn one with them
        assert len(queue.take(alone=False)) == 4
        # then there is room for four again, and for no more
        added = [queue.add(call(results), waits=False) for _ in range(5)]
        assert added == [True, True, True, True, False]

    def test_is_full_again_after_very_many_were_withdrawn(self, results: ResultList) -> None:
        queue = MethodQueue(results, max_queued=4, held=False)
        for _ in range(100):
            late = call(results)
            assert queue.add(late, waits=False)
            assert queue.withdraw(late)
        # then those that are withdrawn take no memory, and no room
        assert len(queue.calls) < 4
        added = [queue.add(call(results), waits=False) for _ in range(5)]
        assert added == [True, True, True, True, False]

    def test_has_no_room_made_by_one_that_never_was_in_it(
        self, queue: MethodQueue, results: ResultList
    ) -> None:
        late = call(results)
        assert not queue.add(late, waits=False)

        assert queue.withdraw(late)

        assert not queue.add(call(results), waits=False)

    @staticmethod
    def adding(queue: MethodQueue, late: PendingCall) -> Any:
        """Add a call in another thread, that waits by now; return what gets whether it is in."""
        added: list[bool] = []
        thread = threading.Thread(target=lambda: added.append(queue.add(late, waits=True)))
        thread.start()
        while not queue._room._waiters:  # type: ignore[attr-defined]
            pass

        def join() -> bool:
            thread.join(LONG)
            return added[0]

        return join


def test_who_is_in_the_middle_of_it_is_told(queue: MethodQueue) -> None:
    assert not queue.is_in_use_here
    with queue._lock:
        assert queue.is_in_use_here


def test_in_a_forked_child_its_lock_is_free(queue: MethodQueue) -> None:
    before = queue._lock

    queue.renew_lock()

    assert queue._lock is not before
    queue.wake_callers()


def test_one_that_is_abandoned_is_dropped_at_once_unless_it_was_written(
    queue: MethodQueue, results: ResultList
) -> None:
    # given
    written, *others = (call(results) for _ in range(4))
    for each in (written, *others):
        queue.add(each, waits=False)
    queue.take(alone=True)

    # when
    queue.abandon(written)
    queue.abandon(others[0])
    queue.abandon(others[0])

    # then
    assert not written.withdrawn
    assert queue.calls == others[1:]
    assert queue.waiting == 2


def test_one_that_is_abandoned_makes_room(results: ResultList) -> None:
    queue = MethodQueue(results, max_queued=1, held=False)
    first, second = call(results), call(results)
    assert queue.add(first, waits=False)
    assert not queue.add(second, waits=False)

    queue.abandon(first)

    assert queue.add(call(results), waits=False)
