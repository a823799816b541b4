"""The thread of a proxy that sends."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qam._broker.connection import Connection
from qam._broker.messages import Publish, batch_length
from qam._broker.publishing_thread import PublishingThread
from qam._client.client_thread import ClientThread, Message, called_name, log
from qam._client.result_list import FailureFactory
from qam._common.deadline import Deadline, backoff
from qam._common.error_texts import describe
from qam._protocol.correlation import correlation_id_of
from qam._protocol.entities import reply_routing_key, request_binding
from qam._protocol.properties import RESENT, expiration, properties
from qam.exceptions import (
    Executed,
    QAMConnectionException,
    QAMException,
    QAMSerializationException,
    QAMServerNotFoundException,
    QAMTimeoutException,
)


@dataclass(slots=True, eq=False)
class Sending:
    """What became of a message so far; it stands in the message as ``sending``."""

    #: How often it was written, and when first.
    copies: int = 0
    written_at: float = 0.0
    #: The broker has the last copy.
    confirmed: bool = False
    #: How often the broker did not take it.
    refusals: int = 0
    #: It is taken back.
    withdrawn: bool = False


#: Seconds before a request is sent again that the broker did not take, first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class PublisherThread(ClientThread, PublishingThread):
    """Sends the messages in the method queue to the server; waits while there are none.

    :param amqp_credentials: where to connect, an :class:`~qam.amqp_credentials.AMQPCredentials`.
    :param server_id: the server to which messages are sent.
    :param client_id: names the routing key by which replies come back.
    :param serializer: ``'pickle'``, ``'json'`` or ``'msgpack'``, as the server is configured.
    """

    def _set_up(self) -> None:
        #: The messages that wait to be written, oldest first; before them those that are
        #: sent again.
        self.method_queue: list[Message] = []
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

    @property
    def is_here(self) -> bool:
        """Whether the thread that asks is this one, or is in the middle of something of it."""
        return super().is_here or self._queue_lock._is_owned()

    @property
    def publisher(self) -> Connection | None:
        """What sends the messages: the connection of this thread, None while there is none."""
        return self._connection

    def add_message_to_send(self, message: Message) -> Message:
        """Append a message to the method queue; does not wait for it to be sent.

        :param message: a dict of ``id`` (the slot, from
            :meth:`ConsumerThread.get_free_result_list_id`), ``method_name`` (str),
            ``routing_key`` (str, where the reply goes; ``<client_id>_client_routing_key``
            stands for this proxy) and ``params`` (a list); and, if there is one, the
            ``deadline`` of the call.
        :returns: the message as it stands in the queue.
        :raises QAMSerializationException: *params* can't be encoded; nothing is sent.
        :raises QAMClosedException: the proxy is closed.
        :raises QAMTimeoutException: the queue was full (``max_queued``) until the
            deadline of the call; that is what this waits for, and for nothing else.
        """
        return self.enqueue(message.copy())

    def enqueue(self, message: Message, waits: bool = False) -> Message:
        """Do the same with a message that nobody else has, and which is therefore not copied.

        :param waits: the thread that calls waits for the outcome then.  If that is not there
            soon, or not waited for any more, it calls :meth:`look_again`.
        """
        # Not more: many may wait, and a dict of eleven takes twice as much.
        call_id = self._results.new_call_id()
        message["sending"] = Sending()
        message["body"] = self._encode(message, call_id)
        # From here on the call is concluded by a reply, by us, or by a close.
        self._results.begin(message["id"], call_id, message)
        message["call_id"] = call_id
        if self._results.open_calls == 1 and self._write_lone(message, waits):
            return message
        if self.max_queued is None:
            self.method_queue.append(message)
        elif not self._append_if_room(message):
            return message
        self.wake()
        return message

    def _append_if_room(self, message: Message) -> bool:
        with self._queue_lock:
            if self._is_full() and not self._find_room(message):
                return False
            self.method_queue.append(message)
            return True

    def _write_lone(self, message: Message, waits: bool) -> bool:
        """Write the message of the only call: there is none to be sent together with it."""

        def make() -> Publish | None:
            with self._queue_lock:
                if not self.can_receive():
                    return None
                message["sending"].copies = 1
            return self._as_publish(message, time.monotonic())

        # A confirm is of use to who waits for long; who does looks again.
        return self._write_now(make, rest=waits and self._persistent)

    def _is_full(self) -> bool:
        waiting = len(self.method_queue) - self._withdrawn
        return self.max_queued is not None and waiting >= self.max_queued

    def _find_room(self, message: Message) -> bool:
        """Wait for room in the queue, where the caller waits anyway; return whether there is."""
        if self._results.is_callback(message["id"]):
            message["sending"].withdrawn = True  # it never was in the queue
            self._results.conclude(message["call_id"], self._queue_is_full(message))
            return False
        deadline = message.get("deadline") or Deadline(None)
        while self._is_full() and self._results.is_open(message["call_id"]):
            if not self._room.wait(deadline.wait_time()) and deadline.expired:
                message["sending"].withdrawn = True  # it never was in the queue
                self._room.notify()  # the wake that ended this wait may have been another's
                raise timed_out(self, message)
        return self._results.is_open(message["call_id"])

    def _queue_is_full(self, message: Message) -> QAMException:
        return QAMException(
            f"{called_name(message)}() was not sent: max_queued={self.max_queued} calls "
            f"wait already, since {self.phase(message)}",
            executed="no",
        )

    def _encode(self, message: Message, call_id: int) -> bytes:
        key = message["routing_key"]
        body = {
            "id": call_id,
            "method_name": message["method_name"],
            "routing_key": self._reply_key if key == self._label_key else key,
            "params": message["params"],
        }
        try:
            encoded = self._serializer.encode(body)
        except Exception as error:
            raise QAMSerializationException(
                f"the arguments of {called_name(message)}() can't be encoded as "
                f"{self._serializer.name}: {describe(error)}"
            ) from error
        if len(encoded) > self._max_message_bytes:
            raise QAMSerializationException(
                f"the request {called_name(message)}() has {len(encoded)} bytes, more than "
                f"max_message_bytes={self._max_message_bytes}"
            )
        return encoded

    def withdraw(self, message: Message) -> bool:
        """Take back a message; return True if it was not written and never will be."""
        with self._queue_lock:
            if message["sending"].copies:
                return False
            if not message["sending"].withdrawn:
                message["sending"].withdrawn = True
                self._withdrawn += 1
                self._drop_withdrawn()
                self._room.notify()
        return True

    def _drop_withdrawn(self) -> None:
        # Only when they are the half of it: so each costs a constant time in the end,
        # and an outage in which every call times out does not fill the memory.
        if 2 * self._withdrawn >= len(self.method_queue):
            seen = len(self.method_queue)
            kept = [each for each in self.method_queue[:seen] if not each["sending"].withdrawn]
            self.method_queue[:seen] = kept
            self._withdrawn = 0

    def withdraw_all(self, failure: FailureFactory) -> None:
        """End each call whose message is not written yet: it surely does not run."""
        with self._queue_lock:
            messages = self.method_queue[:]
        for message in messages:
            if self.withdraw(message):
                self._results.conclude(message["call_id"], failure("no"))

    def phase(self, message: Message) -> str:
        """Return what a call is waiting for, in words that follow "it" or "since"."""
        if message["sending"].confirmed:
            return "the broker has it: it waits for a server, or runs"
        if self._connection is None or not (message["sending"].copies or self.can_receive()):
            return "there is no connection to the broker"
        if self._blocked:
            return "the broker has an alarm and takes no messages"
        if message["sending"].copies:
            unconfirmed = ", and the broker has not confirmed it yet"
            return f"it was sent{unconfirmed if self._persistent else ''}"
        return "it waits to be sent"

    def ask_again(self) -> None:
        """Send again what waits for a reply: replies are lost, and the server's record has them."""
        asked = [each for each in self._results.open_messages() if each["sending"].copies]
        if not (self._persistent and self._results.server_keeps_record):
            for message in asked:
                self._results.conclude(message["call_id"], _replies_lost(message))
            return
        with self._queue_lock:
            queued = set(map(id, self.method_queue))
            self.method_queue[:0] = [each for each in asked if id(each) not in queued]
        self.wake()

    def fail_written(self, error: QAMConnectionException) -> None:
        """End each call that was sent: nobody keeps its request or its reply for it."""
        with self._queue_lock:  # what is taken from the queue later finds can_receive() false
            written = [each for each in self._results.open_messages() if each["sending"].copies]
        for message in written:
            failure = QAMConnectionException(
                f"{called_name(message)}() was sent, but {error} before its result came"
            )
            failure.__cause__ = error
            self._fail(message, failure)

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
        if not self._persistent:
            self.fail_written(error)

    def _next_batch(self, alone: bool) -> list[Publish]:
        with self._queue_lock:
            if not self.can_receive():
                return []
            queue = self.method_queue
            taken = queue[: 1 if alone else batch_length(each["body"] for each in queue)]
            del queue[: len(taken)]
            batch = [message for message in taken if not message["sending"].withdrawn]
            self._withdrawn -= len(taken) - len(batch)
            for message in batch:
                message["sending"].copies += 1
            if self.max_queued is not None:
                self._room.notify(len(taken))
        now = time.monotonic()
        return [
            self._as_publish(message, now)
            for message in batch
            # A first copy is wanted: its caller would have withdrawn it.
            if message["sending"].copies == 1 or self._results.is_open(message["call_id"])
        ]

    def _has_more(self) -> bool:
        return bool(self.method_queue) and self.can_receive()

    def _send_first(self, items: list[Message]) -> None:
        with self._queue_lock:
            self.method_queue[:0] = items

    def _as_publish(self, message: Message, now: float) -> Publish:
        deadline, sending = message.get("deadline"), message["sending"]
        with_own = self._properties.copy()
        with_own["correlation_id"] = correlation_id_of(self.client_id, message["call_id"])
        # What is left now: the time in the queue has passed.
        if deadline is not None and (left := expiration(deadline.remaining())) is not None:
            with_own["expiration"] = left
        if sending.copies == 1:
            sending.written_at = now
        else:
            age = now - sending.written_at
            with_own["headers"] = {RESENT: int(age * 1000)}
            sending.confirmed = False
        # By position: there is one for each call.
        return Publish(self._route, message["body"], with_own, True, self._persistent, message)

    # --- what becomes of a message ----------------------------------------------

    def _on_confirmed(self, messages: list[Publish]) -> None:
        for message in messages:
            message.context["sending"].confirmed = True

    def _on_returned(self, message: Publish) -> None:
        self._fail(message.context, self._not_found(_executed(message.context)))

    def _on_unroutable(self, correlation_id: str | None) -> None:
        self._results.conclude(self._own_call_id(correlation_id), self._not_found("no"))

    def _not_found(self, executed: Executed) -> QAMServerNotFoundException:
        return QAMServerNotFoundException(
            f"no server with the server_id {self.server_id!r} has ever been there: "
            f"its request queue does not exist at {self._credentials}",
            executed=executed,
        )

    def _on_refused(self, message: Publish) -> None:
        request = message.context
        if self._results.server_keeps_record:
            request["sending"].refusals += 1
            self._send_later(
                request, backoff(request["sending"].refusals, _FIRST_PAUSE, _LONGEST_PAUSE)
            )
        else:
            name = called_name(request)
            failure = QAMConnectionException(f"{name}() was sent, and the broker did not take it")
            self._fail(request, failure)

    def _on_unconfirmed(
        self, messages: list[Publish], error: QAMConnectionException
    ) -> list[Message]:
        requests = [message.context for message in messages]
        if self._results.server_keeps_record:
            return requests
        # Such a server would run what comes twice twice.
        for request in requests:
            failure = QAMConnectionException(
                f"{called_name(request)}() was sent, but {error} "
                "before the broker confirmed that it has it"
            )
            failure.__cause__ = error
            self._fail(request, failure)
        return []

    def _on_culprit(self, message: Publish, error: QAMConnectionException) -> None:
        failure = QAMConnectionException(
            f"the broker refuses {called_name(message.context)}(): {error}",
            executed=_executed(message.context),
        )
        failure.__cause__ = error
        self._fail(message.context, failure)

    def _fail(self, message: Message, failure: QAMException) -> None:
        self._results.conclude(message["call_id"], failure)

    def _on_blocked(self) -> None:
        if self._blocked:
            log.warning("the broker has an alarm and takes no messages; calls wait until it ends")
        else:
            log.info("the broker's alarm is over; calls are sent again")


def _executed(message: Message) -> Executed:
    """Whether a request ran of which the last copy surely did not."""
    return "no" if message["sending"].copies == 1 else "unknown"


def _replies_lost(message: Message) -> QAMConnectionException:
    return QAMConnectionException(
        f"{called_name(message)}() was sent, but the reply queue was deleted, and the replies in it"
    )


def timed_out(publisher: PublisherThread, message: Message) -> QAMTimeoutException:
    """Take a message back, since its time is up; return the exception of its call."""
    withdrawn = publisher.withdraw(message)
    sent = "" if withdrawn else ", and it may have run or may still run"
    return QAMTimeoutException(
        f"{called_name(message)}() got no result within {message['deadline'].timeout:g} seconds: "
        f"{publisher.phase(message)}{sent}",
        executed="no" if withdrawn else "unknown",
    )
