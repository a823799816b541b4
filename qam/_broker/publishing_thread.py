"""What the two threads that publish share: to see to what becomes of each message.

Nothing that was handed over is lost with a connection: what the broker has not
confirmed by then comes back to its owner, who decides whether it is sent again.
"""

import heapq
import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from qam._broker.connection import Connection
from qam._broker.connection_thread import ConnectionThread
from qam._broker.credentials import AMQPCredentials
from qam._broker.events import Blocked, Confirmed, Event, Refused, Returned, Unroutable
from qam._broker.messages import Publish
from qam.exceptions import QAMConnectionException

#: Seconds of nothing but refusals after which a new connection is tried, first and at most.
_FIRST_PATIENCE, _LONGEST_PATIENCE = 1.0, 64.0
#: Seconds for which a confirm waits for others: each would wake two threads by itself.
_CONFIRMS_PATIENCE = 0.005


class PublishingThread(ConnectionThread):
    """Sends what waits; many messages are under way at once.

    A message for which the broker closes the channel takes all down that are under
    way with it.  Those that are sent again then go one at a time, until the one is
    found: the others have not to suffer from it twice.
    """

    def __init__(
        self,
        name: str,
        credentials: AMQPCredentials,
        log: logging.Logger,
        connect_timeout: float,
    ) -> None:
        super().__init__(name, credentials, log, connect_timeout)
        self._blocked = False
        self._in_flight = 0
        # How many messages, at the head of what waits, may be the one that the
        # broker closes the channel for.
        self._suspects = 0
        # Since when the broker has refused all that it was sent; and how long that is borne.
        self._refused_since: float | None = None
        self._refusals_borne = _FIRST_PATIENCE
        # What is to be sent at a later time: a heap of when, a tie-breaker, and what.
        self._later: list[tuple[float, int, Any]] = []
        self._later_number = count()

    # --- what its owner decides; by who uses the connection --------------------

    @abstractmethod
    def _next_batch(self, alone: bool) -> list[Publish]:
        """Take out what is to be written next: a batch, or one message *alone*."""

    @abstractmethod
    def _has_more(self) -> bool:
        """Whether more waits to be written."""

    @abstractmethod
    def _send_first(self, items: list[Any]) -> None:
        """Put *items* before all that waits: messages, or what was given to :meth:`_send_later`."""

    def _on_writing(self, messages: list[Publish]) -> None:
        """*messages*, of which no confirm will come, are about to be written."""

    def _take_unknown(self, error: QAMConnectionException) -> list[Publish]:
        """Return those that may not have arrived, of messages that wanted no confirm."""
        return []

    @abstractmethod
    def _on_confirmed(self, messages: list[Publish]) -> None:
        """The broker is responsible for *messages* now."""

    @abstractmethod
    def _on_returned(self, message: Publish) -> None:
        """No queue takes *message*."""

    def _on_unroutable(self, correlation_id: str | None) -> None:
        """No queue takes a message of which no confirm was asked for."""

    @abstractmethod
    def _on_refused(self, message: Publish) -> None:
        """The broker could not take *message*."""

    @abstractmethod
    def _on_unconfirmed(self, messages: list[Publish], error: QAMConnectionException) -> list[Any]:
        """The connection is lost, and with it the fate of *messages*; return what to send again."""

    @abstractmethod
    def _on_culprit(self, message: Publish, error: QAMConnectionException) -> None:
        """The broker closed the channel because of *message*."""

    # --- as owner of a connection ---------------------------------------------

    def _send_later(self, item: Any, seconds: float) -> None:
        """Have *item* sent after some time, on whatever connection there is then."""
        due = time.monotonic() + seconds
        heapq.heappush(self._later, (due, next(self._later_number), item))

    def _next_due(self) -> float | None:
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def _take_due(self) -> list[Any]:
        now, due = time.monotonic(), []
        while self._later and self._later[0][0] <= now:
            due.append(heapq.heappop(self._later)[2])
        return due

    def _write(self, connection: Connection) -> None:
        if self._later and (due := self._take_due()):
            self._send_first(due)
        alone = self._suspects > 0
        if self._has_to_wait(connection) or (alone and self._in_flight):
            return  # each ends with an event, after which we are here again
        if batch := self._next_batch(alone):
            self._write_batch(connection, batch)
        if self._has_more():
            self.wake()  # for what is left, after a look at what came

    def _has_to_wait(self, connection: Connection) -> bool:
        return self._blocked or connection.congested

    def _write_batch(self, connection: Connection, batch: list[Publish]) -> None:
        unconfirmed = [message for message in batch if not message.confirm]
        self._in_flight += len(batch) - len(unconfirmed)
        if unconfirmed:
            self._on_writing(unconfirmed)
        connection.write(batch)

    def _write_now(self, make: Callable[[], Publish | None], rest: bool = False) -> bool:
        """Write one message in the thread that calls; return False if this one has to do it.

        :param make: returns the message, None if it can't be sent now.
        :param rest: what becomes of it is not urgent; see :meth:`_borrow`.
        """

        def write(connection: Connection) -> bool:
            if self._has_to_wait(connection) or self._suspects or self._has_more():
                return False
            message = make()
            if message is None:
                return False
            self._write_batch(connection, [message])
            return True

        return self._borrow(write, rest)

    def _patience(self) -> float:
        in_order = self._in_flight and not (self._suspects or self._blocked)
        return _CONFIRMS_PATIENCE if in_order else 0.0

    def _on_events(self, events: Sequence[Event]) -> None:
        if self._take_in(events):
            self._bear_refusals()

    def _take_in(self, events: Sequence[Event]) -> bool:
        """See to what became of messages; return whether the broker refused one."""
        refused = False
        for event in events:
            if isinstance(event, Confirmed):
                self._refused_since, self._refusals_borne = None, _FIRST_PATIENCE
                self._arrived(len(event.messages))
                self._on_confirmed(event.messages)
            elif isinstance(event, Returned):
                self._arrived(1)
                self._on_returned(event.message)
            elif isinstance(event, Unroutable):
                self._on_unroutable(event.correlation_id)
            elif isinstance(event, Refused):
                self._arrived(1)
                self._on_refused(event.message)
                refused = True
            elif isinstance(event, Blocked):
                self._blocked = event.blocked
                self._on_blocked()
        return refused

    def _bear_refusals(self) -> None:
        """Ask for a new connection when this one is of no use.

        RabbitMQ may go on asking the dead leader of a quorum queue, on a channel that it
        has asked for it before: it refuses everything there, and nothing on a new one.
        """
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        if now - self._refused_since >= self._refusals_borne:
            self._refused_since = None
            self._refusals_borne = min(2 * self._refusals_borne, _LONGEST_PATIENCE)
            raise QAMConnectionException("the broker takes no message on this connection")

    def _arrived(self, number: int) -> None:
        self._in_flight -= number
        self._suspects = max(0, self._suspects - number)

    def _on_blocked(self) -> None:
        """The broker has an alarm, or has none any more."""

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        self._take_in(connection.take_events())  # what came just before the end
        messages = connection.take_unconfirmed() + self._take_unknown(error)
        self._in_flight, self._blocked = 0, False
        if error.by_message and len(messages) == 1:
            self._suspects = max(0, self._suspects - 1)
            self._on_culprit(messages[0], error)
            return
        again = self._on_unconfirmed(messages, error)
        if error.by_message:
            self._suspects = len(again)
        self._send_first(again)
