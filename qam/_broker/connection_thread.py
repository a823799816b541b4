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
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from qam._broker.connect import CONNECT_TIMEOUT, Connect, connect, connect_first
from qam._broker.connection import Connection
from qam._broker.endpoint import Endpoint
from qam._broker.events import Event
from qam._broker.waker import Waker
from qam._common.deadline import Deadline, backoff, sooner
from qam._common.fork import disown_in_child
from qam.exceptions import QAMConnectionException

#: Seconds before the second, and at most before any, attempt to connect again.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 1.0
#: Seconds after which a connection is known to be of use.
_SHORT_LIFE = 1.0
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
    :param connect: opens a connection to one of *endpoints*.
    """

    def __init__(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        log: logging.Logger,
        connect_timeout: float = CONNECT_TIMEOUT,
        waker: Waker | None = None,
        connect: Connect = connect,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._endpoints = tuple(endpoints)
        self._log = log
        self._connect_timeout = connect_timeout
        self._connect = connect
        # Expires when the connection has lasted; and how many before it did not.
        self._lasted = Deadline(0.0)
        self._short_lives = 0
        # How many of them are passed over at first.
        self._skipped_endpoints = 0
        self._connection: Connection | None = None
        # Held by whoever uses the connection: this thread while it works, another while it
        # borrows.  It guards what belongs to the connection, and the three below.
        # Reentrant, because a finalizer that stops this thread may run inside.
        self._in_use: Any = threading.RLock()
        self._lent: Connection | None = None
        # Somebody borrows the connection; if nobody does, Ctrl-C has struck them in the
        # middle, and how much they have read or written is not known.
        self._borrowed = False
        # The loss of the connection that a borrower noticed, and leaves to this thread.
        self._loss_noticed: QAMConnectionException | None = None
        self._waker = waker or Waker()
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

    def _on_end(self, error: BaseException | None) -> None:
        """The thread ends, because of *error* or because it was asked to: tell who waits on it."""

    # --- what other threads may call ------------------------------------------

    def start(self) -> None:
        """Start the thread; return when its connection is open.

        :raises QAMConnectionException: it can't be opened; says where and why.
        """
        super().start()
        try:
            # One second more than the attempt gets: its own, more precise error comes first.
            self._opened.result(Deadline(self._connect_timeout + 1).wait_time())
        except TimeoutError:
            self.ask_to_stop()
            raise QAMConnectionException(
                f"can't connect to the broker at {self._where}: "
                f"no answer within {self._connect_timeout:g} seconds",
                executed="no",
            ) from None
        except BaseException:
            self.exit()
            raise

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
        self._in_use = threading.RLock()
        self._lent = None
        if self._connection is not None:
            self._connection.detach()
            self._connection = None

    @property
    def is_here(self) -> bool:
        """Whether the thread that asks is this one, or does its work at this moment."""
        in_the_middle = self._in_use._is_owned() or self._waker.is_in_use_here
        return in_the_middle or threading.current_thread() is self

    def wake(self) -> None:
        """Make the owner look for work."""
        self._waker.wake()

    def look_again(self) -> None:
        """Read what came while this thread rests; any thread may call it, at any time."""
        connection = self._connection
        if connection is not None and connection.rests:
            self.wake()

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
            connection = self._serve(connection)

    def _serve(self, connection: Connection) -> Connection | None:
        """Run *connection* to its end; return its successor, None if there is to be none."""
        try:
            self._use_until_stopped(connection)
            self._before_close(connection)
        except QAMConnectionException as error:
            if self.kill:
                return None
            self._log.warning("%s; connecting again", error)
            self._on_lost(connection, error)
            if not error.by_message:
                self._skipped_endpoints += 1
        finally:
            self._connection = None
            connection.close()
        self._pause_after_short_life()
        return None if self.kill else self._open_again()

    def _pause_after_short_life(self) -> None:
        """Pause where one connection after the other is of no use, although each can be opened."""
        if self._lasted.expired:
            self._short_lives = 0
            return
        if self._short_lives:
            self._pause(backoff(self._short_lives, _FIRST_BACKOFF, _LONGEST_BACKOFF))
        self._short_lives += 1

    def _use_until_stopped(self, connection: Connection) -> None:
        try:
            while not self.kill:
                self._work_and_wait(connection)
        finally:
            self._stop_lending()

    def _work_and_wait(self, connection: Connection) -> None:
        with self._in_use:
            self._check_after_borrowers()
            wait_time = self._work(connection)
            self._lent = connection
        if not self.kill:
            connection.wait(wait_time, self._waker, self._read_delay())

    def _check_after_borrowers(self) -> None:
        """Look at what the borrowers left.

        :raises QAMConnectionException: the connection is lost, or in a state that nobody knows.
        """
        if self._loss_noticed is not None:
            raise self._loss_noticed
        if self._borrowed:
            raise QAMConnectionException("a caller was interrupted while using the connection")

    def _stop_lending(self) -> None:
        with self._in_use:
            self._lent, self._borrowed, self._loss_noticed = None, False, None

    def _borrow(self, use: Callable[[Connection], bool], rest: bool = False) -> bool:
        """Call *use* with the connection, in the thread that calls; return what it returns.

        Returns False if the connection is not there, or somebody uses it at this moment: this
        thread, another one, or the same one, of which a finalizer has taken hold.  Returns
        True if the connection is lost by that.  Does not wait.

        :param use: returns whether it has used the connection.
        :param rest: what comes because of that need not wake this thread.  Whoever calls sees
            to it that :meth:`look_again` is called when it may have become urgent.
        """
        if self.is_here:
            return False
        try:
            # Inside, because Ctrl-C may strike as soon as it is acquired.
            free = self._in_use.acquire(blocking=False)
            if not free or self._lent is None or self._borrowed or self._loss_noticed:
                return False
            return self._lend(self._lent, use, rest)
        finally:
            try:  # without a call before it, for the same reason  # noqa: SIM105
                self._in_use.release()
            except RuntimeError:  # it is another's
                pass

    def _lend(self, connection: Connection, use: Callable[[Connection], bool], rest: bool) -> bool:
        self._borrowed = True  # until the end, which Ctrl-C may prevent
        try:
            due = self._due_at()
            done = use(connection)
            if done:
                self._hand_back(connection, due, rest)
        except QAMConnectionException as error:
            self._loss_noticed, done = error, True
            self.wake()
        self._borrowed = False
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

    @property
    def _where(self) -> str:
        return " or ".join(map(str, self._endpoints))

    def _open(self) -> Connection:
        endpoints = deque(self._endpoints)
        endpoints.rotate(-self._skipped_endpoints)
        connection = connect_first(endpoints, self._connect_timeout, self._connect)
        self._connection = connection
        self._lasted = Deadline(_SHORT_LIFE)
        try:
            self._on_open(connection)
        except BaseException:
            self._connection = None
            connection.close()
            self._skipped_endpoints += 1
            raise
        return connection

    def _open_again(self) -> Connection | None:
        """Try to connect, at once and then ever more slowly, until it works."""
        failures = 0
        while not self.kill:
            try:
                connection = self._open()
            except QAMConnectionException as error:
                self._log.debug("%s", error)
                jitter = random.uniform(0.5, 1.0)  # no secret  # nosec B311
                self._pause(backoff(failures, _FIRST_BACKOFF, _LONGEST_BACKOFF) * jitter)
                failures += 1
            else:
                self._log.info("connected again to the broker at %s", self._where)
                return connection
        return None

    def _pause(self, seconds: float) -> None:
        """Wait, in spite of wakes for work that has to wait too."""
        deadline = Deadline(seconds)
        while not (self.kill or deadline.expired):
            self._waker.wait(deadline.wait_time())
            self._waker.clear()
