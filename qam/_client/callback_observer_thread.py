"""The thread that watches over callbacks, their timeouts, and the threads that execute them."""

import threading
import time
import weakref

from qam._client.call_timeouts import CallTimeouts
from qam._client.callback_items import FINISHED, CallbackItem, CallbackItems
from qam._client.consumer_thread import ConsumerThread
from qam._client.execute_callback_thread import CallbackJob, ExecuteCallbackThread, Parent
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import PublisherThread
from qam._common.deadline import NO_END, Deadline
from qam._common.error_texts import describe_received
from qam._common.fork import disown_in_child
from qam._common.logs import get_logger
from qam._common.own_threads import OwnThread
from qam._common.pool_rule import PoolRule
from qam._common.printable import printable

log = get_logger("qam.qam_proxy")

#: Seconds that a ready callback waits for an idle thread before another thread is started.
_START_DELAY = 0.01
#: From this many threads on, the delay grows with their number.
_MANY_THREADS = 16
#: Seconds that an idle thread waits for another callback before it ends.
_IDLE_TIME = 5.0
#: Seconds that closing waits for running callbacks.
_EXIT_TIMEOUT = 5.0


class CallbackObserverThread(OwnThread):
    """Watches over the callbacks: their states, their timeouts, and the threads that run them.

    It sleeps until a callback is ready and finds no idle thread, or until the next timeout
    is due.

    :param parent: the :class:`QAMProxy` whose callbacks these are.
    :param publisher: the thread that sends their calls; by default that of *parent*.
    :param consumer: the thread that receives their results; by default that of *parent*.
    """

    def __init__(
        self,
        parent: Parent,
        *,
        publisher: PublisherThread | None = None,
        consumer: ConsumerThread | None = None,
    ) -> None:
        super().__init__(name=f"qam CallbackObserverThread {parent.client_id}", daemon=True)
        self._parent = weakref.ref(parent)  # an idle thread keeps no proxy alive
        self._publisher = publisher or parent.publisher_thread
        self._consumer = consumer or parent.consumer_thread
        self._results = self._publisher.results
        self._items = CallbackItems()
        self._ready = self._results.ready_callbacks
        # The lock of the items guards these four.
        self._timeouts = CallTimeouts()
        self._threads: set[ExecuteCallbackThread] = set()
        self._joining: set[threading.Thread] = set()  # the threads inside join_until()
        self._rule = PoolRule(_START_DELAY, _MANY_THREADS)
        #: True once the thread is asked to stop; never taken back.
        self.kill = False
        disown_in_child(self)

    @property
    def parent(self) -> Parent | None:
        """The proxy whose callbacks these are; None once it is gone."""
        return self._parent()

    # --- the items --------------------------------------------------------------

    @property
    def callback_uid_dict(self) -> dict[str, CallbackItem]:
        """The callbacks that are not finished yet, by uid: dicts with ``id`` and ``state``."""
        return self._items.by_uid

    @property
    def callback_dict_lock(self) -> threading.RLock:
        """Guards which callbacks there are; looking one up needs no lock."""
        return self._items.lock

    #: The same lock, as the original spells it.
    callback_dickt_lock = callback_dict_lock

    def init_waiting_callback_item(self, id: int, timeout: float | None) -> str:
        """Add a callback in the state 0 (waiting).

        :param id: its slot in the result list.
        :param timeout: seconds until its error function gets a QAMTimeoutException;
            None for no limit.
        :returns: its uid.
        """
        return self.add_item(id, NO_END if timeout is None else Deadline(timeout))

    def add_item(self, id: int, deadline: Deadline, call: PendingCall | None = None) -> str:
        """Add a callback in the state 0 (waiting), which keeps the proxy alive; return its uid.

        :param call: its call, which gets the uid.
        """
        return self._items.add(id, deadline, self._parent(), call)

    def watch(self, call: PendingCall) -> None:
        """Watch the deadline of *call* from now on, for whose outcome no caller waits."""
        with self._items.lock:
            self._timeouts.forget_ended(self._results.is_open, self._results.open_calls)
            is_next = self._timeouts.add(call.call_id, call.deadline.at)
        if is_next:
            self._ready.bell.ring()

    def give_up(self, call: PendingCall) -> None:
        """Forget the callback of *call*, which failed or was interrupted."""
        self._items.remove(call.uid)
        # Ctrl-C may have prevented the ring of watch(), on which later callbacks rely too.
        self._ready.bell.ring()

    def get_callback_item(self, uid: str) -> CallbackItem:
        """Return the item of *uid*: a dict with its ``id`` and ``state``.

        For a callback that is finished, or never existed, the id is None and the state 2.
        """
        return self._items.by_uid.get(uid) or {"id": None, "state": FINISHED}

    def change_callback_item_state(self, uid: str, state: int) -> None:
        """Set the state of *uid*: 0 waiting, 1 processing, 2 finished."""
        self._items.set_state(uid, state)

    def remove_callback_item(self, uid: str) -> None:
        """Forget the callback *uid*, which was executed; its state counts as 2 from now on."""
        self._items.remove(uid)

    def finish(self, uid: str) -> None:
        """Set the callback *uid* to the state 2 (finished), and forget it."""
        self._items.finish(uid)

    # --- when a callback is ready -----------------------------------------------

    def _make_job(self, id: int) -> CallbackJob:
        return self._execute_callback_of, id, self._items.uid_in(id)

    def _execute_callback_of(self, id: int) -> None:
        """Call the success or error function of the slot *id*; runs in an ExecuteCallbackThread."""
        self._items.forget_slot(id)
        slot = self._results.slots[id]
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
        if callback_info["id"] is not None:
            self._end_if_expired(self._results.slots[callback_info["id"]]["call"])

    def _end_if_expired(self, call: PendingCall | None) -> None:
        if call is not None and call.deadline.expired:
            self._results.conclude(call.call_id, self._publisher.give_up(call))

    # --- the thread -------------------------------------------------------------

    def run(self) -> None:
        """Watch until :meth:`exit`, and after it until no ready callback waits for a thread."""
        try:
            while not (self.kill and self._ready.slot_ids.waiting_since() is None):
                for call_id in self._wait():
                    self._end_if_expired(self._results.open_call(call_id))
                self._start_thread_if_needed()
        except BaseException as error:
            log.exception("%s died of an internal error", self.name)
            self._on_death(error)

    def _on_death(self, error: BaseException) -> None:
        """End every call; one last thread executes their error functions, one after the other."""
        self._publisher.end_calls(error)
        self._start_thread()

    def _wait(self) -> list[int]:
        """Wait until there is something to do; return the ids of the calls whose time is up."""
        due = min(self._next_start(), self._timeouts.next)
        self._ready.bell.wait(max(0.0, due - time.monotonic()))
        with self._items.lock:
            return self._timeouts.take_expired(time.monotonic())

    def _next_start(self) -> float:
        """Return when another thread has to start, unless one becomes idle before."""
        waiting_since = self._ready.slot_ids.waiting_since()
        with self._items.lock:
            return self._rule.next_start(waiting_since, len(self._threads))

    def _start_thread_if_needed(self) -> None:
        if self._next_start() <= time.monotonic():
            self._start_thread()

    def _start_thread(self) -> None:
        id, parent = self._ready.slot_ids.take_one(), self.parent
        if id is None or parent is None:
            return
        thread = ExecuteCallbackThread(parent, *self._make_job(id), observer=self)
        with self._items.lock:
            self._threads.add(thread)
            self._rule.started(time.monotonic())
        try:
            thread.start()
        except RuntimeError:
            self._handle_failed_start(thread, id)

    def _handle_failed_start(self, thread: "ExecuteCallbackThread", id: int) -> None:
        """Handle the callback of the slot *id*, for which *thread* could not be started."""
        with self._items.lock:
            self._threads.discard(thread)
            self._rule.started(time.monotonic())
        if threading.main_thread().is_alive():  # out of threads: those that run go on
            log.exception("a callback has to wait: no other thread can be started")
            self._ready.slot_ids.put_back(id)
        else:  # the interpreter ends: Python 3.12.0 and 3.12.1 start no thread from then on
            self.runs_user_code = True
            thread.execute(self._make_job(id))
            self.runs_user_code = False

    def next_job(self, thread: "ExecuteCallbackThread") -> CallbackJob | None:
        """Wait for another callback to execute; None if *thread* is to end."""
        id = self._ready.slot_ids.get(_IDLE_TIME)
        if id is not None:
            return self._make_job(id)
        with self._items.lock:
            self._threads.discard(thread)
        return None

    def exit(self) -> None:
        """Execute the callbacks that are ready, then end this thread and those that execute them.

        Waits five seconds at most, and never for the calling thread.
        """
        self.ask_to_stop()
        self.join_until(Deadline(_EXIT_TIMEOUT))

    def ask_to_stop(self) -> None:
        self._ready.slot_ids.close()
        self.kill = True
        self._ready.bell.ring()

    def _in_forked_child(self) -> None:
        """In a forked child: forget all callbacks and threads, and make new locks."""
        self._items.clear_after_fork()
        self._ready.bell.renew_lock()
        self.kill = True
        self._threads.clear()

    def join_until(self, deadline: Deadline) -> None:
        """Wait for the end of the threads, except for the calling one.

        Of several callbacks that wait here, none waits for another.
        """
        here = threading.current_thread()
        if self.ident is not None and self is not here:
            self.join(deadline.wait_time())
        with self._items.lock:  # not before: until it ends, it starts threads
            self._joining.add(here)
            threads = self._threads - (self._joining if here in self._threads else {here})
        try:
            for thread in threads:
                if thread.ident is not None:  # else it is being started at this moment
                    thread.join(deadline.wait_time())
        finally:
            with self._items.lock:
                self._joining.discard(here)
