"""The thread of a server that sends."""

import threading
import time
from collections.abc import Callable

from qam._broker.connection import Connection
from qam._broker.credentials import AMQPCredentials
from qam._broker.fates import Fate
from qam._broker.messages import Publish, batch_length
from qam._broker.publishing_thread import PublishingThread
from qam._common.deadline import sooner
from qam._common.logs import get_logger
from qam._protocol.entities import request_binding
from qam._serialization.serializers import Serializer
from qam._server.call import Call
from qam._server.dropped_replies import DroppedReplies
from qam._server.messages import Messages, declare_server
from qam._server.recently_written import RecentlyWritten
from qam._server.reply_fates import Decision, Drop, ReplyFates, SendAgain, Settle
from qam.exceptions import QAMConnectionException

log = get_logger("qam.qam_server")

#: Seconds for which a settled call waits to be acknowledged with others.
_ACKS_PATIENCE = 0.005


class PublisherThread(PublishingThread):
    """Sends the replies in the result queue; a call is settled when its reply is confirmed.

    :param messages: makes the messages of the server.
    :param arguments: what the request queue is declared with.
    :param settle: takes the calls whose replies the broker has.
    :param acknowledge: has the settled calls acknowledged.
    :param ended: told of the end of this thread, and of the error that led to it.
    """

    def __init__(
        self,
        credentials: AMQPCredentials,
        server_id: str,
        serializer: Serializer,
        messages: Messages,
        arguments: dict[str, object],
        *,
        settle: Callable[[list[Call]], None],
        acknowledge: Callable[[], None],
        ended: Callable[[BaseException | None], None],
        connect_timeout: float,
    ) -> None:
        name = f"qam server PublisherThread {server_id}"
        super().__init__(name, credentials, log, connect_timeout)
        self._server_id = server_id
        self._arguments = arguments
        self._settle = settle
        self._acknowledge = acknowledge
        # When the calls that were settled of late are to be acknowledged.
        self._acknowledge_at: float | None = None
        self._ended = ended
        #: The messages that are not written yet, oldest first.
        self.result_queue: list[Publish] = []
        # Guards result_queue.
        self._queue_lock = threading.Lock()
        # Twice the heartbeat, after which a dead connection is noticed, and some.
        self._recent = RecentlyWritten(3.0 * credentials.heartbeat)
        self._fates = ReplyFates(messages, serializer, self._later)
        self._dropped = DroppedReplies(log)

    def send_lone(self, reply: Publish) -> None:
        """Send a reply at once, in the thread that calls: no other is to be expected soon."""
        if not self._write_now(lambda: reply):
            self.add_reply_to_send(reply)

    def add_reply_to_send(self, reply: Publish) -> None:
        """Append a message to the result queue; does not wait for it to be sent."""
        with self._queue_lock:
            self.result_queue.append(reply)
            first = len(self.result_queue) == 1
        if first:  # for the others this thread is awake, or comes back to them by itself
            self.wake()

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        declare_server(connection, self._server_id, self._arguments)
        connection.confirm(also_plain=True)

    def _next_batch(self, alone: bool) -> list[Publish]:
        if not self.result_queue:  # what comes after this look comes with a wake
            return []
        with self._queue_lock:
            length = batch_length(message.body for message in self.result_queue)
            batch = self.result_queue[: min(length, 1) if alone else length]
            del self.result_queue[: len(batch)]
        return batch

    def _has_more(self) -> bool:
        return bool(self.result_queue)

    def _send_first(self, items: list[Publish]) -> None:
        with self._queue_lock:
            self.result_queue[:0] = items

    # --- what becomes of a message ----------------------------------------------

    def _on_fate(
        self, fate: Fate, messages: list[Publish], error: QAMConnectionException | None = None
    ) -> list[Publish]:
        now = time.monotonic()
        match fate:
            case Fate.WRITTEN:
                self._recent.add(messages, now)
            case Fate.CULPRIT:
                log.warning("the broker refuses a reply: %s", error)
        return self._carry_out(self._fates.decide(fate, messages, now, error), now)

    def _carry_out(self, decisions: list[Decision], now: float) -> list[Publish]:
        """Do what was decided; return the messages that are to be sent again at once."""
        again = []
        for decision in decisions:
            match decision:
                case Settle(calls):
                    self._settle(calls)
                    if self._acknowledge_at is None:
                        self._acknowledge_at = now + _ACKS_PATIENCE
                case SendAgain(message, after) if after:
                    self._send_later(message, after)
                case SendAgain(message):
                    again.append(message)
                case Drop(message):
                    self._drop(message)
        return again

    def _drop(self, message: Publish) -> None:
        """Give a reply up; told once for all that go to the same client at the same time."""
        self._dropped.count(message.route.routing_key)
        if self._under_way.in_flight == 0:
            self._dropped.tell()

    def _take_unknown(self, error: QAMConnectionException) -> list[Publish]:
        messages = self._recent.take_all(time.monotonic())
        if error.by_message:  # the broker closed the channel for one, perhaps of these
            for message in messages:
                message.confirm = True
        return messages

    def _write(self, connection: Connection) -> None:
        if self._acknowledge_at is not None and time.monotonic() >= self._acknowledge_at:
            self._have_acknowledged()
        super()._write(connection)

    def _have_acknowledged(self) -> None:
        self._acknowledge_at = None
        self._acknowledge()

    def _next_due(self) -> float | None:
        due = super()._next_due()
        if self._acknowledge_at is None:
            return due
        return sooner(due, max(0.0, self._acknowledge_at - time.monotonic()))

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        super()._on_lost(connection, error)
        self._have_acknowledged()  # the next turn may be far

    def _before_close(self, connection: Connection) -> None:
        while self.result_queue and not (self._blocked or connection.congested):
            connection.write(self._next_batch(alone=False))
        if self._recent.take_all(time.monotonic()) and not self._blocked:
            # An answer tells that the broker has all that was written before.
            connection.look(request_binding(self._server_id).queue)

    def _on_end(self, error: BaseException | None) -> None:
        for message in self._later.items():
            self._dropped.count(message.route.routing_key)
        self._dropped.tell()
        self._ended(error)
