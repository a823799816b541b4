"""The result list: one slot for each call that waits for its outcome.

A slot's id is the caller's handle on its call, and later calls use it again.  On the wire
a call has another id, which is unique.  So a late reply finds no slot, even if another call
uses the slot by then.
"""

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

from qam._client.pending_call import PendingCall
from qam._client.ready_callbacks import ReadyCallbacks
from qam._common.deadline import Deadline
from qam._common.fork import disown_in_child
from qam._common.own_locks import own_lock
from qam.exceptions import Executed, QAMClosedException, QAMException

FREE, WAITING, DONE = 0, 1, 2

# A JSON number is exact below this.
_ID_LIMIT = 2**53
# Room for a million calls a second for a hundred years above the base.
_ID_BASE_LIMIT = 2**52

Slot = dict[str, Any]
_UNUSED: Slot = {
    "state": FREE,
    "result_message": None,
    "callback_method": None,
    "exception_method": None,
    "call": None,
    "owner": None,
}
_NO_SLOT = _UNUSED.copy()
#: The id of a call on the wire, or None if it is no call of ours; and the outcome for it.
Outcome = tuple[int | None, Any]
#: Makes the exception of a call that ends with the list; its argument says whether it ran.
FailureFactory = Callable[[Executed], QAMException]


class ResultList:
    """The slots, the ids of the free ones, and which call on the wire belongs to which slot."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.free_ids: list[int] = []
        # Guards the slots, the free ids, and all attributes below.  Reentrant, because a
        # finalizer may make a call while this thread holds the lock.  So each critical section
        # is consistent before it allocates, since an allocation may run a finalizer.
        self._lock = own_lock()
        # The open calls by their ids on the wire.  Only the thread that takes an entry out
        # decides the outcome of that call.
        self._calls: dict[int, PendingCall] = {}
        # To count on is a single step, which needs no lock.
        self._call_ids = count(random.SystemRandom().randrange(_ID_BASE_LIMIT))
        self._closed_by: FailureFactory | None = None
        #: True if the last reply came from a server that runs a request once, even if it
        #: receives it twice; None before the first reply.
        self.server_keeps_record: bool | None = None
        #: Takes the slots of callbacks that have their outcomes.
        self.ready_callbacks = ReadyCallbacks()
        disown_in_child(self)

    # --- the life of a slot: reserve, begin, conclude, free -------------------

    def reserve(
        self,
        callback_method: Any = None,
        exception_method: Any = None,
        call: PendingCall | None = None,
    ) -> int:
        """Reserve a slot, which is in the state WAITING then; return its id.

        :param call: the call that owns the slot, and gets its id: :meth:`end` frees it.
        """
        owned = {
            "callback_method": callback_method,
            "exception_method": exception_method,
            "owner": call,
            "state": WAITING,
        }
        try:
            with self._lock:
                slot_id = self._take_free_id()
                if call is not None:
                    call.slot_id = slot_id
                self.slots[slot_id].update(owned)  # one step: from here on close() may conclude it
        except BaseException:
            self._find_free_ids()
            raise
        return slot_id

    def _take_free_id(self) -> int:
        while self.free_ids:
            slot_id = self.free_ids.pop()
            if self.slots[slot_id]["state"] == FREE:
                return slot_id
        return self._grow()

    def _grow(self) -> int:
        arrived = threading.Lock()
        arrived.acquire()  # released when the outcome is stored
        slot: Slot = {**_UNUSED, "arrived": arrived}
        self.slots.append(slot)
        # A finalizer that makes a call may have appended a slot behind it.
        return next(id for id in reversed(range(len(self.slots))) if self.slots[id] is slot)

    def _find_free_ids(self) -> None:
        """Find the ids of the free slots, after Ctrl-C has struck between slot and list."""
        with self._lock:
            self.free_ids[:] = [id for id, slot in enumerate(self.slots) if slot["state"] == FREE]

    def new_call_id(self) -> int:
        """Return an id for one call on the wire, which no other call ever gets."""
        return next(self._call_ids) % _ID_LIMIT

    def begin(self, call: PendingCall) -> None:
        """Open *call*: from now on its outcome is stored in its slot.

        :raises ValueError: the slot is not reserved.
        :raises QAMException: the list is closed; the exception says why.
        """
        with self._lock:
            if self._closed_by is not None:
                raise self._closed_by("no")
            slot = self._slot_of(call)
            if slot["state"] != WAITING or slot["call"] is not None:
                raise ValueError(
                    f"id: no call is waiting in the slot {call.slot_id!r}; reserve one first"
                )
            slot["call"] = call  # first: free() finds the entry by it, also after Ctrl-C
            self._calls[call.call_id] = call

    @property
    def open_calls(self) -> int:
        """How many calls are open: begun, and without an outcome; a moment's view."""
        return len(self._calls)

    def is_open(self, call_id: int) -> bool:
        """Return True if the call is open; a moment's view."""
        return call_id in self._calls

    def open_call(self, call_id: int | None) -> PendingCall | None:
        """Return the call if it is open; a moment's view."""
        return None if call_id is None else self._calls.get(call_id)

    def is_callback(self, slot_id: int) -> bool:
        """Return True if a function is called with the outcome, and no caller waits for it."""
        return self.slots[slot_id]["callback_method"] is not None

    @property
    def is_in_use_here(self) -> bool:
        """True if the calling thread holds the lock: it runs a finalizer inside a section."""
        return bool(self._lock._is_owned())

    def pending_calls(self) -> list[PendingCall]:
        """Return the open calls, oldest first."""
        with self._lock:
            return list(self._calls.values())

    def conclude(self, call_id: int | None, message: Any) -> bool:
        """Store the outcome of a call, unless it has one already.

        :param message: a :class:`~qam._broker.messages.Delivery` or a :class:`QAMException`.
        :returns: True if this is the call's outcome now.
        """
        return not self.conclude_all([(call_id, message)])

    def conclude_all(self, outcomes: Iterable[Outcome]) -> list[int | None]:
        """Store each of *outcomes*; return the ids of those that belong to no open call."""
        callbacks: list[int] = []
        dropped: list[int | None] = []
        ready = iter(callbacks)  # gives each of them once, also if Ctrl-C strikes in between
        try:
            with self._lock:
                for call_id, message in outcomes:
                    call = self._calls.pop(call_id, None)  # type: ignore[arg-type]
                    if call is None:
                        dropped.append(call_id)
                        continue
                    slot = self.slots[call.slot_id]
                    if slot["callback_method"] is not None:
                        callbacks.append(call.slot_id)
                    slot["result_message"] = message
                    slot["state"] = DONE
                    _end_wait(slot)
            if callbacks:
                self.ready_callbacks.add(ready)
        except BaseException:
            self._recover(ready)
            raise
        return dropped

    def _recover(self, ready: Iterator[int]) -> None:
        """Let no call wait for ever whose conclusion was interrupted, as by Ctrl-C.

        :param ready: slots of callbacks, which may have their outcomes.
        """
        with self._lock:
            self._open_again()
            done = [each for each in ready if self.slots[each]["state"] == DONE]
        self.ready_callbacks.add(iter(done))  # also if there are none: it may not have woken

    def _open_again(self) -> None:
        """Open the calls again that were taken out and got no outcome; under the lock."""
        for slot in self.slots:
            call: PendingCall | None = slot["call"]
            if slot["state"] == WAITING and call is not None:
                self._calls[call.call_id] = call
            elif slot["state"] == DONE:
                _end_wait(slot)

    def end(self, call: PendingCall) -> Any:
        """Free the slot of *call*, if it still has one; return the outcome of the call, or None.

        To end it again does nothing, also if the slot belongs to another call by then.
        """
        with self._lock:
            slot = self._slot_of(call)
            if slot["owner"] is not call:
                return None
            message = slot["result_message"]
            self.free(call.slot_id)
        return message

    def take_back(self, call: PendingCall) -> bool:
        """End *call*, unless it has begun and has its outcome already.

        The receiver of that outcome frees the slot.

        :returns: whether this has ended it.
        """
        with self._lock:
            slot = self._slot_of(call)
            if slot["owner"] is not call or (slot["call"] is call and slot["state"] == DONE):
                return False
            self.end(call)
            return True

    def _slot_of(self, call: PendingCall) -> Slot:
        """Return the slot that *call* has or had; an empty one if it never had any."""
        return self.slots[call.slot_id] if 0 <= call.slot_id < len(self.slots) else _NO_SLOT

    def free(self, slot_id: int) -> None:
        """Free a slot; a slot that is free already stays free."""
        try:
            with self._lock:
                slot = self.slots[slot_id]
                # Objects of the application, which may have finalizers.  They live as long as
                # this name, so until the lock is released.
                held = slot.copy()  # noqa: F841
                if slot["state"] != FREE:
                    self._free(slot_id, slot)
        except BaseException:
            self._find_free_ids()
            raise

    def _free(self, slot_id: int, slot: Slot) -> None:
        if slot["call"] is not None:
            self._calls.pop(slot["call"].call_id, None)
        slot["arrived"].acquire(False)
        slot.update(_UNUSED)
        self.free_ids.append(slot_id)

    # --- waiting and closing --------------------------------------------------

    def wait(self, slot_id: int, deadline: Deadline) -> bool:
        """Wait for the outcome of a call; return False if it did not come until *deadline*.

        :meth:`conclude` ends the wait; an owner that dies concludes all calls.
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
                    _end_wait(slot)  # of any other thread that waits here
        return arrived

    @property
    def is_closed(self) -> bool:
        """True once no call may begin any more."""
        return self._closed_by is not None

    def refuse_calls(self, failure: FailureFactory) -> None:
        """Let no call begin from now on; the first *failure* counts."""
        with self._lock:
            if self._closed_by is None:
                self._closed_by = failure

    def close(self, failure: FailureFactory) -> None:
        """Conclude every call with an exception of *failure*, and let none begin from now on."""
        is_inside = self.is_in_use_here  # a finalizer in a section, which will go on by itself
        self.refuse_calls(failure)
        with self._lock:
            if not is_inside:
                self._open_again()
            for slot in self.slots:
                if slot["state"] == WAITING and slot["call"] is None:
                    slot["result_message"] = failure("no")
                    slot["state"] = DONE
                    _end_wait(slot)
        self.fail_all(failure)

    def _in_forked_child(self) -> None:
        """In a forked child: let no call begin, and make a new lock, which nobody holds."""
        self._lock = own_lock()
        self._closed_by = _forked

    def fail_all(self, failure: FailureFactory) -> None:
        """Conclude every open call with an exception of *failure*."""
        with self._lock:
            calls = list(self._calls)
        for call_id in calls:
            self.conclude(call_id, failure("unknown"))


def _forked(executed: Executed) -> QAMClosedException:
    return QAMClosedException(
        "the proxy was made before this process was forked; make a new proxy in this process",
        executed=executed,
    )


def _end_wait(slot: Slot) -> None:
    try:  # no suppress(), which costs time  # noqa: SIM105
        slot["arrived"].release()
    except RuntimeError:  # it has ended: Ctrl-C has let another thread do it again
        pass
