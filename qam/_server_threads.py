"""The threads of a server: one takes requests, several run methods, one sends replies."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from qam import _messages
from qam._acks import OpenDeliveries
from qam._connection import Connection
from qam._deadline import Deadline
from qam._events import Blocked, Cancelled, Confirmed, Consumer, Event, Refused, Returned
from qam._jobs import JobQueue
from qam._logs import get_logger
from qam._owner import ConnectionThread
from qam._prefetch import Prefetch
from qam._registry import MethodRegistry
from qam._serialization import Serializer
from qam._wire import (
    Delivery,
    Publish,
    Route,
    batch_length,
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

log = get_logger("qam.qam_server")

#: Seconds that closing gives the requests at hand.
CLOSE_TIMEOUT = 30.0
# What a request keeps when it is given back to its queue.
_PROPERTIES = ("correlation_id", "reply_to")
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
    #: The id that its caller gave it, once it is read.
    request_id: Any = None
    #: The broker has refused its reply.
    refused: bool = False

    def time_left(self) -> float | None:
        """Seconds that its caller still waits, at most; None for no end.

        The broker counts the time that a message lies with it; we add the time that
        it lay with us.  Nobody's clock is compared with another's.
        """
        time_to_live = self.delivery.time_to_live
        if time_to_live is None:
            return None
        return time_to_live - (time.monotonic() - self.arrived)


class RequestConsumerThread(ConnectionThread):
    """Takes requests from the queue, hands them to workers, and acknowledges them late.

    :param take: takes a request that came.
    :param take_back: returns the requests that no worker has started.
    :param give_back: has a request sent to its queue anew.
    :param ended: told of the end of this thread, and of the error that led to it.
    """

    def __init__(
        self,
        credentials: AMQPCredentials,
        server_id: str,
        prefetch: Prefetch,
        *,
        take: Callable[[Call], None],
        take_back: Callable[[], list[Call]],
        give_back: Callable[[Call], None],
        ended: Callable[[BaseException | None], None],
        connect_timeout: float,
    ) -> None:
        name = f"qam server RequestConsumerThread {server_id}"
        super().__init__(name, credentials, log, connect_timeout)
        self._server_id = server_id
        self._prefetch = prefetch
        self._take = take
        self._take_back = take_back
        self._give_back = give_back
        self._ended = ended
        self._consumer: Consumer | None = None
        self._consumer_prefetch = 0
        self._connection_number = 0
        self._open_deliveries = OpenDeliveries()
        self._settled: list[Call] = []
        # Guards _settled.
        self._settled_lock = threading.Lock()
        # By when the requests at hand have to be answered, once the server closes;
        # and then, by when those have to be given back that were not.
        self._answer_until: Deadline | None = None
        self._give_back_until: Deadline | None = None

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
        self._answer_until = self._answer_until or deadline
        if self._connection is None:  # nothing at hand can be answered or given back
            self.kill = True
        self.wake()

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        declare_server(connection, self._server_id)
        self._connection_number += 1
        self._open_deliveries = OpenDeliveries()
        self._consumer = None
        if self._answer_until is None:
            self._consume(connection)

    def _consume(self, connection: Connection) -> None:
        """Consume with the prefetch that is wanted now, in place of what went before."""
        before, self._consumer_prefetch = self._consumer, self._prefetch.wanted
        queue = request_binding(self._server_id).queue
        self._consumer = connection.consume(queue, prefetch=self._consumer_prefetch)
        if before is not None:
            connection.cancel(before)

    def _turn(self, connection: Connection) -> None:
        self._write(connection)
        if not self.kill:
            wait_time = self._wait_time(connection.tick())
            self._on_events(connection.read(wait_time, self._waker))

    def _wait_time(self, until_tick: float | None) -> float | None:
        deadline = self._give_back_until or self._answer_until
        times = [until_tick, deadline.wait_time() if deadline else None]
        return min((seconds for seconds in times if seconds is not None), default=None)

    def _write(self, connection: Connection) -> None:
        self._acknowledge(connection)
        if self._answer_until is not None:
            self._close_down(connection, self._answer_until)
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

    def _close_down(self, connection: Connection, answer_until: Deadline) -> None:
        if self._consumer is not None:
            connection.cancel(self._consumer)
            self._consumer = None
            self.wake()  # to look here again after what came with the cancel
        elif not self._open_deliveries:
            self.kill = True
        elif self._give_back_until is not None:
            self.kill = self._give_back_until.expired
        elif answer_until.expired:
            # What was not started waits for another server; what still runs does not.
            calls = self._take_back()
            for call in calls:
                self._give_back(call)
            self._give_back_until = Deadline(_GIVE_BACK_TIME)
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
        if self._answer_until is not None:
            self.kill = True

    def _on_end(self, error: BaseException | None) -> None:
        self._ended(error)


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
    :param max_message_bytes: the size of the largest reply.
    :param publish: takes a reply to send.
    :param settle: takes a call that needs no reply.
    """

    def __init__(
        self,
        server_id: str,
        calls: JobQueue[Call],
        methods: MethodRegistry,
        serializer: Serializer,
        max_message_bytes: int,
        publish: Callable[[Publish], None],
        settle: Callable[[Call], None],
    ) -> None:
        # A daemon: a method that never returns must not hold up the interpreter's end.
        super().__init__(name=f"qam ExecuteMethodThread {server_id}", daemon=True)
        self._calls = calls
        self._methods = methods
        self._serializer = serializer
        self._max_message_bytes = max_message_bytes
        self._publish = publish
        self._settle = settle
        self._reply_exchange = reply_exchange(server_id)

    def run(self) -> None:
        """Run methods until the server closes."""
        while (call := self._calls.get()) is not None:
            reply = self._answer(call)
            if reply is None:
                self._settle(call)
            else:
                self._publish(reply)

    def _answer(self, call: Call) -> Publish | None:
        """Return the reply to *call*, None if there is none; a bug costs this call alone."""
        try:
            return self._reply_to(call)
        except BaseException:
            log.exception("a request could not be answered, nor its caller told")
            return None

    def _reply_to(self, call: Call) -> Publish | None:
        """Do what a request asks for; return the reply, None if nobody can get one."""
        time_left = call.time_left()
        if time_left is not None and time_left <= 0:
            log.debug("a request was not started: its caller waits no more")
            return None
        try:
            request = _messages.Request.from_body(_messages.decode(self._serializer, call.delivery))
        except QAMSerializationException as error:
            return self._refuse(call, error)
        call.request_id = request.id
        try:
            body = self._encode(call, self._run(call, request))
        except BaseException as error:  # a bug of this library: the call alone suffers
            log.exception("a request could not be answered")
            failure = _messages.internal_reply(
                request.id, _messages.SERVER_FAILED, _messages.describe(error)
            )
            body = self._serializer.encode(failure, call.delivery.body)
        return self._as_publish(call, request.routing_key, body)

    def _refuse(self, call: Call, error: QAMSerializationException) -> Publish | None:
        """Have a request dropped; tell its caller why, where there is a way."""
        log.warning("a request was dropped: %s", error)
        call.rejected = True
        routing_key = call.delivery.properties.get("reply_to")
        if routing_key is None or call.delivery.correlation_id is None:
            return None  # a 0.2.x client, or none at all
        reply = _messages.internal_reply(None, _messages.REQUEST_UNREADABLE, str(error))
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
            body = self._serializer.encode(reply, like)
        except Exception as error:
            why = f"can't be encoded as {self._serializer.name}: {_messages.describe(error)}"
        else:
            if len(body) <= self._max_message_bytes:
                return body
            why = f"has {len(body)} bytes, more than max_message_bytes={self._max_message_bytes}"
        log.warning("a result %s", why)
        failure = _messages.internal_reply(
            reply["id"], _messages.RESULT_NOT_SERIALIZABLE, f"the result {why}"
        )
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

    :param serializer: how replies are encoded.
    :param settle: takes a call whose reply the broker has.
    :param ended: told of the end of this thread, and of the error that led to it.
    """

    def __init__(
        self,
        credentials: AMQPCredentials,
        server_id: str,
        serializer: Serializer,
        *,
        settle: Callable[[Call], None],
        ended: Callable[[BaseException | None], None],
        connect_timeout: float,
    ) -> None:
        name = f"qam server PublisherThread {server_id}"
        super().__init__(name, credentials, log, connect_timeout)
        self._server_id = server_id
        self._serializer = serializer
        self._settle = settle
        self._ended = ended
        #: The replies that are not written yet, oldest first.
        self.result_queue: list[Publish] = []
        # Guards result_queue.
        self._queue_lock = threading.Lock()
        self._blocked = False
        # How many replies, at the head of the queue, are sent one at a time, because
        # one of them made the broker close the channel.
        self._suspects = 0
        self._unconfirmed = 0

    def add_reply_to_send(self, reply: Publish) -> None:
        """Append a reply to the result queue; does not wait for it to be sent."""
        with self._queue_lock:
            self.result_queue.append(reply)
        self.wake()

    def give_back(self, call: Call) -> None:
        """Send a request that was not started to its queue anew, for another server.

        Not a requeue: that would mark it as delivered before.
        """
        came_with = call.delivery.properties
        anew = {name: came_with[name] for name in _PROPERTIES if name in came_with}
        anew |= properties(self._serializer, expiration=expiration(call.time_left()))
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
        if self._blocked or connection.congested or (self._suspects and self._unconfirmed):
            return  # each ends with an event, after which we are here again
        with self._queue_lock:
            length = batch_length(reply.body for reply in self.result_queue)
            batch = self.result_queue[: min(length, 1) if self._suspects else length]
            del self.result_queue[: len(batch)]
        self._unconfirmed += len(batch)
        connection.write(batch)
        if self.result_queue:
            self.wake()  # for what is left, after a look at what came

    def _on_events(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Confirmed):
                for message in event.messages:
                    self._done(message)
            elif isinstance(event, (Returned, Refused)):
                log.warning(
                    "a reply could not be delivered: its client (%r) is gone",
                    event.message.route.routing_key,
                )
                self._done(event.message)
            elif isinstance(event, Blocked):
                self._blocked = event.blocked

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        # Whether they arrived is open; a reply that arrives twice is dropped by its client.
        replies = connection.take_unconfirmed()
        if error.by_message:
            replies = self._without_culprit(replies, str(error))
        self._unconfirmed = 0
        with self._queue_lock:
            self.result_queue[:0] = replies

    def _without_culprit(self, replies: list[Publish], why: str) -> list[Publish]:
        """The broker closed the channel because of one of *replies*: find out which."""
        if len(replies) > 1:
            self._suspects = len(replies)
            return replies
        log.warning("the broker refuses a reply: %s", why)
        return [self._in_place_of(reply, why) for reply in replies if not reply.context.refused]

    def _in_place_of(self, reply: Publish, why: str) -> Publish:
        call = reply.context
        call.refused = True  # if this one is refused too, there is no more to say
        text = f"the broker refuses the result: {why}"
        failure = _messages.internal_reply(call.request_id, _messages.RESULT_NOT_SERIALIZABLE, text)
        body = self._serializer.encode(failure, call.delivery.body)
        return replace(reply, body=body)

    def _done(self, message: Publish) -> None:
        self._unconfirmed -= 1
        self._suspects = max(0, self._suspects - 1)
        self._settle(message.context)

    def _before_close(self, connection: Connection) -> None:
        self._write(connection)

    def _on_end(self, error: BaseException | None) -> None:
        self._ended(error)
