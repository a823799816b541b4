"""The result list: one slot for each call that waits for its result.

A slot's id is the caller's handle on its call, and is used again for later calls.
What travels is another id, unique per call; so a reply that comes late finds no
slot, whoever uses its slot by then.
"""

import random
import threading
from collections.abc import Callable
from typing import Any

from qam._deadline import Deadline
from qam._fork import disown_in_child
from qam.exceptions import Executed, QAMClosedException, QAMException

FREE, WAITING, DONE = 0, 1, 2

# A JSON number is exact below this.
_ID_LIMIT = 2**53
# Room for a million calls a second for a hundred years above the base.
_ID_BASE_LIMIT = 2**52

Slot = dict[str, Any]
#: Makes the exception of a call that ends with the list: told whether it was executed.
FailureFactory = Callable[[Executed], QAMException]


class ResultList:
    """Slots, the ids of the free ones, and which call on the wire belongs to which slot."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.free_ids: list[int] = []
        # Guards slots, free_ids and all below.  A Callback that nobody called gives
        # its slot back from a finalizer, which may run inside these very sections
        # in the same thread: hence reentrant, and every section below leaves things
        # whole before it allocates.
        self._lock = threading.RLock()
        # From the id on the wire to the slot: the calls that have no outcome yet.
        # Whoever takes an entry out decides the outcome, and nobody else.
        self._calls: dict[int, int] = {}
        self._next_call_id = random.SystemRandom().randrange(_ID_BASE_LIMIT)
        self._closed_by: FailureFactory | None = None
        #: What the last reply says of the server: a request that comes twice runs once.
        self.server_keeps_record = False
        #: Called with the slot's id when the outcome of a callback call is there.
        self.on_callback_ready: Callable[[int], None] = lambda slot_id: None
        disown_in_child(self)

    # --- the life of a slot: reserve, begin, conclude, free -------------------

    def reserve(self, callback_method: Any = None, exception_method: Any = None) -> int:
        """Return the id of a slot that is now waiting."""
        with self._lock:
            slot_id = self.free_ids.pop() if self.free_ids else self._grow()
            slot = self.slots[slot_id]
            slot["callback_method"] = callback_method
            slot["exception_method"] = exception_method
            slot["state"] = WAITING
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
            "call_id": None,
            "message": None,
        }
        self.slots.append(slot)
        # A finalizer that makes a call may have appended another one behind it.
        return next(id for id in reversed(range(len(self.slots))) if self.slots[id] is slot)

    def new_call_id(self) -> int:
        """Return an id for one call on the wire; never given out again."""
        with self._lock:
            call_id = self._next_call_id
            self._next_call_id = (call_id + 1) % _ID_LIMIT
        return call_id

    def begin(self, slot_id: int, call_id: int, message: Any = None) -> None:
        """From now on the outcome of *call_id* belongs into this slot.

        :param message: the request, for :meth:`open_messages`.
        :raises ValueError: the slot is not reserved.
        :raises QAMException: the list is closed; says why.
        """
        with self._lock:
            if self._closed_by is not None:
                raise self._closed_by("no")
            if not self._is_reserved(slot_id):
                raise ValueError(
                    f"id: no call is waiting in the slot {slot_id!r}; reserve one first"
                )
            self._calls[call_id] = slot_id
            self.slots[slot_id]["call_id"] = call_id
            self.slots[slot_id]["message"] = message

    def is_open(self, call_id: int) -> bool:
        """Return True if the call has begun and has no outcome; a moment's view."""
        return call_id in self._calls

    def is_callback(self, slot_id: int) -> bool:
        """Return True if nobody waits for the outcome: a function is called with it."""
        return self.slots[slot_id]["callback_method"] is not None

    def open_messages(self) -> list[Any]:
        """Return the requests of the calls that have no outcome, oldest first."""
        with self._lock:
            return [self.slots[slot_id]["message"] for slot_id in self._calls.values()]

    def _is_reserved(self, slot_id: int) -> bool:
        if not 0 <= slot_id < len(self.slots):
            return False
        slot = self.slots[slot_id]
        return slot["state"] == WAITING and slot["call_id"] is None

    def conclude(self, call_id: int | None, message: Any) -> bool:
        """Store the outcome of a call, unless it has one already.

        :param message: a :class:`~qam._wire.Delivery` or a :class:`QAMException`.
        :returns: True if this is the call's outcome now.
        """
        with self._lock:
            slot_id = self._calls.pop(call_id, None)  # type: ignore[arg-type]
            if slot_id is None:
                return False
            slot = self.slots[slot_id]
            _finish(slot, message)
            is_callback = slot["callback_method"] is not None
        if is_callback:
            self.on_callback_ready(slot_id)
        return True

    def free(self, slot_id: int) -> None:
        """Give a slot back; one that is free already stays so."""
        with self._lock:
            slot = self.slots[slot_id]
            if slot["state"] == FREE:
                return
            self._calls.pop(slot["call_id"], None)
            slot["arrived"].acquire(blocking=False)
            slot["state"] = FREE
            slot["result_message"] = slot["call_id"] = slot["message"] = None
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
                if slot["state"] == WAITING and slot["call_id"] is None:
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
    slot["message"] = None
    slot["state"] = DONE
    slot["arrived"].release()
