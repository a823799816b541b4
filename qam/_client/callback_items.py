"""The callbacks that are not executed yet."""

import threading
import uuid
from itertools import count
from typing import Any

from qam._client.callback_timeouts import CallbackTimeouts
from qam._client.pending_call import PendingCall
from qam._common.deadline import Deadline

#: States of a callback.
WAITING, PROCESSING, FINISHED = 0, 1, 2

CallbackItem = dict[str, Any]


class CallbackItems:
    """The callbacks that are not executed yet: their states, their slots and their timeouts."""

    def __init__(self) -> None:
        #: By uid: dicts with ``id`` (the slot) and ``state``.
        self.by_uid: dict[str, CallbackItem] = {}
        #: Guards which items there are, and their timeouts.  To look one up or to store its
        #: state is one step, and needs no lock.  Reentrant, because a finalizer that makes
        #: a call may run inside.
        self.lock = threading.RLock()
        self.timeouts = CallbackTimeouts()
        # By slot, until it is given back: a slot is another callback's only after that, so
        # no lock is needed.  What a call leaves behind that could not be made is overwritten
        # by the next one in its slot.
        self._uids: dict[int, str] = {}
        # A uid is nobody else's: neither of another proxy, nor of an earlier callback.
        self._uid_prefix, self._uid_number = f"{uuid.uuid4().hex}-", count()

    def add(self, slot_id: int, deadline: Deadline, parent: Any) -> str:
        """Add a callback in the state 0 (waiting), and return its uid.

        :param parent: what lives while it waits.
        """
        uid = f"{self._uid_prefix}{next(self._uid_number)}"
        # Not more: many may wait, and a dict of six takes twice as much.
        item = {
            "id": slot_id,
            "state": WAITING,
            "deadline": deadline,
            "call": None,
            "parent": parent,
        }
        self._uids[slot_id] = uid
        with self.lock:
            self.by_uid[uid] = item
        return uid

    def watch(self, uid: str, call: PendingCall) -> bool:
        """Note when the time of *uid* is up, whose *call* was made; True if that is the next."""
        with self.lock:
            item = self.by_uid.get(uid)
            if item is None:  # its outcome was there at once
                return False
            item["call"] = call
            self.timeouts.forget_others(self.by_uid, len(self.by_uid))
            return self.timeouts.add(uid, call.deadline.at)

    def take_past(self, now: float) -> list[tuple[str, CallbackItem]]:
        """Return the callbacks whose time is up, each once."""
        with self.lock:
            past = self.timeouts.take_past(now)
            return [(uid, self.by_uid[uid]) for uid in past if uid in self.by_uid]

    def uid_in(self, slot_id: int) -> str:
        """Return the uid of the callback in a slot; "" for one without an item."""
        return self._uids.get(slot_id, "")

    def leave_slot(self, slot_id: int) -> None:
        """The slot is about to be given back."""
        self._uids.pop(slot_id, None)

    def set_state(self, uid: str, state: int) -> None:
        """Set the state of *uid*, if it is there."""
        item = self.by_uid.get(uid)
        if item is not None:
            item["state"] = state

    def remove(self, uid: str) -> None:
        """Forget *uid*."""
        with self.lock:
            self.by_uid.pop(uid, None)

    def finish(self, uid: str) -> None:
        """Have *uid* in the state 2 (finished), and forget it."""
        item = self.by_uid.get(uid)
        if item is not None:
            item["state"] = FINISHED
            self.remove(uid)

    def clear_after_fork(self) -> None:
        """Have no items, and a lock that nobody holds; in a forked child."""
        self.lock = threading.RLock()
        self.by_uid.clear()
