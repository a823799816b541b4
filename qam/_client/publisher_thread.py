"""The thread of a proxy that sends requests."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from logging import DEBUG
from typing import Any

from qam._broker.connect import CONNECT_TIMEOUT, Connect, connect
from qam._broker.connection import Connection
from qam._broker.credentials import AMQPCredentials
from qam._broker.fates import Fate
from qam._broker.messages import MAX_MESSAGE_BYTES, Publish
from qam._broker.publishing_thread import PublishingThread
from qam._client.call_fates import (
    CallFates,
    Decision,
    Done,
    End,
    SendAgain,
    queue_is_full,
    thread_ended,
    timed_out,
)
from qam._client.call_options import CallOptions
from qam._client.call_stations import CallStations
from qam._client.method_queue import MethodQueue
from qam._client.pending_call import PendingCall
from qam._client.request_maker import RequestMaker
from qam._client.result_list import FailureFactory, ResultList
from qam._common.deadline import NO_END, Deadline
from qam._common.logs import get_logger
from qam._serialization.serializers import Serializer, as_serializer
from qam.exceptions import (
    QAMConnectionException,
    QAMTimeoutException,
)

log = get_logger("qam.qam_proxy")

#: The outcome of a call for whose reply nobody waits.
_NOTHING = {"result": None}
_NO_SLOT_YET = -1
#: Seconds between two questions whether the request queue exists.
_ASK_INTERVAL = 1.0


class PublisherThread(PublishingThread):
    """Sends the requests in the method queue to the server; sleeps while there are none.

    :param amqp_credentials: where to connect, an :class:`~qam.amqp_credentials.AMQPCredentials`.
    :param server_id: the server to which requests are sent.
    :param client_id: names the routing key by which replies come back.
    :param serializer: ``'pickle'``, ``'json'`` or ``'msgpack'``, as the server is configured.
    :param results: the result list for the outcomes; by default one of its own.
    :param max_queued: how many calls may wait to be written; None for any number.
    :param connect_timeout: seconds that connecting may take.
    :param wait_for_broker: seconds for which the first attempt to connect is repeated.
    :param max_message_bytes: the size of the largest request, in bytes.
    :param persistent: whether the broker keeps requests and replies.  If not, no request is
        sent while the reply queue is not being consumed: its reply would be lost.
    :param user: as whom the requests say that they are sent; None if they do not say.
    :param connect: opens a connection to one of the brokers.
    """

    def __init__(
        self,
        amqp_credentials: AMQPCredentials,
        server_id: str,
        client_id: str,
        serializer: str | Serializer,
        *,
        results: ResultList | None = None,
        max_queued: int | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        wait_for_broker: float = 0.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        persistent: bool = True,
        user: str | None = None,
        connect: Connect = connect,
    ) -> None:
        name = f"qam PublisherThread {client_id}"
        results = results or ResultList()
        stations = CallStations(log, client_id, results, persistent)
        endpoints = amqp_credentials.endpoints()
        super().__init__(
            name,
            endpoints,
            log,
            connect_timeout,
            stations=stations,
            connect=connect,
            wait_for_broker=wait_for_broker,
        )
        self.stations: CallStations = stations
        self.amqp_credentials = amqp_credentials
        self.server_id = server_id
        self.client_id = client_id
        #: The result list, which gets the outcomes.
        self.results = results
        self._persistent = persistent
        # Whether the request queue was there when the broker was asked last, and when next.
        self._is_there, self._ask_at = False, -math.inf
        self._queue = MethodQueue(self.results, max_queued, held=not persistent)
        self._requests = RequestMaker(
            server_id, client_id, as_serializer(serializer), max_message_bytes, persistent, user
        )
        self._fates = CallFates(server_id, amqp_credentials, persistent)

    @property
    def method_queue(self) -> list[PendingCall]:
        """The calls that wait to be written: first those to be sent again, then by age."""
        return self._queue.calls

    @property
    def publisher(self) -> Connection | None:
        """The connection of this thread, which sends the requests; None while there is none."""
        return self._connection

    @property
    def is_in_the_middle(self) -> bool:
        """True if the calling thread holds a lock of this thread, its queue or its result list."""
        here = super().is_in_the_middle or self._queue.is_in_use_here
        return here or self.results.is_in_use_here

    @property
    def queued_calls(self) -> int:
        """How many calls wait to be written; a moment's view."""
        return self._queue.waiting

    # --- calls ------------------------------------------------------------------

    def add_message_to_send(self, message: Mapping[str, Any]) -> PendingCall:
        """Make a call from a message, and append it to the method queue; see ``send``.

        :param message: a dict of ``id`` (the slot, from
            :meth:`ConsumerThread.get_free_result_list_id`), ``method_name`` (str),
            ``routing_key`` (str, of the reply; ``<client_id>_client_routing_key`` stands
            for this proxy) and ``params`` (a list); and, if the call has one, its
            ``deadline``.
        :returns: the call as it stands in the queue.
        :raises QAMSerializationException: *params* can't be encoded; nothing is sent.
        :raises QAMClosedException: the proxy is closed.
        :raises QAMTimeoutException: as ``send``.
        """
        call = self.begin_call(
            message["id"],
            message["method_name"],
            message["params"],
            {},
            message["routing_key"],
            message.get("deadline") or NO_END,
        )
        return self.send(call)

    def begin_call(
        self,
        slot_id: int,
        method_name: str,
        params: Sequence[Any],
        kwargs: dict[str, Any],
        routing_key: str,
        deadline: Deadline = NO_END,
    ) -> PendingCall:
        """Encode the request of a call, and register the call in its slot.

        :raises QAMSerializationException: the arguments can't be encoded.
        :raises QAMClosedException: the proxy is closed.
        :raises ValueError: the slot is not reserved.
        """
        call = self.make_call(method_name, params, kwargs, routing_key, deadline)
        call.slot_id = slot_id
        # From here on a reply, this thread or a close concludes it.
        self.results.begin(call)
        return call

    def make_call(
        self,
        method_name: str,
        params: Sequence[Any],
        kwargs: dict[str, Any],
        routing_key: str,
        deadline: Deadline,
        options: CallOptions = CallOptions(),  # noqa: B008 - it is immutable
        one_way: bool = False,
    ) -> PendingCall:
        """Encode the request of a call, which has no slot yet.

        :param one_way: whether nobody waits for a reply.
        :raises QAMSerializationException: the arguments can't be encoded.
        """
        call_id = self.results.new_call_id()
        body = self._requests.encode(call_id, method_name, params, kwargs, routing_key)
        call = PendingCall(_NO_SLOT_YET, call_id, method_name, body, deadline)
        if options.metadata is not None:
            call.metadata = options.current_metadata()
        if options.wait_for_server:
            call.awaits_server_until = time.monotonic() + options.wait_for_server
        call.one_way = one_way
        if kwargs:
            call.has_keywords = True
        return call

    def send(self, call: PendingCall, waits: bool = False) -> PendingCall:
        """Append a call to the method queue, or write its request at once; return the call.

        Does not wait for the request to be written.  Waits for room in the queue
        (``max_queued``), except for the call of a callback, which fails instead.

        :param waits: True if the calling thread waits for the outcome.  It has to call
            :meth:`look_again` if the outcome does not come soon, or when it stops waiting.
        :raises QAMTimeoutException: the queue was full until the deadline of the call.
        """
        if log.isEnabledFor(DEBUG):
            self.stations.queued(call)
            self._log_noted()
        if self.results.open_calls == 1 and self._write_lone(call, waits):
            return call
        is_callback = self.results.is_callback(call.slot_id)
        if self._queue.add(call, waits=not is_callback):
            self.wake()
        elif is_callback:
            failure = queue_is_full(call, self._queue.max_queued, self._phase(call))
            self.results.conclude(call.call_id, failure)
        elif call.deadline.expired:
            raise self.give_up(call)
        return call

    def _write_lone(self, call: PendingCall, waits: bool) -> bool:
        """Write the request of the only open call: it has no other to be batched with."""

        def make() -> Publish | None:
            if not self._queue.bypass(call):
                return None
            return self._requests.request(call, time.monotonic())

        # Only a caller that waits for long needs the confirm, and that one calls look_again.
        return self._write_now(make, rest=waits and self._persistent)

    def withdraw(self, call: PendingCall) -> bool:
        """Withdraw a call; return True if its request was not written and never will be."""
        return self._queue.withdraw(call)

    def abandon(self, call: PendingCall) -> None:
        """Withdraw a call whose caller does not wait any more, as after Ctrl-C in the middle."""
        self.look_again()
        self._queue.abandon(call)

    def note_end(self, call: PendingCall, error: BaseException) -> None:
        """Log that the caller of *call* gets *error* at once, and no outcome of it."""
        if log.isEnabledFor(DEBUG):
            self.stations.ended(call, f"by a {type(error).__name__}")

    def give_up(self, call: PendingCall) -> QAMTimeoutException:
        """Withdraw a call whose time is up; return the exception that it ends with."""
        withdrawn = self.withdraw(call)
        return timed_out(call, withdrawn, self._phase(call))

    def _phase(self, call: PendingCall) -> str:
        connected, can_receive = self._connection is not None, not self._queue.held
        why = self._reconnection.reason
        return self._fates.phase(call, connected, can_receive, self._blocked, why)

    def close_calls(self, failure: FailureFactory) -> None:
        """End every call with an exception of *failure*, and let none begin from now on.

        A request that was not written does not run: its exception says so.
        """
        # First: who is told that its call has ended may make another one at once.
        self.results.refuse_calls(failure)
        for call in self._queue.withdraw_all():
            self.results.conclude(call.call_id, failure("no"))
        self._close_results(failure)

    def end_calls(self, error: BaseException | None) -> None:
        """End every call, and let none begin: a thread of the proxy ended, perhaps by *error*."""
        self.close_calls(partial(thread_ended, error))

    def _close_results(self, failure: FailureFactory) -> None:
        self.results.close(failure)
        self._queue.wake_callers()

    # --- called by the ConsumerThread -------------------------------------------

    def hold_requests(self) -> None:
        """Send no request before replies can come."""
        self._queue.hold()

    def replies_can_come(self) -> None:
        """Send the queued requests: the reply queue is being consumed now."""
        if self._queue.held:
            self._queue.release()
            self.wake()

    def replies_lost(self) -> None:
        """Send requests again, or end their calls: the reply queue was deleted with its replies."""
        calls, keeps_record = self.results.pending_calls(), self.results.server_keeps_record
        self._queue.put_first(self._carry_out(self._fates.replies_lost(calls, keeps_record)))
        self.wake()

    def connection_lost(self, error: QAMConnectionException) -> None:
        """If messages are transient: end the sent calls, and hold the others for now."""
        if not self._persistent:
            self._end_written(self._queue.hold(), error)

    def _end_written(self, calls: list[PendingCall], error: QAMConnectionException) -> None:
        self._carry_out(self._fates.connection_lost(calls, error))

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        # Without the exchange the broker would close the channel for a request.  With it, and
        # without a queue, the broker returns the request.
        connection.declare_exchange(self._requests.route.exchange)
        if self._persistent:
            connection.confirm()

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        super()._on_lost(connection, error)
        self._end_written(self.results.pending_calls(), error)

    def _next_batch(self, alone: bool) -> list[Publish]:
        calls, now = self._queue.take(alone), time.monotonic()
        return [self._requests.request(call, now) for call in calls]

    def _on_write(self, messages: list[Publish]) -> None:
        if log.isEnabledFor(DEBUG):
            self.stations.written(message.context for message in messages)

    def _has_more(self) -> bool:
        return self._queue.has_more

    def _send_first(self, items: list[PendingCall]) -> None:
        self._queue.put_first(items)

    def _on_fate(
        self, fate: Fate, messages: list[Publish], error: QAMConnectionException | None = None
    ) -> list[PendingCall]:
        calls = [message.context for message in messages]
        keeps_record = self.results.server_keeps_record
        is_there = fate is Fate.RETURNED and keeps_record is None and self._has_request_queue()
        now = time.monotonic()
        decisions = self._fates.decide(fate, calls, keeps_record, error, is_there, now)
        # After decide(), which marks confirmed calls: that tells which station is the last.
        if fate is not Fate.WRITTEN and log.isEnabledFor(DEBUG):
            self.stations.have_fate(fate, calls)
        return self._carry_out(decisions)

    def _has_request_queue(self) -> bool:
        """Return True if the request queue is there: somebody has deleted exchange or binding.

        Asked at most once a second, since many requests may come back.
        """
        now = time.monotonic()
        if self._connection is not None and now >= self._ask_at:
            try:
                self._is_there = self._connection.has_queue(self._requests.queue)
            except QAMConnectionException:  # the requests are sent again on the next connection
                return True
            self._ask_at = now + _ASK_INTERVAL
        return self._is_there

    def _carry_out(self, decisions: list[Decision]) -> list[PendingCall]:
        """Carry out *decisions*; return the calls that are to be sent again at once."""
        again = []
        for decision in decisions:
            match decision:
                case End(call, failure):
                    self.results.conclude(call.call_id, failure)
                case Done(call):
                    self.results.conclude(call.call_id, _NOTHING)
                case SendAgain(call, after) if after:
                    self._send_later(call, after)
                case SendAgain(call):
                    again.append(call)
        return again

    def _on_unroutable(self, correlation_id: str | None) -> None:
        call = self.results.open_call(self._requests.call_id_of(correlation_id))
        if call is not None:
            self._carry_out([self._fates.unroutable(call, time.monotonic())])

    def _on_blocked(self) -> None:
        if self._blocked:
            log.warning("the broker has an alarm and accepts no messages; requests wait meanwhile")
        else:
            log.info("the broker's alarm is over; requests are sent again")

    def _on_end(self, error: BaseException | None) -> None:
        self.end_calls(error)

    def _in_forked_child(self) -> None:
        """In a forked child: make new locks, which nobody holds."""
        super()._in_forked_child()
        self._queue.renew_lock()
