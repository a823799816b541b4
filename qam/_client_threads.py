"""The two threads of a proxy that each own a connection: one sends, one receives."""

import threading
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from qam import _messages
from qam._connection import Connection
from qam._deadline import Deadline
from qam._events import Blocked, Cancelled, Consumer, Event, Refused, Returned
from qam._logs import get_logger
from qam._owner import CONNECT_TIMEOUT, ConnectionThread
from qam._serialization import Serializer, get_serializer
from qam._slots import DONE, FREE, WAITING, FailureFactory, ResultList, Slot
from qam._wire import (
    MAX_MESSAGE_BYTES,
    Delivery,
    Publish,
    batch_length,
    expiration,
    properties,
    reply_binding,
    reply_routing_key,
    request_binding,
)
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import (
    Executed,
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMSerializationException,
    QAMServerNotFoundException,
)

log = get_logger("qam.qam_proxy")

#: Seconds after which RabbitMQ deletes the reply queue of a client that crashed.
_REPLY_QUEUE_EXPIRES = 30 * 60
_REPLY_QUEUE_ARGUMENTS = {"x-expires": _REPLY_QUEUE_EXPIRES * 1000}

Message = dict[str, Any]


def called_name(message: Message) -> str:
    """Return the name that was called; what travels for it may be another."""
    return str(message.get("called", message["method_name"]))


def _as_serializer(serializer: str | Serializer) -> Serializer:
    return get_serializer(serializer) if isinstance(serializer, str) else serializer


class _ClientThread(ConnectionThread):
    """What both threads of a proxy have."""

    def __init__(
        self,
        amqp_credentials: AMQPCredentials,
        server_id: str,
        client_id: str,
        serializer: str | Serializer,
        *,
        results: ResultList | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        name = f"qam {type(self).__name__} {client_id}"
        super().__init__(name, amqp_credentials, log, connect_timeout)
        self.amqp_credentials = amqp_credentials
        self.server_id = server_id
        self.client_id = client_id
        self._serializer = _as_serializer(serializer)
        self._results = results or ResultList()
        self._max_message_bytes = max_message_bytes
        self._set_up()

    @abstractmethod
    def _set_up(self) -> None:
        """Make what this thread has beside."""

    def _on_end(self, error: BaseException | None) -> None:
        self.end_calls(error)

    def end_calls(self, error: BaseException | None) -> None:
        """End every call, and let none begin: a thread of the proxy ended, perhaps by *error*."""

        def failure(executed: Executed) -> QAMException:
            why = f" by an internal error ({_messages.describe(error)})" if error else ""
            closed = QAMClosedException(
                f"a thread of the proxy ended{why}; make a new proxy", executed=executed
            )
            closed.__cause__ = error
            return closed

        self._results.close(failure)


class ConsumerThread(_ClientThread):
    """Receives the replies of the server and stores them in the result list.

    The message that is received is a dict of ``id`` (int), ``result``,
    ``exception`` (bool) and ``internal_exception`` (int).  It is decoded by whoever
    asks for the result: this thread runs no code of anybody else.  The reply of a
    0.2.x server is decoded here, since only its body says which call it answers.

    :param amqp_credentials: where to connect, an :class:`~qam.amqp_credentials.AMQPCredentials`.
    :param server_id: the server whose replies are received.
    :param client_id: names the reply queue and its routing key.
    :param serializer: ``'pickle'``, ``'json'`` or ``'msgpack'``, as the server is configured.
    """

    #: States of a slot: nobody uses it; its call has no outcome yet; it has.
    FREE, WAITING, DONE = FREE, WAITING, DONE

    def _set_up(self) -> None:
        #: The consumer on the reply queue: its queue and tag; None while not connected.
        self.consumer: Consumer | None = None
        self._binding = reply_binding(self.server_id, self.client_id)
        self._openings = 0

    @property
    def amqpconn(self) -> Connection | None:
        """The connection of this thread; None while there is none."""
        return self._connection

    @property
    def result_list(self) -> list[Slot]:
        """The slots: dicts of state, result_message, callback_method, exception_method."""
        return self._results.slots

    @property
    def free_index_queue(self) -> list[int]:
        """The ids of the slots that are free."""
        return self._results.free_ids

    def get_free_result_list_id(
        self, callback_method: Any = None, exception_method: Any = None
    ) -> int:
        """Reserve a slot for a new call.

        :param callback_method: called with the result when it arrives, or None.
        :param exception_method: called with the exception if the call fails, or None.
        :returns: the id of the slot, which is in the state WAITING now.
        """
        return self._results.reserve(callback_method, exception_method)

    def free_result_item(self, id: int) -> None:
        """Free a slot.  A reply that still comes for its call is dropped.

        :param id: the slot's id; one that is free already stays so.
        """
        self._results.free(id)

    def is_result_received(self, id: int) -> bool:
        """Return True if the outcome of a call is there; does not wait.

        :param id: the slot's id.
        """
        return bool(self.result_list[id]["state"] == DONE)

    def get_result_item(self, id: int) -> Any:
        """Return what a slot has received; does not wait, and leaves it there.

        :param id: the slot's id.
        :returns: the message, a dict; the :class:`QAMException` that ended the call
            here; or None if nothing came yet.
        """
        slot = self.result_list[id]
        if isinstance(slot["result_message"], Delivery):
            slot["result_message"] = self._decode(slot["result_message"])
        return slot["result_message"]

    def _decode(self, delivery: Delivery) -> Message | QAMException:
        try:
            return _messages.decode_reply(self._serializer, delivery)
        except QAMSerializationException as error:
            log.warning("a reply can't be read: %s", error)
            return error

    def get_result(self, id: int) -> Any:
        """Return the result of a call, and free its slot; waits until it is there.

        :param id: the slot's id.
        :raises QAMMethodNotFoundException: the server has no such method.
        :raises QAMException: the call ended without an outcome of its method.
        :raises Exception: what the remote method raised.
        """
        self._results.wait(id, Deadline(None))
        try:
            message = self.get_result_item(id)
        finally:
            self.free_result_item(id)
        if isinstance(message, QAMException):
            raise message
        return _messages.outcome(message)

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        connection.declare_exchange(self._binding.exchange)
        connection.declare_queue(self._binding, _REPLY_QUEUE_ARGUMENTS)
        # Higher each time: after a black hole the broker still serves the consumer
        # of the lost connection, which would get every other reply.
        self.consumer = connection.consume(self._binding.queue, priority=self._openings)
        self._openings += 1

    def _write(self, connection: Connection) -> None:
        """A consumer has nothing to write but its acks, which follow each chunk."""

    def _on_events(self, events: Iterable[Event]) -> None:
        last_tag = 0
        for event in events:
            if isinstance(event, Delivery):
                self._receive(event)
                last_tag = event.delivery_tag
            elif isinstance(event, Cancelled):
                self._results.fail_all(self._reply_queue_deleted)
                raise self._reply_queue_deleted()
        if last_tag and self._connection is not None:
            self._connection.acknowledge(last_tag, multiple=True)

    def _reply_queue_deleted(self, executed: Executed = "unknown") -> QAMConnectionException:
        return QAMConnectionException(
            f"the reply queue {self._binding.queue} was deleted, and the replies in it",
            executed=executed,
        )

    def _receive(self, delivery: Delivery) -> None:
        message: Delivery | Message | QAMException = delivery
        if delivery.correlation_id is not None:
            call_id = self._own_call_id(delivery.correlation_id)
        else:  # a 0.2.x server: only the body says which call it answers
            message = self._decode(delivery)
            call_id = message.get("id") if isinstance(message, dict) else None
        # An id of any other type is none of ours, and may not even be hashable.
        if type(call_id) is not int or not self._results.conclude(call_id, message):
            id = call_id if type(call_id) is int else type(call_id).__name__
            log.debug("a reply that no call waits for was dropped (id %s)", id)

    def _own_call_id(self, correlation_id: str) -> int | None:
        client_id, _, number = correlation_id.rpartition(":")
        return int(number) if client_id == self.client_id and number.isdecimal() else None

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        self.consumer = None

    def _before_close(self, connection: Connection) -> None:
        connection.delete_queue(self._binding.queue)


class PublisherThread(_ClientThread):
    """Sends the messages in the method queue to the server; waits while there are none.

    :param amqp_credentials: where to connect, an :class:`~qam.amqp_credentials.AMQPCredentials`.
    :param server_id: the server to which messages are sent.
    :param client_id: names the routing key by which replies come back.
    :param serializer: ``'pickle'``, ``'json'`` or ``'msgpack'``, as the server is configured.
    """

    def _set_up(self) -> None:
        #: The messages that are not written yet, oldest first.
        self.method_queue: list[Message] = []
        # Guards method_queue, _withdrawn, and whether a message counts as written.
        # Reentrant, because a finalizer of the application that makes a call may run
        # inside; it appends, so each section minds only the length that it has seen.
        self._queue_lock = threading.RLock()
        self._withdrawn = 0  # how many in method_queue are not to be sent any more
        self._route = request_binding(self.server_id).route
        self._reply_key = reply_routing_key(self.client_id)
        self._label_key = reply_routing_key(self.client_id.rpartition(".")[0])
        self._blocked = False

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
        """
        call_id = self._results.new_call_id()
        queued = {**message, "call_id": call_id, "written": False, "withdrawn": False}
        queued["body"] = self._encode(message, call_id)
        # From here on the call is concluded by a reply, by us, or by a close.
        self._results.begin(message["id"], call_id)
        with self._queue_lock:
            self.method_queue.append(queued)
        self.wake()
        return queued

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
                f"{self._serializer.name}: {_messages.describe(error)}"
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
            if message["written"]:
                return False
            if not message["withdrawn"]:
                message["withdrawn"] = True
                self._withdrawn += 1
                self._drop_withdrawn()
        return True

    def _drop_withdrawn(self) -> None:
        # Only when they are the half of it: so each costs a constant time in the end,
        # and an outage in which every call times out does not fill the memory.
        if 2 * self._withdrawn >= len(self.method_queue):
            seen = len(self.method_queue)
            kept = [each for each in self.method_queue[:seen] if not each["withdrawn"]]
            self.method_queue[:seen] = kept
            self._withdrawn = 0

    def withdraw_all(self, failure: FailureFactory) -> None:
        """End each call whose message is not written yet: it surely does not run."""
        with self._queue_lock:
            messages = self.method_queue[:]
        for message in messages:
            if self.withdraw(message):
                self._results.conclude(message["call_id"], failure("no"))

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        # Without its exchange a request would close the channel; with it, and no
        # queue, it is returned.
        connection.declare_exchange(self._route.exchange)
        connection.confirm()
        self._blocked = False

    def _write(self, connection: Connection) -> None:
        if self._blocked or connection.congested:
            return  # both end with an event, after which we are here again
        connection.write(map(self._as_publish, self._take_batch()))
        if self.method_queue:
            self.wake()  # for what is left, after a look at what came

    def _take_batch(self) -> list[Message]:
        with self._queue_lock:
            taken = self.method_queue[: batch_length(each["body"] for each in self.method_queue)]
            del self.method_queue[: len(taken)]
            batch = [message for message in taken if not message["withdrawn"]]
            self._withdrawn -= len(taken) - len(batch)
            for message in batch:
                message["written"] = True
        return batch

    def _as_publish(self, message: Message) -> Publish:
        deadline = message.get("deadline")
        request_properties = properties(
            self._serializer,
            correlation_id=f"{self.client_id}:{message['call_id']}",
            reply_to=self._reply_key,
            # What is left now: the time in the queue has passed.
            expiration=expiration(deadline.remaining()) if deadline else None,
        )
        return Publish(self._route, message["body"], request_properties, context=message)

    def _on_events(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Returned):
                self._fail(event.message, self._server_not_found())
            elif isinstance(event, Refused):
                self._fail(
                    event.message,
                    QAMConnectionException("the broker refused the request", executed="no"),
                )
            elif isinstance(event, Blocked):
                self._set_blocked(event.blocked)

    def _server_not_found(self) -> QAMException:
        return QAMServerNotFoundException(
            f"no server with the server_id {self.server_id!r} has ever been there: "
            f"its request queue does not exist at {self._credentials}"
        )

    def _set_blocked(self, blocked: bool) -> None:
        self._blocked = blocked
        if blocked:
            log.warning("the broker has an alarm and takes no messages; calls wait until it ends")
        else:
            log.info("the broker's alarm is over; calls are sent again")

    def _fail(self, message: Publish, failure: QAMException) -> None:
        self._results.conclude(message.context["call_id"], failure)

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        for message in connection.take_unconfirmed():
            failure = QAMConnectionException(
                f"{called_name(message.context)}() was sent, but {error} "
                "before the broker confirmed that it has it"
            )
            failure.__cause__ = error
            self._fail(message, failure)
