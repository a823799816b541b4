"""The thread of a server that sends."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from qam._broker.connection import Connection
from qam._broker.credentials import AMQPCredentials
from qam._broker.messages import Publish, batch_length
from qam._broker.publishing_thread import PublishingThread
from qam._common.deadline import backoff, sooner
from qam._common.logs import get_logger
from qam._protocol.entities import request_binding
from qam._protocol.properties import RESENT
from qam._protocol.replies import RESULT_NOT_SERIALIZABLE, internal_reply
from qam._serialization.serializers import Serializer
from qam._server.call import Answer, Call
from qam._server.messages import Messages, declare_server
from qam._server.recently_written import RecentlyWritten
from qam.exceptions import QAMConnectionException

log = get_logger("qam.qam_server")

#: Seconds for which a reply that nobody takes is sent again and again.
_PATIENCE = 60.0
#: Seconds before such a reply is sent again, first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
#: How many such replies are kept, and how many bytes of them.
_MAX_KEPT, _MAX_KEPT_BYTES = 10_000, 32 * 1024 * 1024
#: Of how many clients that are gone it is told at once that they are.
_MAX_TOLD = 20
#: Seconds for which a settled call waits to be acknowledged with others.
_ACKS_PATIENCE = 0.005


@dataclass(slots=True, eq=False)
class _Settled:
    """Context of a reply whose request is settled: what is still needed of that, which is freed."""

    request_id: Any
    like: bytes
    #: The broker has refused the reply.
    refused: bool
    #: Since when, and how often it was sent, where nobody takes it.
    since: float
    tries: int = 0


def _settled(call: Call, now: float) -> _Settled:
    return _Settled(call.request_id, call.like, call.refused, now)


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
        self._serializer = serializer
        self._messages = messages
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
        self._kept_bytes = 0
        # Twice the heartbeat, after which a dead connection is noticed, and some.
        self._recent = RecentlyWritten(3.0 * credentials.heartbeat)
        # How many replies were dropped, by where they were to go, since it was last told; None
        # for all others, where they are many.
        self._dropped: Counter[str | None] = Counter()

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

    def _on_writing(self, messages: list[Publish]) -> None:
        self._recent.add(messages)
        # Their requests are settled: there will be no other sign.
        self._done(messages)
        now = time.monotonic()
        for message in messages:
            if isinstance(message.context, Call):
                message.context = _settled(message.context, now)

    def _take_unknown(self, error: QAMConnectionException) -> list[Publish]:
        messages = self._recent.take_all()
        if error.by_message:  # the broker closed the channel for one, perhaps of these
            for message in messages:
                message.confirm = True
        return messages

    def _on_confirmed(self, messages: list[Publish]) -> None:
        self._done(messages)

    def _done(self, messages: list[Publish]) -> None:
        """Nothing more is to be done for what *messages* were sent for."""
        calls = [each.context for each in messages if isinstance(each.context, Call)]
        if not calls:
            return
        self._settle(calls)
        if self._acknowledge_at is None:
            self._acknowledge_at = time.monotonic() + _ACKS_PATIENCE

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

    def _on_returned(self, message: Publish) -> None:
        self._keep(message)

    def _on_refused(self, message: Publish) -> None:
        if self._messages.is_reply(message):
            self._keep(message)
        else:  # a request that was not started, or a word to other servers: it has to arrive
            self._send_later(message, _LONGEST_PAUSE / 10)

    def _keep(self, message: Publish) -> None:
        """Send a reply again later: its client may declare its queue again.

        Its request is settled now; else the requests of one client that is gone would
        be all that this server holds.
        """
        context = message.context
        if isinstance(context, Call):
            self._done([message])
            context = message.context = _settled(context, time.monotonic())
        if context is None or self._is_to_be_dropped(context):
            self._drop(message)
            return
        self._send_later(message, backoff(context.tries, _FIRST_PAUSE, _LONGEST_PAUSE))
        context.tries += 1

    def _is_to_be_dropped(self, undelivered: _Settled) -> bool:
        patience_ended = time.monotonic() - undelivered.since > _PATIENCE
        too_many = len(self._later) >= _MAX_KEPT or self._kept_bytes > _MAX_KEPT_BYTES
        return patience_ended or too_many

    def _send_later(self, item: Publish, seconds: float) -> None:
        self._kept_bytes += len(item.body)
        super()._send_later(item, seconds)

    def _take_due(self) -> list[Publish]:
        due = super()._take_due()
        self._kept_bytes -= sum(len(message.body) for message in due)
        return due

    def _drop(self, message: Publish) -> None:
        """Give a reply up; told once for all that go to the same client at the same time."""
        self._count_dropped(message)
        if self._in_flight == 0:
            self._tell_dropped()

    def _count_dropped(self, message: Publish) -> None:
        key = message.route.routing_key
        is_one_of_few = key in self._dropped or len(self._dropped) < _MAX_TOLD
        self._dropped[key if is_one_of_few else None] += 1

    def _tell_dropped(self) -> None:
        for key, number in self._dropped.items():
            if key is None:
                log.warning("%d replies to other clients could not be delivered either", number)
            else:
                log.warning(
                    "%d replies could not be delivered: their client (%r) is gone", number, key
                )
        self._dropped.clear()

    def _on_unconfirmed(
        self, messages: list[Publish], error: QAMConnectionException
    ) -> list[Publish]:
        # Whether they arrived is open; a reply that arrives twice is dropped by its client.
        # A request that is given back is not: another server may have it by now.
        for message in messages:
            if isinstance(message.context, Call) and not self._messages.is_reply(message):
                headers = message.properties["headers"]
                message.properties["headers"] = {RESENT: 0, **headers}
        return messages

    def _on_culprit(self, message: Publish, error: QAMConnectionException) -> None:
        log.warning("the broker refuses a reply: %s", error)
        context = message.context
        if context is not None and self._messages.is_reply(message) and not context.refused:
            context.refused = True  # if the next one is refused too, there is no more to say
            self._send_first([self._in_place_of(message, context, str(error))])
        elif isinstance(context, Call):
            context.answer = None
            self._settle([context])

    def _in_place_of(self, reply: Publish, to: Call | _Settled, why: str) -> Publish:
        text = f"the broker refuses the result: {why}"
        failure = internal_reply(to.request_id, RESULT_NOT_SERIALIZABLE, text)
        body = self._serializer.encode(failure, to.like)
        if isinstance(to, Call):
            to.answer = Answer(reply.route.routing_key, body)
        return replace(reply, body=body)

    def _before_close(self, connection: Connection) -> None:
        while self.result_queue and not (self._blocked or connection.congested):
            connection.write(self._next_batch(alone=False))
        if self._recent.take_all() and not self._blocked:
            # An answer tells that the broker has all that was written before.
            connection.look(request_binding(self._server_id).queue)

    def _on_end(self, error: BaseException | None) -> None:
        for _, _, message in self._later:
            self._count_dropped(message)
        self._tell_dropped()
        self._ended(error)
