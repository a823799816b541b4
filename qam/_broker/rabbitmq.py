"""A connection to RabbitMQ, built on py-amqp."""

import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import amqp
from amqp.exceptions import AMQPError
from kombu.transport import pyamqp

from qam._broker import declarations
from qam._broker.connect_errors import error_text, why_refused
from qam._broker.connection import QueueIsDown
from qam._broker.endpoint import Endpoint
from qam._broker.events import Blocked, Cancelled, Consumer, Event, Unroutable
from qam._broker.frames import Confirm, Frame, pack_ack, pack_publish
from qam._broker.messages import Delivery, Publish, QueueBinding, QueueState
from qam._broker.sleep import Sleep
from qam._broker.transport import BufferedTransport
from qam._broker.unconfirmed import Unconfirmed
from qam._broker.waker import Waker
from qam._common.deadline import Deadline
from qam.exceptions import QAMConnectionException

#: Seconds for which the broker may be silent while py-amqp waits for an answer.
_ANSWER_TIMEOUT = 10.0
# The exceptions that py-amqp raises when the connection can't be used any more.
_LOSSES = (
    *(AMQPError, OSError, struct.error),
    *(ArithmeticError, LookupError, RecursionError, ValueError),
)
# Larger than any frame: the size in a frame's header has 32 bits.
_ANY_FRAME = 2**32
#: Bytes that may wait for the network; while there are more, no message is written.
_MAX_BACKLOG = 1024 * 1024
#: Seconds that the broker has to answer the close of the connection.
_CLOSE_TIMEOUT = 1.0


class _Connection(pyamqp.Connection):
    """py-amqp's connection, on a BufferedTransport."""

    def __init__(self, transport: BufferedTransport, **options: Any) -> None:
        super().__init__(**options)
        self._buffered_transport = transport

    def Transport(self, *args: Any, **kwargs: Any) -> BufferedTransport:  # noqa: N802
        return self._buffered_transport


# To try again does not help, as it does where nobody answers.
_REFUSALS = (
    amqp.AccessRefused,
    amqp.NotAllowed,
    amqp.PreconditionFailed,
    ssl.SSLCertVerificationError,
)


class AMQPConnection:
    """A connection to RabbitMQ with one channel; a second one is for messages without confirms."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._events: list[Event] = []
        self._unconfirmed = Unconfirmed()
        self._lost = False
        # Until the first read, the answers to declarations have to come within that time, too.
        self._opened_by: Deadline | None = Deadline(timeout)
        self._transport = _make_transport(
            endpoint, self._opened_by, self._on_traffic, self._on_life
        )
        self._amqp = _make_connection(endpoint, self._transport, self._on_blocked)
        try:
            self._open()
        except Exception as error:  # a peer that is no broker can make the handshake raise anything
            self._collect()
            reason = why_refused(error, endpoint, timeout)
            failure = QAMConnectionException(
                f"can't connect to the broker at {endpoint} "
                f"as user {endpoint.username!r}: {reason}",
                executed="no",
            )
            failure.refused = isinstance(error, _REFUSALS)
            raise failure from error

    def _open(self) -> None:
        self._amqp.connect()
        # The broker's limit, whatever was requested; 0 means no limit.
        self._transport.incoming.frame_max = self._amqp.frame_max or _ANY_FRAME
        self._channel = self._amqp.channel()
        self._channel_id = self._channel.channel_id  # py-amqp forgets it when it closes
        self._channel.events["basic_return"].add(self._on_return)
        self._asking: Any = None  # the channel for has_queue(), once it is needed
        self._confirms = False
        # A channel confirms every message or none, so messages without a confirm may need another.
        self._plain_channel_id = self._channel_id
        self._next_tick = 0.0
        self._sleep = Sleep(self._transport)

    # --- entities -----------------------------------------------------------

    def declare_exchange(self, name: str) -> None:
        """Declare a durable direct exchange; if the user may not, check that it exists.

        Call this before :meth:`confirm` and :meth:`consume`: after a refusal the channel is new.
        """
        with self._synchronously():
            declarations.declare_exchange(self._channel, self._endpoint, name)

    def declare_queue(self, binding: QueueBinding, arguments: dict[str, Any] | None = None) -> None:
        """Declare a durable queue and bind it to its exchange.

        :raises QueueIsDown: its node is down; the connection is still usable, with a new channel.
        :raises QAMConnectionException: the queue exists with other arguments.
        """
        with self._synchronously():
            declarations.declare_queue(self._channel, self._endpoint, binding, arguments)

    def inspect_queue(self, queue: str) -> QueueState | None:
        """Return how many messages and consumers *queue* has; None if it does not exist.

        If it may not exist, call this before :meth:`confirm` and :meth:`consume`: the broker
        then closes the channel.
        """
        with self._synchronously():
            return declarations.inspect_queue(self._channel, queue)

    def has_queue(self, name: str) -> bool:
        """Return True if there is that queue; it may be called at any time.

        On a channel of its own, which the broker closes if there is none.
        """
        with self._synchronously():
            if self._asking is None:
                self._asking = self._amqp.channel()
            return declarations.inspect_queue(self._asking, name) is not None

    def unbind_queue(self, binding: QueueBinding) -> None:
        """Delete a binding: what is published from now on does not come to its queue."""
        with self._synchronously():
            self._channel.queue_unbind(binding.queue, binding.exchange, binding.routing_key)

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all its messages."""
        with self._synchronously():
            self._channel.queue_delete(name)

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange with its bindings; do nothing if there is none."""
        with self._synchronously():
            self._channel.exchange_delete(name)

    def consume(
        self,
        queue: str,
        prefetch: int = 0,
        priority: int = 0,
        no_ack: bool = False,
        max_bytes: int | None = None,
    ) -> Consumer:
        """Start a consumer that holds up to *prefetch* unacknowledged messages (0: any)."""
        with self._synchronously():
            # Without global, a prefetch applies to the consumers that are started after it.
            self._channel.basic_qos(0, prefetch, a_global=False)
            tag = self._channel.basic_consume(
                queue,
                no_ack=no_ack,
                callback=_not_called,
                on_cancel=self._on_cancel,
                arguments={"x-priority": priority} if priority else None,
            )
        # The limit is set in time: deliveries come after the answer, and are parsed only when this
        # thread reads again.
        self._transport.incoming.set_limit(tag, max_bytes)
        return Consumer(queue, tag)

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer; its deliveries can still be acknowledged."""
        with self._synchronously():
            self._channel.basic_cancel(consumer.tag)
        self._transport.incoming.set_limit(consumer.tag, None)

    def confirm(self, also_plain: bool = False) -> None:
        """Request confirms for the messages written from now on."""
        self._confirms = True
        with self._synchronously():
            self._channel.confirm_select()
            if also_plain:
                channel = self._amqp.channel()
                channel.events["basic_return"].add(self._on_unroutable)
                self._plain_channel_id = channel.channel_id

    # --- traffic ------------------------------------------------------------

    def write(self, messages: Iterable[Publish]) -> None:
        """Publish *messages*; the fate of a message with a confirm is reported by events."""
        batch, frame_max = list(messages), self._transport.incoming.frame_max
        frames: list[bytes | memoryview] = []
        # All of them first, since a failure below leaves all without a fate.
        self._unconfirmed.add([message for message in batch if message.confirm])
        for message in batch:
            channel = self._channel_id if message.confirm else self._plain_channel_id
            frames += pack_publish(message, channel, frame_max)
        try:
            self._check()
            # All in one write: one system call each would take longer than all the packing.
            self._transport.write(b"".join(frames))
        except Exception as error:
            raise self._loss(error) from error
        self._amqp.bytes_sent += len(batch)

    def acknowledge(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge a delivery, or with *multiple* all up to it; :meth:`flush` sends the ack."""
        self._transport.write_later(pack_ack(tag, multiple, self._channel_id))
        self._amqp.bytes_sent += 1

    def reject(self, tag: int) -> None:
        """Make the broker drop a delivery."""
        with self._losing():
            self._channel.basic_reject(tag, requeue=False)

    def flush(self) -> bool:
        """Send buffered bytes as far as the network takes them; return whether it took all."""
        try:
            self._check()
            self._transport.flush()
        except Exception as error:
            raise self._loss(error) from error
        return not self._transport.backlog

    def read(self) -> list[Event]:
        """Return the received events; does not wait for more."""
        self._opened_by = None
        try:
            self._check()
            if self._sleep.end() and self._transport.receive():
                # The broker is alive, even if only a part of a large message has come.
                self._amqp.bytes_recv += 1
            self._take_in()
        except Exception as error:
            raise self._loss(error) from error
        return self.take_events()

    def _take_in(self) -> None:
        parse = self._transport.incoming.parse
        while (came := parse()) is not None:
            if isinstance(came, Delivery):
                self._events.append(came)
            elif isinstance(came, Confirm):
                self._on_confirm(came)
            else:
                self._pass_to_py_amqp(came)

    def _pass_to_py_amqp(self, frame: Frame) -> None:
        # If the frame closes the channel, py-amqp opens it again and waits for the answer.
        self._transport.expect_answer(_ANSWER_TIMEOUT)
        self._amqp.on_inbound_frame(frame)

    def take_events(self) -> list[Event]:
        """Return the events that were not returned yet; also after the loss of the connection."""
        events, self._events = self._events, []
        return events

    def wait(self, timeout: float | None, waker: Waker, read_delay: float = 0.0) -> None:
        """Wait up to *timeout* seconds for something to :meth:`read`, or until woken."""
        self._sleep.wait(timeout, waker, read_delay)

    def rest(self) -> None:
        """Keep incoming data from ending the current :meth:`wait`, or the next one."""
        self._sleep.rest()

    @property
    def rests(self) -> bool:
        """True from :meth:`rest` until the next :meth:`read`."""
        return self._sleep.rests

    def tick(self) -> float | None:
        """Send a heartbeat if one is due, and raise if the broker's heartbeats are missing."""
        interval = self._amqp.heartbeat / 4
        if not interval:
            return None
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + interval
            with self._losing():
                self._amqp.heartbeat_tick(rate=2)
        return float(self._next_tick - now)

    @property
    def congested(self) -> bool:
        """True while the network takes no more; :meth:`wait` returns when it does again."""
        return self._transport.backlog > _MAX_BACKLOG

    def take_unconfirmed(self) -> list[Publish]:
        """Return the messages without a fate; also after the loss of the connection."""
        return self._unconfirmed.take_all()

    def close(self) -> None:
        """Close the connection and free its resources; never raises, takes a second at most."""
        self._transport.expect_answer_until(Deadline(_CLOSE_TIMEOUT))
        try:
            if self._lost:
                raise ConnectionError
            self._amqp.close()
        except Exception:  # a broken connection can make py-amqp raise anything
            self._transport.abort()
        self._sleep.close()
        self._collect()

    def detach(self) -> None:
        """Close the descriptors only; in a forked child, whose parent uses the connection.

        The usual close would also shut the socket down for the parent.  So the socket is detached
        from every object that would close it, even when that is garbage-collected.
        """
        self._sleep.close()
        if (socket := self._transport.detach()) is not None:
            os.close(socket)

    def _collect(self) -> None:
        with suppress(AttributeError):
            self._amqp.collect()
        self._transport.close()

    # --- what py-amqp reports -----------------------------------------------

    def _on_cancel(self, tag: str) -> None:
        self._events.append(Cancelled(tag))

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        if self._confirms:
            self._unconfirmed.returned(message.properties.get("correlation_id"))
        else:
            self._on_unroutable(error, exchange, routing_key, message)

    def _on_unroutable(
        self, error: Exception, exchange: str, routing_key: str, message: Any
    ) -> None:
        self._events.append(Unroutable(message.properties.get("correlation_id")))

    def _on_traffic(self, came: Delivery | Confirm) -> None:
        """Handle a frame that came while py-amqp waits, and count it there as a sign of life."""
        self._amqp.bytes_recv += 1
        if isinstance(came, Delivery):
            self._events.append(came)
        else:
            self._on_confirm(came)

    def _on_confirm(self, came: Confirm) -> None:
        if came.taken:
            self._events.extend(self._unconfirmed.acked(came.tag, came.multiple))
        else:
            self._events.extend(self._unconfirmed.nacked(came.tag, came.multiple))

    def _on_life(self) -> None:
        """Count received bytes as a sign of life, and send heartbeats: the answer may take long."""
        self._amqp.bytes_recv += 1
        self.tick()

    def _on_blocked(self, blocked: bool) -> None:
        self._events.append(Blocked(blocked))

    # --- errors -------------------------------------------------------------

    @contextmanager
    def _synchronously(self) -> Iterator[None]:
        if self._opened_by is not None:
            self._transport.expect_answer_until(self._opened_by)
        else:
            self._transport.expect_answer(_ANSWER_TIMEOUT)
        self._sleep.took_in = True
        with self._losing():
            yield

    @contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            self._check()
            yield
        except (QueueIsDown, QAMConnectionException):  # already the right exception
            raise
        except Exception as error:
            raise self._loss(error) from error

    def _check(self) -> None:
        if self._lost:  # the socket may still seem open
            raise ConnectionError("it was closed")

    def _loss(self, error: Exception) -> Exception:
        """Return the QAMConnectionException for an *error* of py-amqp; a bug is returned as it is.

        An error that closes the channel counts as a loss: py-amqp would silently open the channel
        again, without its consumers and confirms.  A frame that py-amqp can't parse raises
        whatever its parser raises, and a socket that was closed meanwhile can raise anything.
        """
        if self._transport.connected and not isinstance(error, _LOSSES):
            return error  # a bug
        if self._opened_by is not None and isinstance(error, TimeoutError):
            self._lost = True
            failure = QAMConnectionException(
                f"can't connect to the broker at {self._endpoint}: "
                f"{why_refused(error, self._endpoint, self._opened_by.timeout or 0.0)}",
                executed="no",
            )
            failure.unanswered = True
            return failure
        if self._opened_by is not None and isinstance(error, amqp.ChannelError):
            return QAMConnectionException(
                f"the broker at {self._endpoint} refused user {self._endpoint.username!r}: "
                f"{error_text(error)}",
                executed="no",
            )
        lost = QAMConnectionException(
            f"the connection to the broker at {self._endpoint} was lost: {error_text(error)}"
        )
        by_channel = isinstance(error, amqp.ChannelError)
        # An exchange that is gone is no message's fault: it is declared on the next connection.
        lost.refused = isinstance(error, _REFUSALS)
        lost.by_message = by_channel and not isinstance(error, amqp.NotFound)
        self._lost = not by_channel
        return lost


def _make_transport(
    endpoint: Endpoint,
    deadline: Deadline,
    on_traffic: Callable[[Delivery | Confirm], None],
    on_life: Callable[[], object],
) -> BufferedTransport:
    settings = {}
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # py-amqp's default of one second is too short for a busy broker.
        settings[socket.TCP_USER_TIMEOUT] = 2 * endpoint.heartbeat * 1000
    return BufferedTransport(
        *(endpoint.host, endpoint.port, endpoint.tls, deadline, settings),
        on_traffic,
        on_life,
    )


def _make_connection(
    endpoint: Endpoint, transport: BufferedTransport, on_blocked: Any
) -> _Connection:
    return _Connection(
        transport,
        userid=endpoint.username,
        password=endpoint.password,
        virtual_host=endpoint.vhost,
        login_method="PLAIN",
        heartbeat=endpoint.heartbeat,
        on_blocked=lambda reason: on_blocked(True),
        on_unblocked=lambda: on_blocked(False),
    )


def _not_called(message: object) -> None:
    """Serve as the callback of a consumer; deliveries bypass py-amqp, so it is never called."""
