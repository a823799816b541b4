"""The loop that every connection-owning thread runs: connect, heartbeat, read, write, reconnect.

The proxy's ConsumerThread and PublisherThread and the server's two counterparts are such
threads.  Other threads hand over work under a lock, and then call :meth:`ConnectionThread.wake`.

While the owner of a connection sleeps, another thread can borrow it.  No other request could be
written together with that of a lone call.  So its caller writes it: that is quicker than to wake
the owner.
"""

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
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
from qam._common.own_threads import OwnThread
from qam._common.stations import Stations
from qam.exceptions import QAMConnectionException

#: Seconds after the timeout of an attempt to connect for which its error is waited for.
_ERROR_GRACE = 0.5
#: Seconds that a thread may take to end after it was asked to stop.
_EXIT_TIMEOUT = 5.0
#: Seconds by which two results of _due_at() may differ for the same event.
_ROUNDING = 0.001


class ConnectionThread(OwnThread, ABC):
    """A thread that owns a connection and keeps it open.

    The thread is a daemon, because a thread that is still connecting must not delay the exit of
    the interpreter.  Proxies and servers stop their threads before that.

    :param name: the thread's name.
    :param endpoints: the endpoints to try, in that order.
    :param log: the logger for losses and recoveries, each logged once.
    :param connect_timeout: seconds that one attempt to connect may take.
    :param waker: wakes this thread; None for a new one.  The thread closes it when it ends.
    :param stations: the stations of the calls that pass here; None for new ones.
    :param connect: opens a connection to one of *endpoints*.
    :param wait_for_broker: seconds for which the first attempt to connect is repeated, as long
        as nobody can be reached.
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
        wait_for_broker: float = 0.0,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._log = log
        #: Noted while locks are held, and logged at the level DEBUG when none is held.
        self.stations = stations or Stations(log)
        self._connect_timeout = connect_timeout
        self._connect = connect
        self._wait_for_broker = wait_for_broker
        self._reconnection = Reconnection(endpoints)
        self._connection: Connection | None = None
        self._waker = waker or Waker()
        self._loan = Loan(self._waker)
        #: True once the thread is asked to stop; never reset.
        self.kill = False
        # The result of the first attempt to connect: None, or the exception.
        self._opened: Future[None] = Future()
        disown_in_child(self)

    # --- what subclasses do with the connection; in this thread ---------------

    @abstractmethod
    def _on_open(self, connection: Connection) -> None:
        """Declare and consume the queues of this thread, on a new connection."""

    @abstractmethod
    def _write(self, connection: Connection) -> None:
        """Write the messages and acks that wait to be written."""

    @abstractmethod
    def _on_events(self, events: Sequence[Event]) -> None:
        """Handle events from the broker."""

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        """Handle the loss of the connection: messages under way have no known fate."""

    def _next_due(self) -> float | None:
        """Return the seconds until :meth:`_write` has to be called anyway; None for never."""
        return None

    def _read_delay(self) -> float:
        """Return the seconds for which data may stay unread, to be read together with more."""
        return 0.0

    def _before_close(self, connection: Connection) -> None:
        """Do the last work on a connection that is still open."""

    def _without_connection(self) -> float | None:
        """Do the work that needs no connection; return the seconds until there is more, or None."""
        return None

    def _on_end(self, error: BaseException | None) -> None:
        """Tell the threads that wait on this one that it ends; *error* is None after a stop."""

    # --- for other threads ----------------------------------------------------

    def start(self) -> None:
        """Start the thread; block until its connection is open.

        :raises QAMConnectionException: it can't be opened; the text says where and why.
        """
        self.begin()
        try:
            self.wait_until_open(Deadline(self.opening_time))
        except BaseException:
            self.exit()
            raise

    @property
    def opening_time(self) -> float:
        """Seconds that the first connection may take."""
        return self._connect_timeout + self._wait_for_broker

    def begin(self) -> None:
        """Start the thread; do not wait for its connection."""
        super().start()

    def wait_until_open(self, deadline: Deadline) -> None:
        """Block until the connection of this thread, which was started, is open.

        :param deadline: when to give up, and to ask the thread to stop.
        :raises QAMConnectionException: it can't be opened; the text says where and why.
        """
        try:
            # A little longer than the attempt may take, so that its own, more precise error
            # arrives first.
            self._opened.result((deadline.wait_time() or 0.0) + _ERROR_GRACE)
        except TimeoutError:
            self.ask_to_stop()
            raise QAMConnectionException(
                f"can't connect to the broker at {self._reconnection}: "
                f"no answer within {self.opening_time:g} seconds",
                executed="no",
            ) from None

    def exit(self) -> None:
        """Close the connection and end the thread; block until that is done.

        Blocks five seconds at most, and not at all when called by the thread itself.
        """
        self.ask_to_stop()
        self.join_until(Deadline(_EXIT_TIMEOUT))

    def join_until(self, deadline: Deadline) -> None:
        """Wait until the thread has ended; return at once when called by the thread itself."""
        if self.ident is not None and self is not threading.current_thread():
            self.join(deadline.wait_time())

    def _in_forked_child(self) -> None:
        """Give up the connection without sending anything; in a forked child."""
        self.kill = True
        self._loan.after_fork()
        if self._connection is not None:
            self._connection.detach()
            self._connection = None

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is this one, or has borrowed its connection or waker."""
        return self.is_in_the_middle or threading.current_thread() is self

    @property
    def is_in_the_middle(self) -> bool:
        """Whether the calling thread holds a lock of this one, as a finalizer inside it does."""
        return self._loan.is_here or self._waker.is_in_use_here

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._connection is not None

    @property
    def why_not_connected(self) -> str:
        """Why there is no connection; empty while there is one, or before the reason is known."""
        return self._reconnection.reason

    def wake(self) -> None:
        """Make this thread look for work; any thread may call it."""
        self._waker.wake()

    def look_again(self) -> None:
        """Make this thread read what came while it rested; any thread may call it, at any time."""
        connection = self._connection
        if connection is not None and connection.rests:
            self.wake()

    def _log_noted(self) -> None:
        """Log the stations that were noted while the connection was in use.

        A finalizer that runs while its thread holds a lock leaves that to the owner.
        """
        if self.stations.has_unlogged and not self.is_in_the_middle:
            self.stations.log()

    def ask_to_stop(self) -> None:
        self.kill = True
        self.wake()

    # --- the loop -------------------------------------------------------------

    def run(self) -> None:
        """Own the connection until :meth:`exit` is called."""
        failure: BaseException | None = None
        try:
            self._own_connection()
        except BaseException as error:
            failure = error
        self._tell_end(failure)

    def _tell_end(self, failure: BaseException | None) -> None:
        """Tell whoever waits on this thread that it ends; *failure* is None after a stop."""
        with ExitStack() as steps:  # from the last to the first; each one, even if another raises
            steps.callback(self._end_opening, failure)
            steps.callback(self._waker.close)
            steps.callback(self._on_end, failure)
            if failure is not None and self._opened.done():
                self._log.error("%s died of an internal error", self.name, exc_info=failure)

    def _end_opening(self, failure: BaseException | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(
                failure or QAMConnectionException("the thread was stopped before it had connected")
            )

    def _own_connection(self) -> None:
        """Keep the connection open until the thread is asked to stop.

        :raises QAMConnectionException: the first attempt to connect failed.
        """
        connection: Connection | None = self._open_first()
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
        self._reconnection.is_news(str(error), time.monotonic())
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
        """Call *use* with the connection, in the calling thread; does not wait.

        :param use: returns whether it has used the connection.
        :param rest: whether the answers to *use* need not wake this thread.  The caller has to
            make sure that :meth:`look_again` is called when they may have become urgent.
        :returns: the result of *use*.  False if there is no connection, or it is in use: by this
            thread, by another one, or by the calling thread, which a finalizer has interrupted.
            True if *use* has lost the connection.
        """
        return not self.is_here and self._loan.borrow(partial(self._lend, use, rest))

    def _lend(self, use: Callable[[Connection], bool], rest: bool, connection: Connection) -> bool:
        due = self._due_at()
        done = use(connection)
        if done:
            self._hand_back(connection, due, rest)
        return done

    def _hand_back(self, connection: Connection, due: float, rest: bool) -> None:
        """Let this thread rest, or wake it if it has more to do, or before the time *due*."""
        has_to_wake = not connection.flush() or self._due_at() < due - _ROUNDING
        if has_to_wake or (connection.rests and not rest):
            self.wake()
        elif rest:
            connection.rest()

    def _due_at(self) -> float:
        """Return when there is something to do, on the monotonic clock; infinite for never."""
        due = self._next_due()
        return math.inf if due is None else time.monotonic() + due

    def _work(self, connection: Connection) -> float | None:
        """Do all work that is due; return the seconds until there is more, None for never."""
        self._on_events(connection.read())
        self._write(connection)
        congested = connection.congested
        connection.flush()
        if congested and not connection.congested:
            self.wake()  # to write the messages that waited for room
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

    def _open_first(self) -> Connection:
        """Connect; try again for a while where nobody can be reached, as a broker that starts."""
        end = Deadline(self._wait_for_broker)
        while True:
            try:
                return self._open()
            except QAMConnectionException as error:
                if error.refused or end.expired or self.kill:
                    raise
                self._reconnection.is_news(str(error), time.monotonic())
                self._log.debug("%s; trying again", error)
            pause = self._reconnection.pause_after_failure()
            self._pause(min(pause, end.remaining() or 0.0))

    def _open_again(self) -> Connection | None:
        """Connect again, with growing pauses between attempts; return None if asked to stop."""
        self._pause(self._reconnection.pause_after_loss(time.monotonic()))
        while not self.kill:
            try:
                connection = self._open()
            except QAMConnectionException as error:
                news = self._reconnection.is_news(str(error), time.monotonic())
                self._log.log(logging.WARNING if news else logging.DEBUG, "%s; trying again", error)
                self._pause(self._reconnection.pause_after_failure())
            else:
                self._log.info("connected again to the broker at %s", self._reconnection)
                return connection
        return None

    def _pause(self, seconds: float) -> None:
        """Wait for *seconds*, even if woken; meanwhile do only work that needs no connection."""
        deadline = Deadline(seconds)
        while True:
            due = self._without_connection()
            if self.kill or deadline.expired:
                return
            self._waker.wait(sooner(deadline.wait_time(), due))
            self._waker.clear()
