"""The thread of a proxy that receives replies."""

import math
import time
from collections.abc import Mapping, Sequence
from logging import DEBUG
from typing import Any

from qam._broker.connect import CONNECT_TIMEOUT, Connect, connect
from qam._broker.connection import Connection
from qam._broker.connection_thread import ConnectionThread
from qam._broker.credentials import AMQPCredentials
from qam._broker.events import Cancelled, Consumer, Event
from qam._broker.messages import MAX_MESSAGE_BYTES, Delivery
from qam._broker.upkeep import Upkeep
from qam._client.pending_call import PendingCall
from qam._client.publisher_thread import PublisherThread
from qam._client.reply_queue import ReplyQueue
from qam._client.result_list import DONE, FREE, WAITING, Outcome, Slot
from qam._common.deadline import NO_END
from qam._common.error_texts import describe
from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import number_of
from qam._protocol.multicalls import result_in
from qam._protocol.replies import decode_reply, outcome
from qam._serialization.refusals import Receiver
from qam._serialization.serializers import Serializer, as_serializer
from qam.exceptions import (
    QAMConnectionException,
    QAMException,
    QAMMethodNotFoundException,
    QAMSerializationException,
)

log = get_logger("qam.qam_proxy")

Message = dict[str, Any]

#: Seconds for which the acknowledgement of a reply waits for others: nothing depends on it.
_ACKNOWLEDGE_DELAY = 0.05
#: Seconds from a reply until a resting publisher is told to look for confirms.
_LOOK_AGAIN_DELAY = 0.5
#: Seconds for which a reply waits for others: for each open call, the shortest wait that
#: pays, and the longest.  A call among many takes fifty times as long anyway.
_DELAY_PER_CALL, _LEAST_DELAY, _MOST_DELAY = 2e-6, 0.0002, 0.005


class ConsumerThread(ConnectionThread):
    """Receives the replies of the server and stores them in the result list.

    A reply is a dict of ``id`` (int), ``result``, ``exception`` (bool) and
    ``internal_exception`` (int).  The thread that asks for the result decodes it, since
    unpickling can run user code, and this thread runs none.  The reply of a 0.2.x server
    is decoded here, since only its body says which call it answers.

    :param amqp_credentials: where to connect, an :class:`~qam.amqp_credentials.AMQPCredentials`.
    :param server_id: the server whose replies are received.
    :param client_id: names the reply queue and its routing key.
    :param serializer: ``'pickle'``, ``'json'`` or ``'msgpack'``, as the server is configured.
    :param publisher: sends the calls, and has the result list; by default one of its own,
        which is not started.
    :param queue_arguments: the arguments of the reply queue, beside its expiry.
    :param connect_timeout: seconds that connecting may take.
    :param wait_for_broker: seconds for which the first attempt to connect is repeated.
    :param max_message_bytes: the size of the largest reply that is received, in bytes.
    :param persistent: whether the broker keeps requests and replies.
    :param connect: opens a connection to one of the brokers.
    """

    #: States of a slot: no call uses it; its call has no outcome yet; its call has one.
    FREE, WAITING, DONE = FREE, WAITING, DONE

    def __init__(
        self,
        amqp_credentials: AMQPCredentials,
        server_id: str,
        client_id: str,
        serializer: str | Serializer,
        *,
        publisher: PublisherThread | None = None,
        queue_arguments: Mapping[str, Any] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        wait_for_broker: float = 0.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        persistent: bool = True,
        connect: Connect = connect,
    ) -> None:
        name = f"qam ConsumerThread {client_id}"
        publisher = publisher or PublisherThread(amqp_credentials, server_id, client_id, serializer)
        endpoints, stations = amqp_credentials.endpoints(), publisher.stations
        super().__init__(
            name,
            endpoints,
            log,
            connect_timeout,
            stations=stations,
            connect=connect,
            wait_for_broker=wait_for_broker,
        )
        self.amqp_credentials = amqp_credentials
        self.server_id = server_id
        self.client_id = client_id
        self._serializer = as_serializer(serializer)
        # The label that the user knows, without the random part on the wire.
        self._receiver = Receiver("client", client_id.rpartition(".")[0] or client_id)
        self._publisher = publisher
        self._results = self._publisher.results
        self._persistent = persistent
        self._reply_queue = ReplyQueue(
            server_id, client_id, queue_arguments or {}, max_message_bytes, persistent
        )
        #: The consumer on the reply queue: its queue and tag; None while not connected.
        self.consumer: Consumer | None = None
        self._last_tag = 0
        self._warnings = RareWarnings(log)
        self._upkeep = Upkeep()
        # When the received replies are acknowledged, and when the publisher is to look again.
        self._acknowledge_at = self._look_again_at = math.inf

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

        :param callback_method: called with the result; None for a call that is waited for.
        :param exception_method: called with the exception if the call fails, or None.
        :returns: the id of the slot, which is in the state WAITING now.
        """
        return self._results.reserve(callback_method, exception_method)

    def free_result_item(self, id: int) -> None:
        """Free a slot.  A late reply to its call is dropped.

        :param id: the slot's id; a slot that is free already stays free.
        """
        self._results.free(id)

    def is_result_received(self, id: int) -> bool:
        """Return True if the outcome of a call is there; does not wait.

        :param id: the slot's id.
        """
        return bool(self.result_list[id]["state"] == DONE)

    def get_result_item(self, id: int) -> Any:
        """Return the outcome in a slot, and leave it there; does not wait.

        :param id: the slot's id.
        :returns: the reply, a dict; the :class:`~qam.exceptions.QAMException` that ended the call
            in this process; or None if there is no outcome yet.
        """
        slot = self._results.slots[id]
        message = slot["result_message"]
        if isinstance(message, Delivery):
            message = slot["result_message"] = self._decode(message)
        return message

    def _decode(self, delivery: Delivery) -> Message | QAMException:
        try:
            return decode_reply(self._serializer, delivery, self._receiver)
        except QAMSerializationException as error:
            if not delivery.too_large:  # else a warning was logged when it came
                log.warning("a reply can't be decoded: %s", error)
            return error

    def get_result(self, id: int) -> Any:
        """Wait for the result of a call without limit, return it, and free the slot.

        :param id: the slot's id.
        :raises QAMMethodNotFoundException: the server has no such method.
        :raises QAMException: the call ended without a result or exception of its method.
        :raises Exception: the exception that the remote method raised.
        """
        slot = self._results.slots[id]
        if slot["state"] != DONE:  # a callback's slot has its outcome already
            self._results.wait(id, NO_END)
        message, call = slot["result_message"], slot["call"]
        self._results.free(id)
        return self.read_outcome(message, call)

    def read_outcome(self, message: Any, call: PendingCall | None) -> Any:
        """Return the result in *message*, the outcome of *call*, or raise what :meth:`get_result`
        raises.
        """
        if isinstance(message, Delivery):
            message = self._decode(message)
        if call is not None and log.isEnabledFor(DEBUG):
            self._publisher.stations.ended(call, _how_it_ended(message))
        if isinstance(message, QAMException):
            raise message
        try:
            return outcome(message)
        except QAMMethodNotFoundException as error:
            raise self._with_hint(error, call) from None

    def result_in(self, packed: Any) -> Any:
        """Return the result of one call of a MultiCall; raise its exception.

        :param packed: as it stands in the result of ``system.multicall``.
        """
        return result_in(packed, self._serializer, self._receiver)

    def _with_hint(
        self, error: QAMMethodNotFoundException, call: PendingCall | None
    ) -> QAMMethodNotFoundException:
        by_keyword = call is not None and call.has_keywords
        if not by_keyword or self._results.server_keeps_record is not False:
            return error
        return QAMMethodNotFoundException(
            f"{error}; the server is of 0.2.x, which knows no keyword arguments: "
            "pass them by position"
        )

    # --- as owner of a connection ---------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        consumer, replies_lost = self._reply_queue.open(connection)
        self._upkeep.done(time.monotonic())
        if replies_lost:  # not before: the new replies need the new queue
            self._publisher.replies_lost()
        self.consumer = consumer
        self._publisher.replies_can_come()

    def _write(self, connection: Connection) -> None:
        now = time.monotonic()
        if now >= self._acknowledge_at:
            self._acknowledge_at = math.inf
            connection.acknowledge(self._last_tag, multiple=True)
        if now >= self._look_again_at:
            self._look_again_at = math.inf
            self._publisher.look_again()
        if now >= self._upkeep_at:
            self._reply_queue.declare_again(connection)
            self._upkeep.done(now)

    @property
    def _upkeep_at(self) -> float:
        """When the reply queue is declared again: only while replies are expected."""
        return self._upkeep.due if self._results.open_calls else math.inf

    def _next_due(self) -> float | None:
        due = min(self._acknowledge_at, self._look_again_at, self._upkeep_at)
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def _on_events(self, events: Sequence[Event]) -> None:
        outcomes: list[Outcome] = []
        came = False
        try:
            for event in events:
                if isinstance(event, Delivery):
                    outcomes.append(self._receive(event))
                    self._last_tag, came = event.delivery_tag, True
                elif isinstance(event, Cancelled):
                    raise self._reply_queue.deleted()
        finally:  # the replies before an error were received all the same
            if outcomes and log.isEnabledFor(DEBUG):
                self._publisher.stations.received(outcomes)
            for call_id in self._results.conclude_all(outcomes):
                log.debug("a reply was dropped, since no call waits for it (id %s)", call_id)
        if came and self._persistent:
            now = time.monotonic()
            self._acknowledge_at = min(self._acknowledge_at, now + _ACKNOWLEDGE_DELAY)
            self._look_again_at = min(self._look_again_at, now + _LOOK_AGAIN_DELAY)

    def _read_delay(self) -> float:
        delay = self._results.open_calls * _DELAY_PER_CALL
        return min(delay, _MOST_DELAY) if delay >= _LEAST_DELAY else 0.0

    def _receive(self, delivery: Delivery) -> Outcome:
        """Return which call *delivery* answers, None if no call of ours, and the call's outcome."""
        message: Delivery | Message | QAMException = delivery
        if delivery.too_large:
            self._warnings.warn("a reply was dropped: it %s", delivery.too_large)
        correlation_id = delivery.correlation_id
        self._results.server_keeps_record = correlation_id is not None
        if correlation_id is not None:
            return number_of(correlation_id, self.client_id), message
        # a 0.2.x server: only the body says which call it answers
        message = self._decode_here(delivery)
        call_id = message.get("id") if isinstance(message, dict) else None
        # An id of another type is none of ours, and may not even be hashable.
        return call_id if type(call_id) is int else None, message

    def _decode_here(self, delivery: Delivery) -> Message | QAMException:
        """Decode a reply in this thread, and survive any error of the classes that it builds."""
        try:
            return self._decode(delivery)
        except BaseException as error:
            return QAMSerializationException(
                f"a reply can't be decoded: {describe(error)}", executed="yes"
            )

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        self.consumer = None
        self._acknowledge_at = self._look_again_at = math.inf
        self._publisher.look_again()
        self._publisher.connection_lost(error)

    def _before_close(self, connection: Connection) -> None:
        self._reply_queue.delete(connection)

    def _on_end(self, error: BaseException | None) -> None:
        self._publisher.end_calls(error)


def _how_it_ended(message: Message | QAMException) -> str:
    """Return how a call ended, in words that follow "ended"."""
    if isinstance(message, QAMException):
        return f"by a {type(message).__name__}"
    return "by an exception from the server" if message.get("exception") else "with a result"
