"""The result list: one slot for each call that waits for its result.

A slot's id is the caller's handle on its call, and is used again for later calls.
What travels is another id, unique per call; so a reply that comes late finds no
slot, whoever uses its slot by then.
"""

import random
import threading
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from qam._client.pending_call import PendingCall
from qam._client.ready_callbacks import ReadyCallbacks
from qam._common.deadline import Deadline
from qam._common.fork import disown_in_child
from qam.exceptions import Executed, QAMClosedException, QAMException

FREE, WAITING, DONE = 0, 1, 2

# A JSON number is exact below this.
_ID_LIMIT = 2**53
# Room for a million calls a second for a hundred years above the base.
_ID_BASE_LIMIT = 2**52

Slot = dict[str, Any]
_NO_SLOT: Slot = {"state": FREE}
#: The id of a call on the wire, None for none of ours, and what came for it.
Outcome = tuple[int | None, Any]
#: Makes the exception of a call that ends with the list: told whether it was executed.
FailureFactory = Callable[[Executed], QAMException]


class ResultList:
    """Slots, the ids of the free ones, and which call on the wire belongs to which slot."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.free_ids: list[int] = []
        # Guards what becomes of a slot that is reserved, and all below.  A Callback that
        # nobody called gives its slot back from a finalizer, which may run inside these
        # very sections in the same thread: hence reentrant, and every section below leaves
        # things whole before it allocates.  It does not guard which slots are free: one is
        # added to slots, or taken from free_ids, in one step, and is nobody else's then.
        self._lock: Any = threading.RLock()
        # By their ids on the wire: the calls that have no outcome yet.
        # Whoever takes an entry out decides the outcome, and nobody else.
        self._calls: dict[int, PendingCall] = {}
        # Counting on needs no lock.
        self._call_ids = count(random.SystemRandom().randrange(_ID_BASE_LIMIT))
        self._closed_by: FailureFactory | None = None
        #: What the last reply says of the server: a request that comes twice runs once.
        self.server_keeps_record = False
        #: Where the slots of callbacks go whose outcomes are there.
        self.ready_callbacks = ReadyCallbacks()
        disown_in_child(self)

    # --- the life of a slot: reserve, begin, conclude, free -------------------

    def reserve(self, callback_method: Any = None, exception_method: Any = None) -> int:
        """Return the id of a slot that is now waiting."""
        try:
            slot_id = self.free_ids.pop()
        except IndexError:
            slot_id = self._grow()
        slot = self.slots[slot_id]
        slot["callback_method"] = callback_method
        slot["exception_method"] = exception_method
        slot["state"] = WAITING  # last: from here on a close ends it
        return slot_id

    def _grow(self) -> int:
        arrived = threading.Lock()
        arrived.acquire()  # held until the outcome is there
        slot: Slot = {
            "state": FREE,
            "result_message": None,
            "callback_method": None,
            "exception_method": None,
            "arrived": arrived,
            "call": None,
        }
        self.slots.append(slot)
        # A finalizer that makes a call, or a thread, may have appended another one behind it.
        return next(id for id in reversed(range(len(self.slots))) if self.slots[id] is slot)

    def new_call_id(self) -> int:
        """Return an id for one call on the wire; never given out again."""
        return next(self._call_ids) % _ID_LIMIT

    def begin(self, call: PendingCall) -> None:
        """From now on the outcome of *call* belongs into its slot.

        :raises ValueError: the slot is not reserved.
        :raises QAMException: the list is closed; says why.
        """
        with self._lock:
            if self._closed_by is not None:
                raise self._closed_by("no")
            slot_id = call.slot_id
            slot = self.slots[slot_id] if 0 <= slot_id < len(self.slots) else _NO_SLOT
            if slot["state"] != WAITING or slot["call"] is not None:
                raise ValueError(
                    f"id: no call is waiting in the slot {slot_id!r}; reserve one first"
                )
            self._calls[call.call_id] = call
            slot["call"] = call

    @property
    def open_calls(self) -> int:
        """How many calls have begun and have no outcome; a moment's view."""
        return len(self._calls)

    def is_open(self, call_id: int) -> bool:
        """Return True if the call has begun and has no outcome; a moment's view."""
        return call_id in self._calls

    def is_callback(self, slot_id: int) -> bool:
        """Return True if nobody waits for the outcome: a function is called with it."""
        return self.slots[slot_id]["callback_method"] is not None

    @property
    def is_in_use_here(self) -> bool:
        """Whether the thread that asks is in the middle of something here: it is a finalizer."""
        return bool(self._lock._is_owned())

    def pending_calls(self) -> list[PendingCall]:
        """Return the calls that have no outcome, oldest first."""
        with self._lock:
            return list(self._calls.values())

    def conclude(self, call_id: int | None, message: Any) -> bool:
        """Store the outcome of a call, unless it has one already.

        :param message: a :class:`~qam._broker.messages.Delivery` or a :class:`QAMException`.
        :returns: True if this is the call's outcome now.
        """
        return not self.conclude_all([(call_id, message)])

    def conclude_all(self, outcomes: Iterable[Outcome]) -> list[int | None]:
        """Store each of *outcomes* so; return the ids of those that are no call's now."""
        callbacks, dropped = [], []
        with self._lock:
            for call_id, message in outcomes:
                call = self._calls.pop(call_id, None)  # type: ignore[arg-type]
                if call is None:
                    dropped.append(call_id)
                    continue
                slot = self.slots[call.slot_id]
                _finish(slot, message)
                if slot["callback_method"] is not None:
                    callbacks.append(call.slot_id)
        if callbacks:
            self.ready_callbacks.add(callbacks)
        return dropped

    def take_back(self, slot_id: int, call: PendingCall | None) -> None:
        """Give a slot back, unless the outcome of its call, if it has begun, is there already.

        Whoever has been told of that gives the slot back; it may be another call's by now.
        """
        with self._lock:
            if call is None or call.call_id in self._calls:
                self.free(slot_id)

    def free(self, slot_id: int) -> None:
        """Give a slot back; one that is free already stays so."""
        with self._lock:
            slot = self.slots[slot_id]
            if slot["state"] == FREE:
                return
            # Things of the application, which may have finalizers: they go with this name,
            # when the lock is not held any more.
            held = slot.copy()  # noqa: F841
            if slot["call"] is not None:
                self._calls.pop(slot["call"].call_id, None)
            slot["arrived"].acquire(False)
            slot["state"] = FREE
            slot["result_message"] = slot["call"] = None
            slot["callback_method"] = slot["exception_method"] = None
            self.free_ids.append(slot_id)

    # --- who waits ------------------------------------------------------------

    def wait(self, slot_id: int, deadline: Deadline) -> bool:
        """Wait for the outcome of a call; return whether it is there.

        Woken by :meth:`conclude`; every owner that dies concludes all calls.
        """
        slot = self.slots[slot_id]
        if slot["state"] == DONE:
            return True
        if slot["state"] == FREE:
            raise ValueError(f"id: the slot {slot_id} is free; no call waits in it")
        arrived: bool = slot["arrived"].acquire(timeout=deadline.lock_time())
        if arrived:
            with self._lock:
                if slot["state"] == DONE:
                    slot["arrived"].release()  # whoever else looks finds it too
        return arrived

    def close(self, failure: FailureFactory) -> None:
        """Conclude every call with an exception of *failure*, and let none begin any more."""
        with self._lock:
            if self._closed_by is None:
                self._closed_by = failure
            for slot in self.slots:
                if slot["state"] == WAITING and slot["call"] is None:
                    _finish(slot, failure("no"))
        self.fail_all(failure)

    def _after_fork(self) -> None:
        """Let no call begin, with a lock that nobody holds; in a forked child."""
        self._lock = threading.RLock()
        self._closed_by = _forked

    def fail_all(self, failure: FailureFactory) -> None:
        """Conclude every call that has begun with an exception of *failure*."""
        with self._lock:
            calls = list(self._calls)
        for call_id in calls:
            self.conclude(call_id, failure("unknown"))


def _forked(executed: Executed) -> QAMClosedException:
    return QAMClosedException(
        "the proxy belongs to the process that this one was forked from; make a new one here",
        executed=executed,
    )


def _finish(slot: Slot, message: Any) -> None:
    slot["result_message"] = message
    slot["state"] = DONE
    slot["arrived"].release()
