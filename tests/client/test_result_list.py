import gc
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qam._broker.connect import connect
from qam._broker.messages import Delivery, Publish
from qam._broker.waker import Waker
from qam._client.pending_call import PendingCall
from qam._client.result_list import DONE, FREE, WAITING, ResultList
from qam._common.deadline import Deadline
from qam._protocol.entities import request_binding
from qam._protocol.properties import properties
from qam._serialization.serializers import get_serializer
from qam.exceptions import Executed, QAMClosedException, QAMException
from qam.qam_proxy import QAMProxy
from tests.support.endpoints import endpoint_of
from tests.support.interrupts import interrupted_at
from tests.support.reading import read

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
REPLY = Delivery(b"reply", 1)


def closed(executed: Executed) -> QAMException:
    return QAMClosedException("closed", executed=executed)


def begun(results: ResultList, callback: Callable[[Any], Any] | None = None) -> tuple[int, int]:
    """A slot that waits for a call, and the call's id on the wire."""
    slot_id, call_id = results.reserve(callback), results.new_call_id()
    results.begin(PendingCall(slot_id, call_id))
    return slot_id, call_id


def new_call(results: ResultList) -> PendingCall:
    """A call that owns its slot, and has not begun."""
    call = PendingCall(-1, results.new_call_id())
    results.reserve(call=call)
    return call


def is_there(results: ResultList, slot_id: int) -> bool:
    return results.wait(slot_id, Deadline(0.0))


def test_a_slot_goes_from_waiting_to_done_to_free() -> None:
    # given
    results = ResultList()
    slot_id, call_id = begun(results)
    slot = results.slots[slot_id]
    assert slot["state"] == WAITING
    assert results.slots[slot_id]["call"].call_id == call_id
    assert not is_there(results, slot_id)

    # when
    assert results.conclude(call_id, REPLY)

    # then
    assert slot["state"] == DONE
    assert slot["result_message"] is REPLY
    assert is_there(results, slot_id)

    # when
    results.free(slot_id)

    # then
    assert slot["state"] == FREE
    assert slot["result_message"] is None
    assert results.slots[slot_id]["call"] is None
    assert results.free_ids == [slot_id]


def test_a_free_slot_is_used_again_and_begins_anew() -> None:
    # given
    results = ResultList()
    slot_id, call_id = begun(results)
    results.conclude(call_id, REPLY)
    results.free(slot_id)

    # when
    again, another_call = begun(results)

    # then
    assert again == slot_id
    assert another_call != call_id
    assert len(results.slots) == 1
    assert results.free_ids == []
    assert not is_there(results, slot_id)


def test_freeing_twice_frees_once() -> None:
    results = ResultList()
    slot_id = results.reserve()

    results.free(slot_id)
    results.free(slot_id)

    assert results.free_ids == [slot_id]


def test_the_first_outcome_counts_and_no_other() -> None:
    results = ResultList()
    slot_id, call_id = begun(results)

    assert results.conclude(call_id, REPLY)
    assert not results.conclude(call_id, closed("unknown"))

    assert results.slots[slot_id]["result_message"] is REPLY


@pytest.mark.parametrize("call_id", [None, -1, "7", 1.5])
def test_an_outcome_of_no_call_is_nobodys(call_id: Any) -> None:
    results = ResultList()
    slot_id, _ = begun(results)

    assert not results.conclude(call_id, REPLY)
    assert not is_there(results, slot_id)


def test_a_late_outcome_does_not_reach_whoever_uses_the_slot_by_then() -> None:
    # given
    results = ResultList()
    slot_id, late_call = begun(results)
    results.free(slot_id)
    again, _ = begun(results)
    assert again == slot_id

    # when
    assert not results.conclude(late_call, REPLY)

    # then
    assert results.slots[slot_id]["state"] == WAITING
    assert not is_there(results, slot_id)


def test_a_slot_for_which_two_calls_begin_takes_one_outcome_and_harms_nobody() -> None:
    # given
    results = ResultList()
    slot_id, first = begun(results)
    second = results.new_call_id()
    with suppress(ValueError):
        results.begin(PendingCall(slot_id, second))

    # when
    taken = [results.conclude(first, REPLY), results.conclude(second, REPLY)]

    # then
    assert sorted(taken) == [False, True]


def test_an_outcome_of_a_slots_first_call_does_not_reach_a_later_user_of_the_slot() -> None:
    # given
    results = ResultList()
    slot_id, first = begun(results)
    with suppress(ValueError):
        results.begin(PendingCall(slot_id, results.new_call_id()))
    results.free(slot_id)
    again, _ = begun(results)
    assert again == slot_id

    # when
    taken = results.conclude(first, REPLY)

    # then
    assert not taken
    assert results.slots[slot_id]["state"] == WAITING


@pytest.mark.parametrize("slot_id", [-1, 1, 99])
def test_a_call_can_not_begin_in_a_slot_that_does_not_exist(slot_id: int) -> None:
    results = ResultList()
    results.reserve()

    with pytest.raises(ValueError, match=rf"no call is waiting in the slot {slot_id}"):
        results.begin(PendingCall(slot_id, results.new_call_id()))


def test_a_call_can_not_begin_in_a_slot_that_is_free_or_done() -> None:
    results = ResultList()
    slot_id, call_id = begun(results)
    results.conclude(call_id, REPLY)
    with pytest.raises(ValueError, match="reserve one first"):
        results.begin(PendingCall(slot_id, results.new_call_id()))

    results.free(slot_id)

    with pytest.raises(ValueError, match="reserve one first"):
        results.begin(PendingCall(slot_id, results.new_call_id()))


def test_a_waiting_thread_is_woken_by_the_outcome() -> None:
    # given
    results = ResultList()
    slot_id, call_id = begun(results)
    answers: list[bool] = []
    waiter = threading.Thread(
        target=lambda: answers.append(results.wait(slot_id, Deadline(None))), daemon=True
    )
    waiter.start()

    # when
    results.conclude(call_id, REPLY)

    # then
    waiter.join(LONG)
    assert answers == [True]


def test_waiting_for_a_slot_that_is_free_is_refused_and_not_endless() -> None:
    results = ResultList()
    slot_id, _ = begun(results)
    results.free(slot_id)

    with pytest.raises(ValueError, match=f"the slot {slot_id} is free"):
        results.wait(slot_id, Deadline(LONG))


def test_closing_ends_a_call_that_is_reserved_and_did_not_begin() -> None:
    results = ResultList()
    slot_id = results.reserve()

    results.close(closed)

    assert is_there(results, slot_id)
    assert results.slots[slot_id]["result_message"].executed == "no"


def test_two_threads_that_wait_for_one_call_are_both_woken() -> None:
    # given
    results = ResultList()
    slot_id, call_id = begun(results)
    answers: list[bool] = []
    waiters = [
        threading.Thread(target=lambda: answers.append(results.wait(slot_id, Deadline(LONG))))
        for _ in range(2)
    ]
    for waiter in waiters:
        waiter.start()

    # when
    results.conclude(call_id, REPLY)

    # then
    for waiter in waiters:
        waiter.join(2 * LONG)
    assert answers == [True, True]


def test_a_slot_that_is_freed_while_somebody_leaves_its_wait_is_as_good_as_new() -> None:
    # given
    results = ResultList()
    slot_id, _ = begun(results)
    slot = results.slots[slot_id]
    lock = slot["arrived"]

    class FreedInBetween:
        """The lock; the slot is freed by another thread just after the wait has got it."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            got: bool = lock.acquire(blocking, timeout) if blocking else lock.acquire(False)
            if blocking:
                results.free(slot_id)
            return got

        def release(self) -> None:
            lock.release()

    slot["arrived"] = FreedInBetween()
    lock.release()  # the outcome is there, and the wait has not seen the state

    # when
    assert results.wait(slot_id, Deadline(LONG))

    # then
    again, another_call = begun(results)
    assert again == slot_id
    slot["arrived"] = lock if isinstance(slot["arrived"], FreedInBetween) else slot["arrived"]
    assert not is_there(results, slot_id)
    assert results.conclude(another_call, REPLY)


def test_the_ids_on_the_wire_are_unique_and_exact_in_json() -> None:
    # given
    results = ResultList()
    ids: list[int] = []
    together = threading.Barrier(4)

    def take() -> None:
        together.wait(LONG)
        ids.extend([results.new_call_id() for _ in range(2000)])

    threads = [threading.Thread(target=take) for _ in range(4)]

    # when
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)

    # then
    assert len(set(ids)) == 8000
    assert all(0 <= call_id < 2**53 for call_id in ids)


def test_the_ids_begin_where_nobody_can_foresee_it() -> None:
    assert len({ResultList().new_call_id() for _ in range(20)}) == 20


def test_the_ids_start_over_below_the_limit_of_json() -> None:
    results = ResultList()
    results._call_ids = count(2**53 - 1)

    assert [results.new_call_id(), results.new_call_id()] == [2**53 - 1, 0]


def test_the_outcome_of_a_callback_is_announced_with_its_slot() -> None:
    # given
    results = ResultList()
    begun(results)
    slot_id, call_id = begun(results, callback=print)

    # when
    results.conclude(call_id, REPLY)

    # then
    assert results.ready_callbacks.slot_ids.take_all() == [slot_id]
    assert results.slots[slot_id]["result_message"] is REPLY
    assert results.slots[slot_id]["callback_method"] is print
    assert is_there(results, slot_id)
    results.free(slot_id)
    assert results.slots[slot_id]["callback_method"] is None


def test_outcomes_that_came_together_are_stored_and_announced_together() -> None:
    # given
    results = ResultList()
    announced: list[list[int]] = []

    def add(slot_ids: Iterator[int]) -> None:
        announced.append(list(slot_ids))

    results.ready_callbacks.add = add  # type: ignore[method-assign]
    first, first_call = begun(results, callback=print)
    sync, sync_call = begun(results)
    second, second_call = begun(results, callback=print)
    waiting, _ = begun(results, callback=print)

    # when
    outcomes = [first_call, None, sync_call, -1, first_call, second_call]
    dropped = results.conclude_all([(call_id, n) for n, call_id in enumerate(outcomes)])

    # then
    assert dropped == [None, -1, first_call]
    assert announced == [[first, second]]
    stored = [results.slots[slot_id]["result_message"] for slot_id in (first, sync, second)]
    assert stored == [0, 2, 5]
    assert not is_there(results, waiting)


def test_each_slot_is_reserved_by_one_thread_at_a_time() -> None:
    # given threads that take slots and give them back
    results = ResultList()
    together = threading.Barrier(4)
    kept: list[int] = []

    def take() -> None:
        together.wait(LONG)
        for _ in range(1000):
            ids = [results.reserve() for _ in range(3)]
            kept.append(ids.pop())
            for slot_id in ids:
                results.free(slot_id)

    threads = [threading.Thread(target=take) for _ in range(4)]

    # when
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)

    # then
    assert len(set(kept)) == 4000
    assert sorted([*kept, *results.free_ids]) == list(range(len(results.slots)))


def test_without_anybody_to_announce_it_to_a_callbacks_outcome_just_stands_there() -> None:
    results = ResultList()
    slot_id, call_id = begun(results, callback=print)

    assert results.conclude(call_id, REPLY)

    assert results.slots[slot_id]["state"] == DONE


def test_closing_ends_every_call_that_waits_and_none_that_is_done() -> None:
    # given
    results = ResultList()
    waiting, _ = begun(results)
    done, call_id = begun(results)
    results.conclude(call_id, REPLY)

    # when
    results.close(closed)

    # then
    assert is_there(results, waiting)
    error = results.slots[waiting]["result_message"]
    assert isinstance(error, QAMClosedException)
    assert error.executed == "unknown"
    assert results.slots[done]["result_message"] is REPLY


def test_after_closing_no_call_begins() -> None:
    results = ResultList()
    slot_id = results.reserve()
    results.close(closed)

    with pytest.raises(QAMClosedException) as refused:
        results.begin(PendingCall(slot_id, results.new_call_id()))

    assert refused.value.executed == "no"


def test_what_closed_it_first_is_what_later_calls_are_told() -> None:
    results = ResultList()
    results.close(closed)
    results.close(lambda executed: QAMException("later"))

    with pytest.raises(QAMClosedException):
        results.begin(PendingCall(results.reserve(), results.new_call_id()))


def test_a_call_that_begins_while_it_is_closed_ends_or_is_refused() -> None:
    for _ in range(200):
        # given
        results = ResultList()
        slot_id, call_id = results.reserve(), results.new_call_id()
        together = threading.Barrier(2)

        def close(results: ResultList = results, together: threading.Barrier = together) -> None:
            together.wait(LONG)
            results.close(closed)

        closer = threading.Thread(target=close)
        closer.start()

        # when
        together.wait(LONG)
        with suppress(QAMClosedException):
            results.begin(PendingCall(slot_id, call_id))

            # then
            assert results.wait(slot_id, Deadline(LONG))
        closer.join(LONG)


class Calls:
    """A caller that waits, and a callback; both calls have begun."""

    def __init__(self) -> None:
        self.results = ResultList()
        self.caller_slot, self.caller_id = begun(self.results)
        self.callback_slot, self.callback_id = begun(self.results, callback=print)
        self._caller = threading.Thread(target=self._wait, daemon=True)
        self._caller.start()

    def _wait(self) -> None:
        self.results.wait(self.caller_slot, Deadline(LONG))

    def conclude(self) -> None:
        """Both outcomes come together."""
        self.results.conclude_all([(self.callback_id, REPLY), (self.caller_id, REPLY)])

    def assert_both_have_ended(self) -> None:
        self._caller.join(LONG / 2)
        assert not self._caller.is_alive()
        assert self.results.open_calls == 0
        ready = self.results.ready_callbacks
        assert ready.slot_ids.take_all() == [self.callback_slot]
        assert ready.bell._rung
        for slot_id in (self.caller_slot, self.callback_slot):
            assert self.results.slots[slot_id]["state"] == DONE
            assert is_there(self.results, slot_id)


#: What runs in the thread that concludes a call.
CONCLUDING = ("/result_list.py", "/ready_callbacks.py", "/job_queue.py", "/bell.py")


def test_ctrl_c_at_any_moment_of_outcomes_leaves_no_call_that_closing_does_not_end() -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        # given
        calls = Calls()
        # when
        struck.append(interrupted_at(len(struck) + 1, calls.conclude, *CONCLUDING))
        calls.results.close(closed)
        # then
        calls.assert_both_have_ended()
    assert {"ResultList.conclude_all", "ReadyCallbacks.add", "JobQueue.put_all"} < set(struck)


def test_a_call_whose_outcome_ctrl_c_has_prevented_takes_another_one() -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        # given
        calls = Calls()
        # when
        struck.append(interrupted_at(len(struck) + 1, calls.conclude, *CONCLUDING))
        calls.conclude()
        # then
        calls.assert_both_have_ended()
        assert calls.results.slots[calls.caller_slot]["result_message"] is REPLY


def test_ctrl_c_at_any_moment_of_closing_leaves_nothing_that_closing_again_does_not_end() -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        # given
        calls = Calls()
        reserved = calls.results.reserve()
        # when
        close = partial(calls.results.close, closed)
        struck.append(interrupted_at(len(struck) + 1, close, *CONCLUDING))
        close()
        # then
        calls.assert_both_have_ended()
        assert is_there(calls.results, reserved)
    assert {"ResultList.close", "ResultList.fail_all", "Bell.ring"} < set(struck)


def test_ctrl_c_as_a_call_begins_leaves_none_open_once_its_slot_is_free() -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        # given
        results = ResultList()
        call = PendingCall(results.reserve(), results.new_call_id())
        # when
        begin = partial(results.begin, call)
        struck.append(interrupted_at(len(struck) + 1, begin, "/result_list.py"))
        results.free(call.slot_id)
        # then
        assert results.open_calls == 0


def test_a_finalizer_that_closes_it_as_an_outcome_is_stored_gives_the_call_no_other_one() -> None:
    # given
    results = ResultList()
    slot_id, call_id = begun(results, callback=print)

    class Slots(list[Any]):
        """The slots; a finalizer runs when one is looked up."""

        def __getitem__(self, index: Any) -> Any:
            results.slots = list(self)
            results.close(closed)
            return super().__getitem__(index)

    results.slots = Slots(results.slots)
    # when
    assert results.conclude(call_id, REPLY)
    # then
    assert results.slots[slot_id]["result_message"] is REPLY
    assert results.ready_callbacks.slot_ids.take_all() == [slot_id]


def test_one_of_many_outcomes_at_once_is_taken() -> None:
    for _ in range(100):
        # given
        results = ResultList()
        slot_id, call_id = begun(results)
        together = threading.Barrier(4)
        taken: list[int] = []

        def conclude(
            number: int,
            results: ResultList = results,
            call_id: int = call_id,
            together: threading.Barrier = together,
            taken: list[int] = taken,
        ) -> None:
            together.wait(LONG)
            if results.conclude(call_id, number):
                taken.append(number)

        threads = [threading.Thread(target=conclude, args=(number,)) for number in range(4)]

        # when
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)

        # then
        assert taken == [results.slots[slot_id]["result_message"]]


def test_a_finalizer_may_free_a_slot_inside_the_lists_own_sections() -> None:
    # given
    results = ResultList()

    class Owner:
        """Gives its slot back when it is collected, as a callback that nobody called."""

        def __init__(self) -> None:
            self.slot_id = results.reserve()
            self.myself = self

        def __del__(self) -> None:
            results.free(self.slot_id)

    # when: there is garbage, whenever the collector comes
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        ids = []
        for _ in range(300):
            Owner()
            slot_id, call_id = begun(results)
            results.conclude(call_id, [object()])
            ids.append(slot_id)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()

    # then
    assert len(set(ids)) == 300
    assert sorted([*ids, *results.free_ids]) == list(range(len(results.slots)))


@given(st.lists(st.sampled_from(["begin", "conclude", "free", "late"]), max_size=60), st.data())
def test_no_slot_ever_has_the_outcome_of_another_call(actions: list[str], data: Any) -> None:
    # given
    results = ResultList()
    calls: dict[int, int] = {}  # the model: slot to call
    outcomes: dict[int, int | None] = {}  # slot to what is there
    gone: list[int] = []

    for action in actions:
        # when
        if action == "begin":
            slot_id, call_id = begun(results)
            assert slot_id not in calls
            calls[slot_id], outcomes[slot_id] = call_id, None
        elif action == "late" and gone:
            assert not results.conclude(data.draw(st.sampled_from(gone)), "late")
        elif calls:
            slot_id = data.draw(st.sampled_from(sorted(calls)))
            if action == "conclude":
                first = outcomes[slot_id] is None
                assert results.conclude(calls[slot_id], calls[slot_id]) == first
                outcomes[slot_id] = calls[slot_id]
            elif action == "free":
                results.free(slot_id)
                gone.append(calls.pop(slot_id))
                del outcomes[slot_id]

        # then
        for slot_id, outcome in outcomes.items():
            assert results.slots[slot_id]["result_message"] == outcome
            assert is_there(results, slot_id) == (outcome is not None)


@pytest.mark.parametrize("odd_id", [[1], {"a": 1}, None, "x"], ids=repr)
def test_a_reply_whose_id_is_no_number_is_dropped_and_harms_nobody(odd_id: Any) -> None:
    """Such an id comes from the wire, where no type is checked; so this goes by the wire."""
    # given
    broker, serializer = f"memory://{uuid.uuid4().hex}", get_serializer("json")
    server, waker = connect(endpoint_of(broker), LONG), Waker()
    server.declare_queue(request_binding("server"))
    server.consume(request_binding("server").queue)
    with QAMProxy("server", broker, serializer="json") as proxy:
        results: list[Any] = []
        caller = threading.Thread(
            target=lambda: results.append(proxy.set_timeout(LONG).add(2, 3)), daemon=True
        )
        caller.start()
        (request,) = read(server, LONG, waker)
        body = serializer.decode(request.body)
        route = request_binding("server").route._replace(
            exchange="server_client_exchange", routing_key=body["routing_key"]
        )

        # when: no correlation id, as a peer of the first protocol replies
        for reply_id in (odd_id, body["id"]):
            reply = {"id": reply_id, "result": 5, "exception": False, "internal_exception": -1}
            server.write([Publish(route, serializer.encode(reply), properties(serializer))])

        # then
        caller.join(2 * LONG)
    assert results == [5]
    server.close()
    waker.close()


def test_a_slot_is_taken_back_before_its_call_and_while_that_is_open() -> None:
    results = ResultList()
    not_begun, open_call = new_call(results), new_call(results)
    results.begin(open_call)

    results.take_back(not_begun)
    results.take_back(open_call)

    assert [slot["state"] for slot in results.slots] == [FREE, FREE]
    assert not results.conclude(open_call.call_id, REPLY)


def test_a_slot_whose_call_has_its_outcome_is_not_taken_back() -> None:
    # given one that was concluded, given back, and is another call's by now
    results = ResultList()
    call = new_call(results)
    results.begin(call)
    results.conclude(call.call_id, REPLY)
    results.take_back(call)
    assert results.slots[call.slot_id]["state"] == DONE
    results.free(call.slot_id)
    assert results.reserve() == call.slot_id

    results.take_back(call)

    assert results.slots[call.slot_id]["state"] == WAITING


def test_a_call_that_a_finalizer_makes_while_the_open_ones_are_listed_does_no_harm() -> None:
    results = ResultList()
    calls = [begun(results) for _ in range(3)]

    class Caller:
        """Garbage that makes a call when it is collected."""

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            calls.append(begun(results))

    threshold = gc.get_threshold()
    gc.collect()
    Caller()
    try:
        gc.set_threshold(1)  # with the next object that is made
        pending = results.pending_calls()
    finally:
        gc.set_threshold(*threshold)

    assert len(pending) in (3, 4)
    assert results.open_calls == len(calls) == 4


def test_a_call_is_open_until_it_has_its_outcome() -> None:
    # given
    results = ResultList()
    _, call_id = begun(results)
    assert results.open_calls == 1
    assert results.is_open(call_id)
    opened = results.open_call(call_id)
    assert opened is not None
    assert opened.call_id == call_id

    # when
    assert results.conclude(call_id, REPLY)

    # then
    assert results.open_calls == 0
    assert not results.is_open(call_id)
    assert results.open_call(call_id) is None
    assert results.open_call(None) is None


def test_a_call_is_taken_back_unless_its_outcome_is_there() -> None:
    # given one that has begun, one that has not, and one that has its outcome
    results = ResultList()
    open_one, new_one, done_one = (new_call(results) for _ in range(3))
    results.begin(open_one)
    results.begin(done_one)
    results.conclude(done_one.call_id, REPLY)

    # then
    assert results.take_back(open_one)
    assert results.take_back(new_one)
    assert not results.take_back(done_one)
    # and not twice
    assert not results.take_back(open_one)
    assert results.end(done_one) is REPLY


def test_a_forked_child_begins_no_call() -> None:
    results = ResultList()
    slot_id = results.reserve()

    results._in_forked_child()

    with pytest.raises(QAMClosedException, match="make a new proxy in this process"):
        results.begin(PendingCall(slot_id, results.new_call_id()))
