"""The calls that wait to be written."""

import threading

from qam._broker.messages import batch_length
from qam._client.pending_call import PendingCall
from qam._client.result_list import ResultList
from qam._common.own_locks import own_lock


class MethodQueue:
    """The calls that wait to be written: first those to be sent again, then by age.

    :param results: knows which calls are open.
    :param max_queued: how many calls may wait; None for any number.
    :param held: True to begin as after :meth:`hold`.
    """

    def __init__(self, results: ResultList, max_queued: int | None, held: bool) -> None:
        self.calls: list[PendingCall] = []
        self.max_queued = max_queued
        #: True while no call may be taken, because its reply would be lost.
        self.held = held
        self._results = results
        self._withdrawn = 0  # how many of the calls in it are withdrawn
        # Guards the removal of calls, _withdrawn, held, and how often a request was written.
        # Without max_queued a caller appends without the lock; so each section uses only the
        # length that it has read.  Reentrant, because a finalizer of the application that
        # makes a call may run while this thread holds it.
        self._lock = own_lock()
        # Notified when there is room again, and when the calls that wait for it have ended.
        self._room = threading.Condition(self._lock)

    @property
    def is_in_use_here(self) -> bool:
        """True if the calling thread holds the lock: it runs a finalizer inside a section."""
        return bool(self._lock._is_owned())

    @property
    def waiting(self) -> int:
        """How many calls wait to be written; a moment's view."""
        return max(0, len(self.calls) - self._withdrawn)

    # --- calls come -------------------------------------------------------------

    def add(self, call: PendingCall, waits: bool) -> bool:
        """Append a call; return False if there is no room: then it is never written.

        :param waits: True to wait for room until the deadline of the call, while it is open.
        """
        if self.max_queued is None:
            self.calls.append(call)
            return True
        try:
            with self._lock:
                if self._is_full() and not (waits and self._wait_for_room(call)):
                    call.withdrawn = True  # it never was in the queue
                    return False
                self.calls.append(call)
        except BaseException:  # Ctrl-C: this thread may have used up the notification of another
            self.wake_callers()
            raise
        return True

    def _is_full(self) -> bool:
        return self.max_queued is not None and len(self.calls) - self._withdrawn >= self.max_queued

    def _wait_for_room(self, call: PendingCall) -> bool:
        deadline = call.deadline
        while self._is_full() and self._results.is_open(call.call_id):
            if not self._room.wait(deadline.wait_time()) and deadline.expired:
                self._room.notify()  # this thread may have used up the notification of another
                return False
        return self._results.is_open(call.call_id)

    def wake_callers(self) -> None:
        """Wake the callers that wait for room, so that they see whether their calls have ended."""
        with self._lock:
            self._room.notify_all()

    # --- calls are withdrawn ----------------------------------------------------

    def withdraw(self, call: PendingCall) -> bool:
        """Withdraw a call; return True if its request was not written and never will be."""
        with self._lock:
            if call.times_written:
                return False
            if not call.withdrawn:
                self._withdraw(call)
        return True

    def _withdraw(self, call: PendingCall) -> None:
        try:
            call.withdrawn = True
            self._withdrawn += 1
            # Only when they are at least half of the queue.  So each costs a constant time, and
            # an outage in which every call times out does not fill the memory.
            if 2 * self._withdrawn >= len(self.calls):
                self._drop_withdrawn()
            self._room.notify()
        except BaseException:  # Ctrl-C: it may not be counted
            self._drop_withdrawn()
            self._room.notify_all()
            raise

    def _drop_withdrawn(self) -> None:
        seen = len(self.calls)
        self.calls[:seen] = [each for each in self.calls[:seen] if not each.withdrawn]
        self._withdrawn = 0

    def abandon(self, call: PendingCall) -> None:
        """Withdraw a call that may be in the queue or not, such as one whose caller got Ctrl-C."""
        with self._lock:
            if not (call.times_written or call.withdrawn):
                call.withdrawn = True
                self._drop_withdrawn()
                self._room.notify_all()

    def withdraw_all(self) -> list[PendingCall]:
        """Withdraw all calls whose requests were not written; return them."""
        with self._lock:
            calls = self.calls[:]
        return [call for call in calls if self.withdraw(call)]

    # --- calls are written ------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """True if there is a call to take."""
        return bool(self.calls) and not self.held

    def take(self, alone: bool) -> list[PendingCall]:
        """Take out the calls to be written next: a batch, or one *alone*."""
        with self._lock:
            if self.held:
                return []
            taken = self.calls[: 1 if alone else batch_length(self.calls)]
            del self.calls[: len(taken)]
            batch = [call for call in taken if not call.withdrawn]
            self._withdrawn -= len(taken) - len(batch)
            for call in batch:
                call.times_written += 1
            if self.max_queued is not None:
                self._room.notify(len(taken))
        # A first copy is always wanted: otherwise its caller would have withdrawn it.
        is_open = self._results.is_open
        return [call for call in batch if call.times_written == 1 or is_open(call.call_id)]

    def bypass(self, call: PendingCall) -> bool:
        """Mark a new call as written without queueing it; return False while the queue is held."""
        with self._lock:
            if self.held:
                return False
            call.times_written = 1
        return True

    def put_first(self, calls: list[PendingCall]) -> None:
        """Put *calls* before all others, except those that are in the queue already."""
        with self._lock:
            here = set(map(id, self.calls)) if calls and self.calls else ()
            self.calls[:0] = [each for each in calls if id(each) not in here]

    def hold(self) -> list[PendingCall]:
        """Let no call be taken from now on; return the open calls that were written before."""
        with self._lock:
            self.held = True
            return [each for each in self._results.pending_calls() if each.times_written]

    def release(self) -> None:
        """End :meth:`hold`: let calls be taken again."""
        with self._lock:
            self.held = False

    def renew_lock(self) -> None:
        """In a forked child: make a new lock, which nobody holds."""
        self._lock = own_lock()
        self._room = threading.Condition(self._lock)
