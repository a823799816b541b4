"""The base of the two publishing threads, which follow each message up to its fate.

No message is lost with a connection: the messages that the broker has not confirmed come back
to the subclass, which decides whether to send them again.
"""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from qam._broker.connect import Connect, connect
from qam._broker.connection import Connection
from qam._broker.connection_thread import ConnectionThread
from qam._broker.endpoint import Endpoint
from qam._broker.events import Blocked, Confirmed, Event, Refused, Returned, Unroutable
from qam._broker.fates import Fate, UnderWay
from qam._broker.later import Later
from qam._broker.messages import Publish
from qam._broker.waker import Waker
from qam._common.stations import Stations
from qam.exceptions import QAMConnectionException

#: Seconds for which a confirm may stay unread, so that several confirms wake the threads once.
_CONFIRM_DELAY = 0.005


class PublishingThread(ConnectionThread):
    """Publishes waiting messages, many of them at once, and handles their fates."""

    def __init__(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        log: logging.Logger,
        connect_timeout: float,
        waker: Waker | None = None,
        stations: Stations | None = None,
        connect: Connect = connect,
        wait_for_broker: float = 0.0,
    ) -> None:
        super().__init__(
            name, endpoints, log, connect_timeout, waker, stations, connect, wait_for_broker
        )
        self._blocked = False
        self._under_way = UnderWay()
        # Items of the subclass's queue, calls or messages, that are sent after a delay.
        self._later: Later[Any] = Later()

    # --- for subclasses; called by the thread that uses the connection ----------

    @abstractmethod
    def _next_batch(self, alone: bool) -> list[Publish]:
        """Remove and return the next messages to write: a batch, or one message if *alone*."""

    @abstractmethod
    def _has_more(self) -> bool:
        """Return whether more messages wait to be written."""

    @abstractmethod
    def _send_first(self, items: list[Any]) -> None:
        """Put *items*, as :meth:`_on_fate` returns them, at the head of the queue."""

    @abstractmethod
    def _on_fate(
        self, fate: Fate, messages: list[Publish], error: QAMConnectionException | None = None
    ) -> list[Any]:
        """Do what follows from the *fate* of *messages*; return the items to send again at once.

        :param error: why the connection was lost, if it was.
        """

    def _on_unroutable(self, correlation_id: str | None) -> None:
        """Handle the return of a message without a confirm: no queue takes it."""

    def _take_unknown(self, error: QAMConnectionException) -> list[Publish]:
        """Return the messages without a confirm that may not have arrived."""
        return []

    def _on_blocked(self) -> None:
        """Handle the begin or the end of an alarm of the broker."""

    def _on_write(self, messages: list[Publish]) -> None:
        """Note that *messages* are about to be written."""

    # --- as owner of a connection ---------------------------------------------

    def _send_later(self, item: Any, seconds: float) -> None:
        """Send *item* after so many *seconds*, on the connection that is open then."""
        self._later.add(item, time.monotonic() + seconds)

    def _next_due(self) -> float | None:
        due = self._later.next_due()
        return None if due is None else max(0.0, due - time.monotonic())

    def _write(self, connection: Connection) -> None:
        if self._later and (due := self._later.take_due(time.monotonic())):
            self._send_first(due)
        if self._has_to_wait(connection) or self._under_way.has_to_wait:
            return  # an event ends either wait, and _write is called again after it
        if batch := self._next_batch(self._under_way.one_at_a_time):
            self._write_batch(connection, batch)
        if self._has_more():
            self.wake()  # to write the rest, after the next read

    def _has_to_wait(self, connection: Connection) -> bool:
        return self._blocked or connection.congested

    def _write_batch(self, connection: Connection, batch: list[Publish]) -> None:
        unconfirmed = [message for message in batch if not message.confirm]
        self._under_way.written(len(batch) - len(unconfirmed))
        if unconfirmed:
            self._on_fate(Fate.WRITTEN, unconfirmed)
        self._on_write(batch)
        connection.write(batch)

    def _write_now(self, make: Callable[[], Publish | None], rest: bool = False) -> bool:
        """Write one message in the calling thread; return False if this thread has to do it.

        :param make: returns the message; None if it can't be sent now.
        :param rest: whether its fate is not urgent; see :meth:`_borrow`.
        """

        def write(connection: Connection) -> bool:
            one_at_a_time = self._under_way.one_at_a_time
            if self._has_to_wait(connection) or one_at_a_time or self._has_more():
                return False
            message = make()
            if message is None:
                return False
            self._write_batch(connection, [message])
            return True

        written = self._borrow(write, rest)
        if written:
            self._log_noted()
        return written

    def _read_delay(self) -> float:
        under_way = self._under_way
        in_order = under_way.in_flight and not (under_way.one_at_a_time or self._blocked)
        return _CONFIRM_DELAY if in_order else 0.0

    def _on_events(self, events: Sequence[Event]) -> None:
        if self._take_in(events) and self._under_way.gives_up(time.monotonic()):
            raise QAMConnectionException("the broker refuses every message on this connection")

    def _take_in(self, events: Sequence[Event]) -> bool:
        """Handle *events*; return whether the broker refused a message."""
        refused = False
        for event in events:
            match event:
                case Confirmed():
                    self._end(Fate.CONFIRMED, event.messages)
                case Returned():
                    self._end(Fate.RETURNED, [event.message])
                case Refused():
                    self._end(Fate.REFUSED, [event.message])
                    refused = True
                case Unroutable():
                    self._on_unroutable(event.correlation_id)
                case Blocked():
                    self._blocked = event.blocked
                    self._on_blocked()
        return refused

    def _end(self, fate: Fate, messages: list[Publish]) -> None:
        self._under_way.ended(fate, len(messages))
        if again := self._on_fate(fate, messages):
            self._send_first(again)

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        self._take_in(connection.take_events())  # events that came just before the loss
        messages = connection.take_unconfirmed() + self._take_unknown(error)
        self._blocked = False
        fate = self._under_way.lost(len(messages), error.by_message)
        again = self._on_fate(fate, messages, error)
        if error.by_message and fate is Fate.UNKNOWN:
            self._under_way.suspect(len(again))
        self._send_first(again)
