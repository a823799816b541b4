"""The thread of a proxy that sends."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qam._broker.connection import Connection
from qam._broker.fates import Fate
from qam._broker.messages import Publish, batch_length
from qam._broker.publishing_thread import PublishingThread
from qam._client.call_fates import (
    CallFates,
    Decision,
    End,
    SendAgain,
    age_if_written_before,
    queue_is_full,
    timed_out,
)
from qam._client.client_thread import ClientThread, log
from qam._client.pending_call import PendingCall
from qam._client.result_list import FailureFactory
from qam._common.deadline import NO_END, Deadline
from qam._common.error_texts import describe
from qam._protocol.correlation import correlation_id_of
from qam._protocol.entities import reply_routing_key, request_binding
from qam._protocol.properties import RESENT, expiration, properties
from qam._protocol.requests import apply_message
from qam.exceptions import (
    QAMConnectionException,
    QAMSerializationException,
    QAMTimeoutException,
)


class PublisherThread(ClientThread, PublishingThread):
    """Sends the messages in the method queue to the server; waits while there are none.

    :param amqp_credentials: where to connect, an :class:`~qam.amqp_credentials.AMQPCredentials`.
    :param server_id: the server to which messages are sent.
    :param client_id: names the routing key by which replies come back.
    :param serializer: ``'pickle'``, ``'json'`` or ``'msgpack'``, as the server is configured.
    """

    def _set_up(self) -> None:
        #: The calls that wait to be written, oldest first; before them those that are
        #: sent again.
        self.method_queue: list[PendingCall] = []
        #: How many messages may wait; None for any number.
        self.max_queued: int | None = None
        # Guards what is taken from method_queue, _withdrawn, and how often a message was
        # written.  Who makes a call appends without it, where there is room for any number;
        # so each section minds only the length that it has seen.  Reentrant, because a
        # finalizer of the application that makes a call may run inside.
        self._queue_lock: Any = threading.RLock()
        # Notified when there is room again, and when nobody needs to wait any more.
        self._room = threading.Condition(self._queue_lock)
        #: Whether a reply could be received; where nobody keeps it, nothing is sent without.
        self.can_receive: Callable[[], bool] = lambda: True
        self._withdrawn = 0  # how many in method_queue are not to be sent any more
        self._route = request_binding(self.server_id).route
        self._reply_key = reply_routing_key(self.client_id)
        self._properties = properties(self._serializer, self._persistent, reply_to=self._reply_key)
        self._label_key = reply_routing_key(self.client_id.rpartition(".")[0])
        self._fates = CallFates(self.server_id, self._credentials, self._persistent)

    @property
    def is_here(self) -> bool:
        """Whether the thread that asks is this one, or is in the middle of something of it."""
        return super().is_here or self._queue_lock._is_owned()

    @property
    def publisher(self) -> Connection | None:
        """What sends the messages: the connection of this thread, None while there is none."""
        return self._connection

    def add_message_to_send(self, message: Mapping[str, Any]) -> PendingCall:
        """Make a call of a message, and append it to the method queue; see :meth:`send`.

        :param message: a dict of ``id`` (the slot, from
            :meth:`ConsumerThread.get_free_result_list_id`), ``method_name`` (str),
            ``routing_key`` (str, where the reply goes; ``<client_id>_client_routing_key``
            stands for this proxy) and ``params`` (a list); and, if there is one, the
            ``deadline`` of the call.
        :returns: the call as it stands in the queue.
        :raises QAMSerializationException: *params* can't be encoded; nothing is sent.
        :raises QAMClosedException: the proxy is closed.
        :raises QAMTimeoutException: as :meth:`send`.
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
        """Encode the request of a call; from now on its outcome belongs into its slot.

        :raises QAMSerializationException: the arguments can't be encoded.
        :raises QAMClosedException: the proxy is closed.
        :raises ValueError: the slot is not reserved.
        """
        call_id = self._results.new_call_id()
        name, params = apply_message(method_name, params, kwargs)
        body = {
            "id": call_id,
            "method_name": name,
            "routing_key": self._reply_key if routing_key == self._label_key else routing_key,
            "params": params,
        }
        encoded = self._encode(method_name, body)
        call = PendingCall(slot_id, call_id, method_name, encoded, deadline)
        # From here on it is concluded by a reply, by us, or by a close.
        self._results.begin(call)
        return call

    def send(self, call: PendingCall, waits: bool = False) -> PendingCall:
        """Append a call to the method queue, or write it at once; return it.

        Does not wait for that, only for room in the queue (``max_queued``).

        :param waits: the thread that calls waits for the outcome then.  If that is not there
            soon, or not waited for any more, it calls :meth:`look_again`.
        :raises QAMTimeoutException: the queue was full until the deadline of the call.
        """
        if self._results.open_calls == 1 and self._write_lone(call, waits):
            return call
        if self.max_queued is None:
            self.method_queue.append(call)
        elif not self._append_if_room(call):
            return call
        self.wake()
        return call

    def _append_if_room(self, call: PendingCall) -> bool:
        with self._queue_lock:
            if self._is_full() and not self._find_room(call):
                return False
            self.method_queue.append(call)
            return True

    def _write_lone(self, call: PendingCall, waits: bool) -> bool:
        """Write the only call: there is none to be sent together with it."""

        def make() -> Publish | None:
            with self._queue_lock:
                if not self.can_receive():
                    return None
                call.times_written = 1
            return self._as_publish(call, time.monotonic())

        # A confirm is of use to who waits for long; who does looks again.
        return self._write_now(make, rest=waits and self._persistent)

    def _is_full(self) -> bool:
        waiting = len(self.method_queue) - self._withdrawn
        return self.max_queued is not None and waiting >= self.max_queued

    def _find_room(self, call: PendingCall) -> bool:
        """Wait for room in the queue, where the caller waits anyway; return whether there is."""
        if self._results.is_callback(call.slot_id):
            call.withdrawn = True  # it never was in the queue
            failure = queue_is_full(call, self.max_queued, self._phase(call))
            self._results.conclude(call.call_id, failure)
            return False
        deadline = call.deadline
        while self._is_full() and self._results.is_open(call.call_id):
            if not self._room.wait(deadline.wait_time()) and deadline.expired:
                call.withdrawn = True  # it never was in the queue
                self._room.notify()  # the wake that ended this wait may have been another's
                raise self.timed_out(call)
        return self._results.is_open(call.call_id)

    def _encode(self, method_name: str, body: dict[str, Any]) -> bytes:
        try:
            encoded = self._serializer.encode(body)
        except Exception as error:
            raise QAMSerializationException(
                f"the arguments of {method_name}() can't be encoded as "
                f"{self._serializer.name}: {describe(error)}"
            ) from error
        if len(encoded) > self._max_message_bytes:
            raise QAMSerializationException(
                f"the request {method_name}() has {len(encoded)} bytes, more than "
                f"max_message_bytes={self._max_message_bytes}"
            )
        return encoded

    def withdraw(self, call: PendingCall) -> bool:
        """Take back a call; return True if its request was not written and never will be."""
        with self._queue_lock:
            if call.times_written:
                return False
            if not call.withdrawn:
                call.withdrawn = True
                self._withdrawn += 1
                self._drop_withdrawn()
                self._room.notify()
        return True

    def _drop_withdrawn(self) -> None:
        # Only when they are the half of it: so each costs a constant time in the end,
        # and an outage in which every call times out does not fill the memory.
        if 2 * self._withdrawn >= len(self.method_queue):
            seen = len(self.method_queue)
            kept = [each for each in self.method_queue[:seen] if not each.withdrawn]
            self.method_queue[:seen] = kept
            self._withdrawn = 0

    def withdraw_all(self, failure: FailureFactory) -> None:
        """End each call whose request is not written yet: it surely does not run."""
        with self._queue_lock:
            calls = self.method_queue[:]
        for call in calls:
            if self.withdraw(call):
                self._results.conclude(call.call_id, failure("no"))

    def timed_out(self, call: PendingCall) -> QAMTimeoutException:
        """Take a call back, since its time is up; return the exception that it ends with."""
        withdrawn = self.withdraw(call)
        return timed_out(call, withdrawn, self._phase(call))

    def _phase(self, call: PendingCall) -> str:
        connected = self._connection is not None
        return self._fates.phase(call, connected, self.can_receive(), self._blocked)

    def ask_again(self) -> None:
        """Send again what waits for a reply: replies are lost, and the server's record has them."""
        asked = self._results.pending_calls()
        keeps_record = self._results.server_keeps_record
        again = self._carry_out(self._fates.replies_lost(asked, keeps_record))
        with self._queue_lock:
            queued = set(map(id, self.method_queue))
            self.method_queue[:0] = [each for each in again if id(each) not in queued]
        self.wake()

    def fail_written(self, error: QAMConnectionException) -> None:
        """End each call that was sent, if nobody keeps its request or its reply for it."""
        with self._queue_lock:  # what is taken from the queue later finds can_receive() false
            decisions = self._fates.connection_lost(self._results.pending_calls(), error)
        self._carry_out(decisions)

    def free_callers(self) -> None:
        """Have those who wait for room look whether their call has ended."""
        with self._queue_lock:
            self._room.notify_all()

    def _after_fork(self) -> None:
        """Have a lock that nobody holds; in a forked child."""
        super()._after_fork()
        self._queue_lock = threading.RLock()
        self._room = threading.Condition(self._queue_lock)

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        # Without its exchange a request would close the channel; with it, and no
        # queue, it is returned.
        connection.declare_exchange(self._route.exchange)
        if self._persistent:
            connection.confirm()

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        super()._on_lost(connection, error)
        self.fail_written(error)

    def _next_batch(self, alone: bool) -> list[Publish]:
        with self._queue_lock:
            if not self.can_receive():
                return []
            queue = self.method_queue
            taken = queue[: 1 if alone else batch_length(each.body for each in queue)]
            del queue[: len(taken)]
            batch = [call for call in taken if not call.withdrawn]
            self._withdrawn -= len(taken) - len(batch)
            for call in batch:
                call.times_written += 1
            if self.max_queued is not None:
                self._room.notify(len(taken))
        now = time.monotonic()
        return [
            self._as_publish(call, now)
            for call in batch
            # A first copy is wanted: its caller would have withdrawn it.
            if call.times_written == 1 or self._results.is_open(call.call_id)
        ]

    def _has_more(self) -> bool:
        return bool(self.method_queue) and self.can_receive()

    def _send_first(self, items: list[PendingCall]) -> None:
        with self._queue_lock:
            self.method_queue[:0] = items

    def _as_publish(self, call: PendingCall, now: float) -> Publish:
        with_own = self._properties.copy()
        with_own["correlation_id"] = correlation_id_of(self.client_id, call.call_id)
        # What is left now: the time in the queue has passed.
        if (left := expiration(call.deadline.remaining())) is not None:
            with_own["expiration"] = left
        if (age := age_if_written_before(call, now)) is not None:
            with_own["headers"] = {RESENT: age}
        # By position: there is one for each call.
        return Publish(self._route, call.body, with_own, True, self._persistent, call)

    # --- what becomes of a message ----------------------------------------------

    def _on_fate(
        self, fate: Fate, messages: list[Publish], error: QAMConnectionException | None = None
    ) -> list[PendingCall]:
        calls = [message.context for message in messages]
        keeps_record = self._results.server_keeps_record
        return self._carry_out(self._fates.decide(fate, calls, keeps_record, error))

    def _carry_out(self, decisions: list[Decision]) -> list[PendingCall]:
        """Do what was decided; return the calls that are to be sent again at once."""
        again = []
        for decision in decisions:
            match decision:
                case End(call, failure):
                    self._results.conclude(call.call_id, failure)
                case SendAgain(call, after) if after:
                    self._send_later(call, after)
                case SendAgain(call):
                    again.append(call)
        return again

    def _on_unroutable(self, correlation_id: str | None) -> None:
        failure = self._fates.server_not_found("no")
        self._results.conclude(self._own_call_id(correlation_id), failure)

    def _on_blocked(self) -> None:
        if self._blocked:
            log.warning("the broker has an alarm and takes no messages; calls wait until it ends")
        else:
            log.info("the broker's alarm is over; calls are sent again")
