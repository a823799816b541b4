"""The threads of a server: one takes requests, several run methods, one sends replies."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from qam import _messages
from qam._acks import OpenDeliveries
from qam._connection import Connection
from qam._deadline import Deadline
from qam._events import Blocked, Cancelled, Confirmed, Consumer, Event, Refused, Returned
from qam._jobs import JobQueue
from qam._owner import ConnectionOwner, ConnectionThread
from qam._prefetch import Prefetch
from qam._registry import MethodRegistry
from qam._serialization import Serializer
from qam._wire import (
    Delivery,
    Publish,
    Route,
    expiration,
    properties,
    reply_exchange,
    request_binding,
)
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import (
    QAMConnectionException,
    QAMMethodNotFoundException,
    QAMSerializationException,
)

log = logging.getLogger("qam.qam_server")

#: Seconds that closing gives the requests at hand.
CLOSE_TIMEOUT = 30.0
#: Replies that are written before the owner looks at what came, and at the time.
_BATCH = 1000
#: Seconds that giving requests back may take when closing has no time left.
_GIVE_BACK_TIME = 2.0


@dataclass(slots=True, eq=False)
class Call:
    """A request that was delivered to this server."""

    delivery: Delivery
    #: Which connection delivered it, by number: its delivery tag means nothing to others.
    connection_number: int
    arrived: float = field(default_factory=time.monotonic)
    #: Seconds that its method ran; None if none did.
    seconds: float | None = None
    #: Its message is of no use, and the broker is to drop it.
    rejected: bool = False

    def time_left(self) -> float | None:
        """Seconds that its caller still waits, at most; None for no end.

        The broker counts the time that a message lies with it; we add the time that
        it lay with us.  Nobody's clock is compared with another's.
        """
        time_to_live = self.delivery.time_to_live
        if time_to_live is None:
            return None
        return time_to_live - (time.monotonic() - self.arrived)


class RequestConsumer(ConnectionOwner):
    """Takes requests from the queue, hands them to workers, and acknowledges them late.

    It runs in the thread that serves.
    """

    def __init__(
        self,
        credentials: AMQPCredentials,
        server_id: str,
        prefetch: Prefetch,
        take: Callable[[Call], None],
        take_back: Callable[[], list[Call]],
        give_back: Callable[[Call], None],
        connect_timeout: float,
    ) -> None:
        super().__init__(credentials, log, connect_timeout)
        self._server_id = server_id
        self._prefetch = prefetch
        self._take = take
        self._take_back = take_back
        self._give_back = give_back
        self._consumer: Consumer | None = None
        self._consumer_prefetch = 0
        self._connection_number = 0
        self._open_deliveries = OpenDeliveries()
        self._settled: list[Call] = []
        # Guards _settled.
        self._settled_lock = threading.Lock()
        self._closing: Deadline | None = None
        #: True if the thread that serves was interrupted (Ctrl-C).
        self.interrupted = False

    # --- from other threads ---------------------------------------------------

    def settle(self, call: Call) -> None:
        """Everything is done for *call*: it may be acknowledged."""
        with self._settled_lock:
            self._settled.append(call)
        self.wake()

    def begin_to_close(self, deadline: Deadline) -> None:
        """Take no more requests; end when those at hand are answered, or at *deadline*.

        Only sets a flag, so a signal handler may call it.
        """
        self._closing = self._closing or deadline
        if self._connection is None:  # nothing at hand can be answered or given back
            self.kill = True
        self.wake()

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        declare_server(connection, self._server_id)
        self._connection_number += 1
        self._open_deliveries = OpenDeliveries()
        self._consumer = None
        self._consume(connection)

    def _consume(self, connection: Connection) -> None:
        """Consume with the prefetch that is wanted now, in place of what went before."""
        before, self._consumer_prefetch = self._consumer, self._prefetch.wanted
        queue = request_binding(self._server_id).queue
        self._consumer = connection.consume(queue, prefetch=self._consumer_prefetch)
        if before is not None:
            connection.cancel(before)

    def _turn(self, connection: Connection) -> None:
        try:
            self._write(connection)
            if self.kill:
                return
            events = connection.read(self._wait_time(connection.tick()), self._waker)
            self._on_events(events)
        except KeyboardInterrupt:
            if self._closing:
                raise  # a second Ctrl-C does not wait
            self.interrupted = True
            self.begin_to_close(Deadline(CLOSE_TIMEOUT))

    def _wait_time(self, until_tick: float | None) -> float | None:
        times = [until_tick, self._closing.remaining() if self._closing else None]
        return min((seconds for seconds in times if seconds is not None), default=None)

    def _write(self, connection: Connection) -> None:
        self._acknowledge(connection)
        if self._closing is not None:
            self._close_down(connection, self._closing)
        elif self._prefetch.wanted != self._consumer_prefetch:
            self._consume(connection)

    def _acknowledge(self, connection: Connection) -> None:
        with self._settled_lock:
            settled, self._settled = self._settled, []
        for call in settled:
            if call.seconds is not None:
                self._prefetch.ran(call.seconds)
            if call.connection_number != self._connection_number:
                continue  # its delivery went with its connection
            tag = call.delivery.delivery_tag
            if call.rejected:
                self._open_deliveries.dropped(tag)
                connection.reject(tag)
            else:
                self._open_deliveries.done([tag])
        for tag, multiple in self._open_deliveries.take_acks():
            connection.acknowledge(tag, multiple)

    def _close_down(self, connection: Connection, deadline: Deadline) -> None:
        if self._consumer is not None:
            connection.cancel(self._consumer)
            self._consumer = None
            self.wake()  # to look here again after what came with the cancel
        elif not self._open_deliveries:
            self.kill = True
        elif deadline.expired:
            # What was not started waits for another server; what still runs does not.
            calls = self._take_back()
            for call in calls:
                self._give_back(call)
            self._closing = Deadline(_GIVE_BACK_TIME)
            self.kill = not calls

    def _on_events(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Delivery):
                self._open_deliveries.opened(event.delivery_tag)
                self._take(Call(event, self._connection_number))
            elif isinstance(event, Cancelled):
                raise QAMConnectionException(
                    f"the request queue of {self._server_id!r} was deleted"
                )

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        # The broker delivers them again: the copies that were not started are void.
        self._take_back()
        if self._closing is not None:
            self.kill = True


def declare_server(connection: Connection, server_id: str) -> None:
    """Declare all that a server needs; what waits in its queue stays there."""
    binding = request_binding(server_id)
    connection.declare_exchange(binding.exchange)
    connection.declare_exchange(reply_exchange(server_id))
    connection.declare_queue(binding)


class ExecuteMethodThread(threading.Thread):
    """Runs one method after the other and hands their replies to the PublisherThread.

    :param server_id: the id of the server.
    :param calls: where the requests come from.
    :param methods: what can be called.
    :param serializer: how requests and replies are encoded.
    :param publish: takes a reply to send.
    :param settle: takes a call that needs no reply.
    """

    def __init__(
        self,
        server_id: str,
        calls: JobQueue[Call],
        methods: MethodRegistry,
        serializer: Serializer,
        publish: Callable[[Publish], None],
        settle: Callable[[Call], None],
    ) -> None:
        # A daemon: a method that never returns must not hold up the interpreter's end.
        super().__init__(name=f"qam ExecuteMethodThread {server_id}", daemon=True)
        self._calls = calls
        self._methods = methods
        self._serializer = serializer
        self._publish = publish
        self._settle = settle
        self._reply_exchange = reply_exchange(server_id)

    def run(self) -> None:
        """Run methods until the server closes."""
        while (call := self._calls.get()) is not None:
            try:
                self._answer(call)
            except BaseException as error:  # a bug, or of a peer's making: this call alone suffers
                log.exception("a request could not be answered")
                self._hand_in(call, self._refuse(call, error, _messages.SERVER_FAILED))

    def _answer(self, call: Call) -> None:
        self._hand_in(call, self._reply_to(call))

    def _hand_in(self, call: Call, reply: Publish | None) -> None:
        if reply is None:
            self._settle(call)
        else:
            self._publish(reply)

    def _reply_to(self, call: Call) -> Publish | None:
        """Do what a request asks for; return the reply, None if nobody can get one."""
        time_left = call.time_left()
        if time_left is not None and time_left <= 0:
            log.debug("a request was not started: its caller waits no more")
            return None
        try:
            body = _messages.decode(self._serializer, call.delivery)
            request = _messages.Request.from_body(body)
        except QAMSerializationException as error:
            log.warning("a request was dropped: %s", error)
            return self._refuse(call, error, _messages.REQUEST_UNREADABLE)
        reply = self._run(call, request)
        return self._as_publish(call, request.routing_key, self._encode(call, reply))

    def _refuse(self, call: Call, error: BaseException, code: int) -> Publish | None:
        """Have a request dropped; tell its caller why, where there is a way."""
        call.rejected = True
        routing_key = call.delivery.properties.get("reply_to")
        if routing_key is None or call.delivery.correlation_id is None:
            return None  # a 0.2.x client, or none at all
        reply = _messages.internal_reply(None, code, _messages.text_of(error))
        return self._as_publish(call, routing_key, self._encode(call, reply))

    def _run(self, call: Call, request: _messages.Request) -> dict[str, Any]:
        """Run the method; return the reply's body, whatever happens."""
        if call.delivery.redelivered:
            return _messages.internal_reply(
                request.id,
                _messages.SERVER_LOST,
                f"the server that had {request.method_name}() went away before it answered",
            )
        try:
            method = self._methods.resolve(request.method_name, request.params)
        except QAMMethodNotFoundException as error:
            return _messages.internal_reply(request.id, _messages.METHOD_NOT_FOUND, str(error))
        except QAMSerializationException as error:
            return _messages.internal_reply(request.id, _messages.REQUEST_UNREADABLE, str(error))
        started = time.monotonic()
        try:
            return _messages.result_reply(request.id, method())
        except BaseException as error:
            log.debug("%s() raised", request.method_name, exc_info=True)
            return _messages.exception_reply(request.id, error, self._serializer)
        finally:
            call.seconds = time.monotonic() - started

    def _encode(self, call: Call, reply: dict[str, Any]) -> bytes:
        like = call.delivery.body
        try:
            return self._serializer.encode(reply, like)
        except Exception as error:
            text = f"the result can't be encoded as {self._serializer.name}: " + (
                _messages.describe(error)
            )
            log.warning("%s", text)
            failure = _messages.internal_reply(reply["id"], _messages.RESULT_NOT_SERIALIZABLE, text)
            return self._serializer.encode(failure, like)

    def _as_publish(self, call: Call, routing_key: str, body: bytes) -> Publish:
        correlation_id = call.delivery.correlation_id
        reply_properties = properties(self._serializer, correlation_id=correlation_id)
        # Returns are told apart by correlation id; 0.2.x clients know none.
        return Publish(
            Route(self._reply_exchange, routing_key),
            body,
            reply_properties,
            mandatory=correlation_id is not None,
            context=call,
        )


class PublisherThread(ConnectionThread):
    """Sends the replies in the result queue; a call is settled when its reply is confirmed.

    :param settle: takes a call whose reply the broker has.
    :param died: told of an internal error that ends this thread.
    """

    def __init__(
        self,
        credentials: AMQPCredentials,
        server_id: str,
        settle: Callable[[Call], None],
        died: Callable[[BaseException], None],
        connect_timeout: float,
    ) -> None:
        name = f"qam server PublisherThread {server_id}"
        super().__init__(name, credentials, log, connect_timeout)
        self._server_id = server_id
        self._settle = settle
        self._died = died
        #: The replies that are not written yet, oldest first.
        self.result_queue: list[Publish] = []
        # Guards result_queue.
        self._queue_lock = threading.Lock()
        self._blocked = False

    def add_reply_to_send(self, reply: Publish) -> None:
        """Append a reply to the result queue; does not wait for it to be sent."""
        with self._queue_lock:
            self.result_queue.append(reply)
        self.wake()

    def give_back(self, call: Call) -> None:
        """Send a request that was not started to its queue anew, for another server.

        Not a requeue: that would mark it as delivered before.
        """
        anew = dict(call.delivery.properties)
        anew.pop("expiration", None)
        time_to_live = expiration(call.time_left())
        if time_to_live is not None:
            anew["expiration"] = time_to_live
        route = request_binding(self._server_id).route
        self.add_reply_to_send(
            Publish(route, call.delivery.body, anew, mandatory=False, context=call)
        )

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        declare_server(connection, self._server_id)
        connection.confirm()
        self._blocked = False

    def _write(self, connection: Connection) -> None:
        if self._blocked or connection.congested:
            return  # both end with an event, after which we are here again
        with self._queue_lock:
            batch = self.result_queue[:_BATCH]
            del self.result_queue[:_BATCH]
        if batch:
            connection.write(batch)
            self.wake()  # for what is left in the queue, after a look at what came

    def _on_events(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Confirmed):
                for message in event.messages:
                    self._settle(message.context)
            elif isinstance(event, (Returned, Refused)):
                log.warning(
                    "a reply could not be delivered: its client (%s) is gone",
                    event.message.route.routing_key,
                )
                self._settle(event.message.context)
            elif isinstance(event, Blocked):
                self._blocked = event.blocked

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        # Whether they arrived is open; a reply that arrives twice is dropped by its client.
        with self._queue_lock:
            self.result_queue[:0] = connection.take_unconfirmed()

    def _before_close(self, connection: Connection) -> None:
        self._write(connection)

    def _on_death(self, error: BaseException) -> None:
        self._died(error)
