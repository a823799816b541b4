"""The loop that every connection-owning thread runs: connect, heartbeat, read, write, reconnect.

The proxy's ConsumerThread and PublisherThread and the server's two counterparts are
such threads.  Others hand over their work under a lock and call
:meth:`ConnectionThread.wake`.

While its owner sleeps, another thread can borrow the connection.  A lone call has nothing
to be written together with; so its caller writes it, and no thread has to be woken, which
would take longer than the writing.
"""

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from qam._broker.connect import CONNECT_TIMEOUT, Connect, connect, connect_first
from qam._broker.connection import Connection
from qam._broker.endpoint import Endpoint
from qam._broker.events import Event
from qam._broker.loan import Loan
from qam._broker.reconnection import Reconnection
from qam._broker.waker import Waker
from qam._common.deadline import Deadline, sooner
from qam._common.fork import disown_in_child
from qam._common.stations import Stations
from qam.exceptions import QAMConnectionException

#: Seconds by which the error of an attempt to connect may come after its time.
_ERROR_GRACE = 0.5
#: Seconds that a thread may take to end after it was asked to.
_EXIT_TIMEOUT = 5.0
#: Seconds by which the same time may differ, told twice from now.
_ROUNDING = 0.001


class ConnectionThread(threading.Thread, ABC):
    """A thread that owns a connection and keeps it open.

    The thread is a daemon: one that is still connecting must not hold up the end
    of the interpreter.  Proxies and servers end theirs before that.

    :param name: the thread's name.
    :param endpoints: where to connect, in the order in which that is tried.
    :param log: where losses and recoveries are logged, once each.
    :param connect_timeout: seconds that one attempt to connect may take.
    :param waker: wakes this thread, where others have it too; it is closed at the thread's end.
    :param stations: where it is noted what passes here, if others have it too.
    :param connect: opens a connection to one of *endpoints*.
    """

    def __init__(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        log: logging.Logger,
        connect_timeout: float = CONNECT_TIMEOUT,
        waker: Waker | None = None,
        stations: Stations | None = None,
        connect: Connect = connect,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._log = log
        #: What is noted here, and logged at the level DEBUG when no lock is held.
        self.stations = stations or Stations(log)
        self._connect_timeout = connect_timeout
        self._connect = connect
        self._reconnection = Reconnection(endpoints)
        self._connection: Connection | None = None
        self._waker = waker or Waker()
        self._loan = Loan(self._waker)
        #: True once the thread is asked to stop; never taken back.
        self.kill = False
        # The first opening: done when it succeeded, or failed with the reason.
        self._opened: Future[None] = Future()
        disown_in_child(self)

    # --- what an owner does with its connection; in its own thread -----------

    @abstractmethod
    def _on_open(self, connection: Connection) -> None:
        """Declare and consume what this owner needs, on a new connection."""

    @abstractmethod
    def _write(self, connection: Connection) -> None:
        """Write what waits to be written."""

    @abstractmethod
    def _on_events(self, events: Sequence[Event]) -> None:
        """Take in what the broker sent."""

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        """The connection is gone; what was under way on it has an open fate."""

    def _next_due(self) -> float | None:
        """Seconds until :meth:`_write` has to be called if nothing happens; None for never."""
        return None

    def _read_delay(self) -> float:
        """Seconds for which what the broker sends may wait, to be read together with more."""
        return 0.0

    def _before_close(self, connection: Connection) -> None:
        """A last thing to do on a connection that still stands."""

    def _without_connection(self) -> float | None:
        """Do what can be done while there is no connection; return as :meth:`_next_due` does."""
        return None

    def _on_end(self, error: BaseException | None) -> None:
        """The thread ends, because of *error* or because it was asked to: tell who waits on it."""

    # --- what other threads may call ------------------------------------------

    def start(self) -> None:
        """Start the thread; return when its connection is open.

        :raises QAMConnectionException: it can't be opened; says where and why.
        """
        self.begin()
        try:
            self.wait_until_open(Deadline(self._connect_timeout))
        except BaseException:
            self.exit()
            raise

    def begin(self) -> None:
        """Start the thread; do not wait for its connection."""
        super().start()

    def wait_until_open(self, deadline: Deadline) -> None:
        """Wait until the connection of this thread, which has begun, is open.

        :param deadline: by when; the thread is asked to stop if it is not.
        :raises QAMConnectionException: it can't be opened; says where and why.
        """
        try:
            # Some more than the attempt gets: its own, more precise error comes first.
            self._opened.result((deadline.wait_time() or 0.0) + _ERROR_GRACE)
        except TimeoutError:
            self.ask_to_stop()
            raise QAMConnectionException(
                f"can't connect to the broker at {self._reconnection}: "
                f"no answer within {self._connect_timeout:g} seconds",
                executed="no",
            ) from None

    def exit(self) -> None:
        """Close the connection and end the thread; return when that is done.

        Waits five seconds at most, and not at all when called by the thread itself.
        """
        self.ask_to_stop()
        self.join_until(Deadline(_EXIT_TIMEOUT))

    def join_until(self, deadline: Deadline) -> None:
        """Wait for the thread's end; not at all when called by the thread itself."""
        if self.ident is not None and self is not threading.current_thread():
            self.join(deadline.wait_time())

    def _after_fork(self) -> None:
        """Give up the connection without a word; in a forked child."""
        self.kill = True
        self._loan.after_fork()
        if self._connection is not None:
            self._connection.detach()
            self._connection = None

    @property
    def is_here(self) -> bool:
        """Whether the thread that asks is this one, or does its work at this moment."""
        return self.is_in_the_middle or threading.current_thread() is self

    @property
    def is_in_the_middle(self) -> bool:
        """Whether the thread that asks holds a lock of this one: it is a finalizer then."""
        return self._loan.is_here or self._waker.is_in_use_here

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection; a moment's view."""
        return self._connection is not None

    def wake(self) -> None:
        """Make the owner look for work."""
        self._waker.wake()

    def look_again(self) -> None:
        """Read what came while this thread rests; any thread may call it, at any time."""
        connection = self._connection
        if connection is not None and connection.rests:
            self.wake()

    def _log_noted(self) -> None:
        """Log what was noted while the connection was in use.

        Not if this is a finalizer in the middle of something: then the owner does it.
        """
        if self.stations.has_unlogged and not self.is_in_the_middle:
            self.stations.log()

    def ask_to_stop(self) -> None:
        self.kill = True
        self.wake()

    # --- the loop -------------------------------------------------------------

    def run(self) -> None:
        """Own the connection until :meth:`exit`; called by ``start``."""
        failure: BaseException | None = None
        try:
            self._own_connection()
        except BaseException as error:
            failure = error
            if self._opened.done():
                self._log.exception("%s died of an internal error", self.name)
        self._on_end(failure)
        self._waker.close()
        if not self._opened.done():
            self._opened.set_exception(failure or QAMConnectionException("stopped"))

    def _own_connection(self) -> None:
        """Keep the connection open until asked to stop.

        :raises QAMConnectionException: it could not be opened the first time.
        """
        connection: Connection | None = self._open()
        self._opened.set_result(None)
        while connection is not None:
            self._serve(connection)
            connection = self._open_again()

    def _serve(self, connection: Connection) -> None:
        """Use *connection* until it is lost, or this thread is asked to stop."""
        try:
            self._use_until_stopped(connection)
            self._before_close(connection)
        except QAMConnectionException as error:
            if not self.kill:
                self._lose(connection, error)
        finally:
            self._connection = None
            connection.close()
            self._log_noted()

    def _lose(self, connection: Connection, error: QAMConnectionException) -> None:
        self._log.warning("%s; connecting again", error)
        self._on_lost(connection, error)
        if not error.by_message:
            self._reconnection.skip()

    def _use_until_stopped(self, connection: Connection) -> None:
        try:
            while not self.kill:
                self._work_and_wait(connection)
        finally:
            self._loan.end()

    def _work_and_wait(self, connection: Connection) -> None:
        try:
            with self._loan.in_use:
                self._loan.check()
                wait_time = self._work(connection)
                self._loan.lend(connection)
        finally:
            self._log_noted()
        if not self.kill:
            connection.wait(wait_time, self._waker, self._read_delay())

    def _borrow(self, use: Callable[[Connection], bool], rest: bool = False) -> bool:
        """Call *use* with the connection, in the thread that calls; return what it returns.

        Returns False if the connection is not there, or somebody uses it at this moment: this
        thread, another one, or the same one, of which a finalizer has taken hold.  Returns
        True if the connection is lost by that.  Does not wait.

        :param use: returns whether it has used the connection.
        :param rest: what comes because of that need not wake this thread.  Whoever calls sees
            to it that :meth:`look_again` is called when it may have become urgent.
        """
        return not self.is_here and self._loan.borrow(partial(self._lend, use, rest))

    def _lend(self, use: Callable[[Connection], bool], rest: bool, connection: Connection) -> bool:
        due = self._due_at()
        done = use(connection)
        if done:
            self._hand_back(connection, due, rest)
        return done

    def _hand_back(self, connection: Connection, due: float, rest: bool) -> None:
        """Have this thread, which was to wake at *due*, wake for what is left, or rest."""
        has_to_wake = not connection.flush() or self._due_at() < due - _ROUNDING
        if has_to_wake or (connection.rests and not rest):
            self.wake()
        elif rest:
            connection.rest()

    def _due_at(self) -> float:
        """When there is something to do, on the monotonic clock; infinite for never."""
        due = self._next_due()
        return math.inf if due is None else time.monotonic() + due

    def _work(self, connection: Connection) -> float | None:
        """Do all that is to do now; return the seconds until there is more, None for never."""
        self._on_events(connection.read())
        self._write(connection)
        congested = connection.congested
        connection.flush()
        if congested and not connection.congested:
            self.wake()  # for what waited for room
        return sooner(connection.tick(), self._next_due())

    def _open(self) -> Connection:
        candidates = self._reconnection.candidates()
        connection = connect_first(candidates, self._connect_timeout, self._connect)
        self._connection = connection
        self._reconnection.opened(time.monotonic())
        try:
            self._on_open(connection)
        except BaseException:
            self._connection = None
            connection.close()
            self._reconnection.skip()
            raise
        self._reconnection.serves()
        return connection

    def _open_again(self) -> Connection | None:
        """Try to connect, at once and then ever more slowly, until it works or is not wanted."""
        self._pause(self._reconnection.pause_after_loss(time.monotonic()))
        while not self.kill:
            try:
                connection = self._open()
            except QAMConnectionException as error:
                self._log.debug("%s", error)
                self._pause(self._reconnection.pause_after_failure())
            else:
                self._log.info("connected again to the broker at %s", self._reconnection)
                return connection
        return None

    def _pause(self, seconds: float) -> None:
        """Wait, in spite of wakes for work that has to wait too."""
        deadline = Deadline(seconds)
        while True:
            due = self._without_connection()
            if self.kill or deadline.expired:
                return
            self._waker.wait(sooner(deadline.wait_time(), due))
            self._waker.clear()
