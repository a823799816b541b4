"""The thread that watches over callbacks, their timeouts, and the threads that execute them."""

import heapq
import threading
import time
import uuid
import weakref
from itertools import count
from typing import Any

from qam._client.execute_callback_thread import (
    FINISHED,
    WAITING,
    CallbackJob,
    ExecuteCallbackThread,
    Parent,
)
from qam._client.pending_call import PendingCall
from qam._common.deadline import NO_END, Deadline
from qam._common.error_texts import describe_received
from qam._common.fork import disown_in_child
from qam._common.logs import get_logger
from qam._common.printable import printable

log = get_logger("qam.qam_proxy")

#: Seconds that a callback that is ready waits for an idle thread before another starts.
_PATIENCE = 0.01
#: From this many threads on patience grows with their number: that many callbacks
#: that are merely slow get no faster by more threads.
_MANY_THREADS = 16
#: Seconds that an idle thread waits for another callback before it ends.
_IDLE_TIME = 5.0
#: Seconds that closing waits for callbacks that run.
_EXIT_TIMEOUT = 5.0

CallbackItem = dict[str, Any]


class CallbackObserverThread(threading.Thread):
    """Watches over the callbacks: their states, their timeouts, and the threads that run them.

    It sleeps until a callback is ready that no idle thread is there for, or until
    the next timeout is due.

    :param parent: the :class:`QAMProxy` whose callbacks these are.
    """

    def __init__(self, parent: Parent) -> None:
        super().__init__(name=f"qam CallbackObserverThread {parent.client_id}", daemon=True)
        self._parent = weakref.ref(parent)  # an idle thread keeps no proxy alive
        self._consumer = parent.consumer_thread
        self._publisher = parent.publisher_thread
        #: The callbacks that are not executed yet, by uid: dicts with ``id`` (the slot)
        #: and ``state``.
        self.callback_uid_dict: dict[str, CallbackItem] = {}
        #: Guards which callbacks there are, and all that is private here, jobs aside.  To
        #: look one up or to store its state is one step, and needs no lock.
        #: Reentrant, because a finalizer that stops the thread may run inside.
        self.callback_dict_lock = threading.RLock()
        #: The same lock, as the original spells it.
        self.callback_dickt_lock = self.callback_dict_lock
        #: True once the thread is asked to stop; never taken back.
        self.kill = False
        # By slot, until the outcome is there: a slot is another callback's only after that,
        # so no lock is needed.  What a call leaves behind that could not be made is
        # overwritten by the next one in its slot.
        self._uids: dict[int, str] = {}
        # A uid is nobody else's: neither of another proxy, nor of an earlier callback.
        self._uid_prefix, self._uid_number = f"{uuid.uuid4().hex}-", count()
        self._timeouts: list[tuple[float, str]] = []  # a heap of when, and whose
        self._ready = parent.publisher_thread.results.ready_callbacks
        self._threads: set[ExecuteCallbackThread] = set()
        self._last_start = 0.0
        disown_in_child(self)

    @property
    def parent(self) -> Parent | None:
        """The proxy whose callbacks these are; None once it is gone."""
        return self._parent()

    # --- the items --------------------------------------------------------------

    def init_waiting_callback_item(self, id: int, timeout: float | None) -> str:
        """Add a callback in the state 0 (waiting).

        :param id: its slot in the result list.
        :param timeout: seconds until its error function gets a QAMTimeoutException;
            None for no end.
        :returns: its uid.
        """
        return self.add_item(id, NO_END if timeout is None else Deadline(timeout))

    def add_item(self, id: int, deadline: Deadline) -> str:
        """Add a callback in the state 0 (waiting), and return its uid."""
        uid = f"{self._uid_prefix}{next(self._uid_number)}"
        # Not more: many may wait, and a dict of six takes twice as much.
        item = {
            "id": id,
            "state": WAITING,
            "deadline": deadline,
            "call": None,
            "parent": self._parent(),  # the proxy lives while a callback waits
        }
        self._uids[id] = uid
        with self.callback_dict_lock:
            self.callback_uid_dict[uid] = item
        return uid

    def watch(self, uid: str, call: PendingCall) -> None:
        """From now on mind the deadline of *uid*, whose *call* was queued."""
        with self.callback_dict_lock:
            item = self.callback_uid_dict.get(uid)
            if item is None:  # its outcome was there at once
                return
            item["call"] = call
            self._forget_past_timeouts()
            heapq.heappush(self._timeouts, (call.deadline.at, uid))
            is_next = self._timeouts[0][1] == uid
        if is_next:
            self._ready.bell.ring()

    def _forget_past_timeouts(self) -> None:
        # Most callbacks finish long before their timeout; only when those are the
        # most of the heap is it made anew, so each costs a constant time in the end.
        if len(self._timeouts) > 2 * len(self.callback_uid_dict) + 64:
            self._timeouts = [each for each in self._timeouts if each[1] in self.callback_uid_dict]
            heapq.heapify(self._timeouts)

    def get_callback_item(self, uid: str) -> CallbackItem:
        """Return the item of *uid*: a dict with its ``id`` and ``state``.

        An item that is finished, or was never there, has the id None and the state 2.
        """
        return self.callback_uid_dict.get(uid) or {"id": None, "state": FINISHED}

    def change_callback_item_state(self, uid: str, state: int) -> None:
        """Set the state of *uid*: 0 waiting, 1 processing, 2 finished."""
        item = self.callback_uid_dict.get(uid)
        if item is not None:
            item["state"] = state

    def remove_callback_item(self, uid: str) -> None:
        """Forget the callback *uid*, because it was executed; its state is 2 from then on."""
        with self.callback_dict_lock:
            self.callback_uid_dict.pop(uid, None)

    def finish(self, uid: str) -> None:
        """Have the callback *uid* in the state 2 (finished), and forget it."""
        item = self.callback_uid_dict.get(uid)
        if item is not None:
            item["state"] = FINISHED
            self.remove_callback_item(uid)

    # --- when a callback is ready -----------------------------------------------

    def _job_of(self, id: int) -> CallbackJob:
        return self._execute_callback_of, id, self._uids.get(id, "")

    def _execute_callback_of(self, id: int) -> None:
        """Call the success or error function of the slot *id*; in an ExecuteCallbackThread."""
        self._uids.pop(id, None)  # before the slot is another's
        slot = self._publisher.results.slots[id]
        method, exception_method = slot["callback_method"], slot["exception_method"]
        try:
            params = self._consumer.get_result(id)
        except Exception as error:
            if exception_method is None:
                log.error(
                    "a call failed, and its callback %s has no error function: %s",
                    printable(getattr(method, "__qualname__", type(method).__name__)),
                    describe_received(error),
                )
                return
            method, params = exception_method, error
        method(params)

    def check_timeout(self, uid: str, callback_info: CallbackItem) -> None:
        """End the call of *uid* with a QAMTimeoutException if its time is up.

        :param callback_info: its item, see :meth:`get_callback_item`.
        """
        call = callback_info.get("call")
        if call is not None and call.deadline.expired:
            failure = self._publisher.timed_out(call)
            self._publisher.results.conclude(call.call_id, failure)

    # --- the thread -------------------------------------------------------------

    def run(self) -> None:
        """Watch until :meth:`exit`, and until no callback waits for a thread then."""
        try:
            while not (self.kill and self._ready.slot_ids.waiting_since() is None):
                for uid, item in self._wait():
                    self.check_timeout(uid, item)
                self._start_thread_if_needed()
        except BaseException as error:
            log.exception("%s died of an internal error", self.name)
            self._on_death(error)

    def _on_death(self, error: BaseException) -> None:
        """End every call; one thread executes the error functions, one after the other."""
        self._publisher.end_calls(error)
        self._start_thread()

    def _wait(self) -> list[tuple[str, CallbackItem]]:
        """Wait until something is to do; return the items whose time is up."""
        due = min([self._next_start()] + [when for when, _ in self._timeouts[:1]])
        self._ready.bell.wait(max(0.0, due - time.monotonic()))
        with self.callback_dict_lock:
            return self._take_expired(time.monotonic())

    def _take_expired(self, now: float) -> list[tuple[str, CallbackItem]]:
        expired = []
        while self._timeouts and self._timeouts[0][0] <= now:
            _, uid = heapq.heappop(self._timeouts)
            if uid in self.callback_uid_dict:
                expired.append((uid, self.callback_uid_dict[uid]))
        return expired

    def _next_start(self) -> float:
        """When another thread has to start, if none becomes idle before."""
        oldest = self._ready.slot_ids.waiting_since()
        if oldest is None:
            return float("inf")
        with self.callback_dict_lock:
            if not self._threads and self._last_start < oldest:
                return oldest
            patience = _PATIENCE * max(1.0, len(self._threads) / _MANY_THREADS)
            return max(oldest, self._last_start) + patience

    def _start_thread_if_needed(self) -> None:
        if self._next_start() <= time.monotonic():
            self._start_thread()

    def _start_thread(self) -> None:
        id, parent = self._ready.slot_ids.take_one(), self.parent
        if id is None or parent is None:
            return
        thread = ExecuteCallbackThread(parent, *self._job_of(id))
        with self.callback_dict_lock:
            self._threads.add(thread)
            self._last_start = time.monotonic()
        try:
            thread.start()
        except RuntimeError:
            self._do_without(thread, id)

    def _do_without(self, thread: "ExecuteCallbackThread", id: int) -> None:
        """Mind the callback of the slot *id*, for which *thread* could not be started."""
        with self.callback_dict_lock:
            self._threads.discard(thread)
            self._last_start = time.monotonic()
        if threading.main_thread().is_alive():  # the system has no more; those there are go on
            log.exception("a callback has to wait")
            self._ready.slot_ids.put_back(id)
        else:  # the interpreter ends: Python 3.12.0 and 3.12.1 start none from then on
            thread.execute(self._job_of(id))

    def next_job(self, thread: "ExecuteCallbackThread") -> CallbackJob | None:
        """Wait for another callback to execute; None if *thread* is to end."""
        id = self._ready.slot_ids.get(_IDLE_TIME)
        if id is not None:
            return self._job_of(id)
        with self.callback_dict_lock:
            self._threads.discard(thread)
        return None

    def exit(self) -> None:
        """End the thread, and those that execute callbacks, when what is ready is executed.

        Waits five seconds at most, and never for the thread that calls it.
        """
        self.ask_to_stop()
        self.join_until(Deadline(_EXIT_TIMEOUT))

    def ask_to_stop(self) -> None:
        self._ready.slot_ids.close()
        self.kill = True
        self._ready.bell.ring()

    def _after_fork(self) -> None:
        """Watch over nothing, with a lock that nobody holds; in a forked child."""
        self.callback_dict_lock = self.callback_dickt_lock = threading.RLock()
        self._ready.bell.renew_lock()
        self.kill = True
        self.callback_uid_dict.clear()
        self._threads.clear()

    def join_until(self, deadline: Deadline) -> None:
        """Wait for the end of the threads; not for the one that calls."""
        with self.callback_dict_lock:
            threads = [self, *self._threads]
        for thread in threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(deadline.wait_time())
