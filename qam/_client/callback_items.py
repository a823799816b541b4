"""The callbacks that are not finished yet."""

import threading
import uuid
from itertools import count
from typing import Any

from qam._client.pending_call import PendingCall
from qam._common.deadline import Deadline
from qam._common.own_locks import own_lock

#: States of a callback.
WAITING, PROCESSING, FINISHED = 0, 1, 2

CallbackItem = dict[str, Any]


class CallbackItems:
    """The callbacks that are not finished yet: their states and their slots."""

    def __init__(self) -> None:
        #: The items by uid: dicts with ``id`` (the slot) and ``state``.
        self.by_uid: dict[str, CallbackItem] = {}
        #: Guards which items there are.  Looking up an item and storing its state are single
        #: steps, which need no lock.  Reentrant, because a finalizer that makes a call may run
        #: while this thread holds it.
        self.lock: threading.RLock = own_lock()
        # The uid by slot, until the slot is freed.  Only after that another callback can use
        # the slot, so no lock is needed.  A call that could not be made leaves its entry
        # behind; the next call in its slot overwrites it.
        self._uids: dict[int, str] = {}
        # A uid is unique: no other proxy and no earlier callback has it.
        self._uid_prefix, self._uid_number = f"{uuid.uuid4().hex}-", count()

    def add(
        self, slot_id: int, deadline: Deadline, parent: Any, call: PendingCall | None = None
    ) -> str:
        """Add a callback in the state 0 (waiting), and return its uid.

        :param parent: the proxy, which the item keeps alive while it waits.
        :param call: its call, which gets the uid before there is an item.
        """
        uid = f"{self._uid_prefix}{next(self._uid_number)}"
        if call is not None:
            call.uid = uid
        # Five entries at most: many items may wait, and a dict of six is twice as large.
        item = {"id": slot_id, "state": WAITING, "deadline": deadline, "parent": parent}
        self._uids[slot_id] = uid
        with self.lock:
            self.by_uid[uid] = item
        return uid

    def uid_in(self, slot_id: int) -> str:
        """Return the uid of the callback in a slot; "" if it has no item."""
        return self._uids.get(slot_id, "")

    def forget_slot(self, slot_id: int) -> None:
        """Forget the uid of a slot that is about to be freed."""
        self._uids.pop(slot_id, None)

    def set_state(self, uid: str, state: int) -> None:
        """Set the state of *uid*, unless it is finished."""
        item = self.by_uid.get(uid)
        if item is not None:
            item["state"] = state

    def remove(self, uid: str) -> None:
        """Forget *uid*."""
        with self.lock:
            self.by_uid.pop(uid, None)

    def finish(self, uid: str) -> None:
        """Set *uid* to the state 2 (finished), and forget it."""
        with self.lock:
            item = self.by_uid.pop(uid, None)
        if item is not None:
            item["state"] = FINISHED

    def clear_after_fork(self) -> None:
        """In a forked child: drop all items, and make a new lock, which nobody holds."""
        self.lock = own_lock()
        self.by_uid.clear()
