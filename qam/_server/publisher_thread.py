"""The thread of a server that sends replies."""

import time
from collections.abc import Callable
from logging import DEBUG
from typing import cast

from qam._broker.connect import Connect, connect
from qam._broker.connection import Connection
from qam._broker.credentials import AMQPCredentials
from qam._broker.fates import Fate
from qam._broker.messages import Publish
from qam._broker.publishing_thread import PublishingThread
from qam._common.deadline import sooner
from qam._common.logs import get_logger
from qam._protocol.entities import request_binding
from qam._server.dropped_replies import DroppedReplies
from qam._server.mailboxes import ResultQueue, SettledCalls
from qam._server.messages import Message, declare_server
from qam._server.recently_written import RecentlyWritten
from qam._server.reply_fates import Announce, Decision, Drop, ReplyFates, SendAgain, Settle
from qam._server.settings import ServerSettings
from qam.exceptions import QAMConnectionException

log = get_logger("qam.qam_server")


class ReplyPublisherThread(PublishingThread):
    """Sends the replies in the result queue; a call is settled when its reply is confirmed.

    :param credentials: where to connect.
    :param settings: the settings of the server.
    :param results: the result queue.
    :param settled: takes the calls whose replies are confirmed.
    :param ended: called at the end of this thread, with the error that ended it, or None.
    :param connect: opens a connection to one of the brokers.
    """

    def __init__(
        self,
        credentials: AMQPCredentials,
        settings: ServerSettings,
        results: ResultQueue,
        settled: SettledCalls,
        ended: Callable[[BaseException | None], None],
        connect: Connect = connect,
    ) -> None:
        name = f"qam server ReplyPublisherThread {settings.server_id}"
        endpoints, timeout = credentials.endpoints(), settings.connect_timeout
        super().__init__(name, endpoints, log, timeout, results.waker, settings.stations, connect)
        self._settings = settings
        self._results = results
        self._settled = settled
        # When the consumer is woken to acknowledge settled calls; None if it need not be.
        self._acknowledge_at: float | None = None
        self._ended = ended
        # A dead connection is noticed after two heartbeats; the third is a margin.
        self._recent = RecentlyWritten(3.0 * credentials.heartbeat)
        self._fates = ReplyFates(settings.serializer, self._later)
        self._dropped = DroppedReplies(log)

    @property
    def result_queue(self) -> list[Publish]:
        """The messages that are not written yet, oldest first."""
        return self._results.messages

    def add_reply_to_send(self, reply: Message) -> None:
        """Append a message to the result queue; does not wait for it to be sent."""
        self._results.put(reply)

    def send_lone(self, reply: Message) -> None:
        """Write a reply at once, in the calling thread: no other reply is expected soon."""
        if not self._write_now(lambda: reply):
            self._results.put(reply)

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        declare_server(connection, self._settings.server_id, self._settings.queue_arguments)
        connection.confirm(also_plain=True)

    def _next_batch(self, alone: bool) -> list[Publish]:
        return self._results.take(alone)

    def _has_more(self) -> bool:
        return bool(self._results.messages)

    def _send_first(self, items: list[Message]) -> None:
        self._results.put_first(items)

    def _on_write(self, messages: list[Publish]) -> None:
        if log.isEnabledFor(DEBUG):
            for message in cast(list[Message], messages):
                self._note_written(message)

    def _note_written(self, message: Message) -> None:
        if message.is_reply or message.call is not None:  # else it is a word to the siblings
            name = "replied" if message.is_reply else "published anew, to be run again"
            self.stations.note(name, message.properties.get("correlation_id"))

    # --- the fates of messages --------------------------------------------------

    def _on_fate(
        self, fate: Fate, messages: list[Publish], error: QAMConnectionException | None = None
    ) -> list[Message]:
        now = time.monotonic()
        match fate:
            case Fate.WRITTEN:
                self._recent.add(messages, now)
            case Fate.CULPRIT:
                log.warning("the broker refuses a reply: %s", error)
        sent = cast(list[Message], messages)  # this connection writes no others
        return self._carry_out(self._fates.decide(fate, sent, now, error), now)

    def _carry_out(self, decisions: list[Decision], now: float) -> list[Message]:
        """Carry out *decisions*; return the messages that are to be sent again at once."""
        again = []
        for decision in decisions:
            match decision:
                case Settle(calls):
                    self._settled.put(calls)
                    if self._acknowledge_at is None:
                        self._acknowledge_at = now + self._settled.patience
                case SendAgain(message, after) if after:
                    self._send_later(message, after)
                case SendAgain(message):
                    again.append(message)
                case Drop(message):
                    self._drop(message)
                case Announce(number):
                    self._settled.announce(number)
        return again

    def _drop(self, message: Message) -> None:
        """Drop a reply; one warning is logged for all that are dropped together for one client."""
        self._dropped.count(message.route.routing_key)
        if self._under_way.in_flight == 0:
            self._dropped.log_warnings()

    def _take_unknown(self, error: QAMConnectionException) -> list[Publish]:
        messages = self._recent.take_all(time.monotonic())
        if error.by_message:  # the broker closed the channel, perhaps because of one of these
            for message in messages:
                message.confirm = True
        return messages

    def _write(self, connection: Connection) -> None:
        if self._acknowledge_at is not None and time.monotonic() >= self._acknowledge_at:
            self._wake_consumer()
        super()._write(connection)

    def _wake_consumer(self) -> None:
        self._acknowledge_at = None
        self._settled.waker.wake()

    def _next_due(self) -> float | None:
        due = super()._next_due()
        if self._acknowledge_at is None:
            return due
        return sooner(due, max(0.0, self._acknowledge_at - time.monotonic()))

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        super()._on_lost(connection, error)
        self._wake_consumer()  # now: the next _write may come much later

    def _before_close(self, connection: Connection) -> None:
        while self._results.messages and not (self._blocked or connection.congested):
            batch = self._next_batch(alone=False)
            self._on_write(batch)
            connection.write(batch)
        if self._recent.take_all(time.monotonic()) and not self._blocked:
            # The answer shows that the broker has received all earlier messages.
            connection.inspect_queue(request_binding(self._settings.server_id).queue)

    def _on_end(self, error: BaseException | None) -> None:
        try:
            for message in self._later.items():
                if message.is_reply:  # else it is a request published anew, or a word to siblings
                    self._dropped.count(message.route.routing_key)
            self._dropped.log_warnings()
        finally:
            self._ended(error)
