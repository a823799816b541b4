"""The thread of a server that receives."""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from qam._broker.connection import Connection, QueueIsDown
from qam._broker.connection_thread import ConnectionThread
from qam._broker.credentials import AMQPCredentials
from qam._broker.events import Cancelled, Consumer, Event
from qam._broker.messages import (
    MAX_MESSAGE_BYTES,
    PERSISTENT,
    Delivery,
    Publish,
    QueueState,
    TooLarge,
)
from qam._common.deadline import Deadline, sooner
from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._protocol.entities import request_binding, siblings_binding
from qam._server.call import Answer, Call
from qam._server.held_back import HeldBack
from qam._server.messages import Messages, declare_server
from qam._server.open_deliveries import OpenDeliveries
from qam._server.prefetch import Prefetch
from qam._server.record import Record
from qam._server.sibling_questions import Verdict
from qam._server.sibling_words import MAX_BYTES
from qam._server.siblings import Siblings
from qam.exceptions import QAMConnectionException

log = get_logger("qam.qam_server")

#: Seconds that closing gives the requests at hand.
CLOSE_TIMEOUT = 30.0
#: Seconds beyond its timeout that closing may take to end the threads of a server.
CLOSE_GRACE = 5.0
#: Seconds that giving requests back may take when closing has no time left.
_GIVE_BACK_TIME = 2.0
#: Seconds for which what siblings say waits for a server that is away.  One that is away
#: for longer is taken for dead, and knows that it has missed something.
_SIBLINGS_QUEUE_EXPIRES = 10
#: How many messages may wait to be sent before the others get no answers for the time being.
_MAX_BACKLOG = 10_000
#: Seconds before it is looked again whether there is room.
_OVERTAXED_PAUSE = 0.05
_SIBLINGS_PROPERTIES = {"content_type": "application/json", "delivery_mode": PERSISTENT}


class RequestConsumerThread(ConnectionThread):
    """Takes requests from the queue, hands them to workers, and acknowledges them late.

    A request that may have been received before is judged first, see
    :class:`~qam._server.siblings.Siblings`.

    :param messages: makes the messages of the server.
    :param arguments: what the request queue is declared with.
    :param take: takes a request that came.
    :param take_back: returns the requests that no worker has started.
    :param publish: has a message sent.
    :param backlog: returns how many messages wait to be sent.
    :param max_message_bytes: the size of the largest request that is taken in.
    :param ended: told of the end of this thread, and of the error that led to it.
    """

    def __init__(
        self,
        credentials: AMQPCredentials,
        server_id: str,
        prefetch: Prefetch,
        messages: Messages,
        arguments: dict[str, Any],
        *,
        take: Callable[[Call], None],
        take_back: Callable[[], list[Call]],
        publish: Callable[[Publish], None],
        backlog: Callable[[], int] = lambda: 0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        ended: Callable[[BaseException | None], None],
        connect_timeout: float,
    ) -> None:
        name = f"qam server RequestConsumerThread {server_id}"
        super().__init__(name, credentials, log, connect_timeout)
        self._server_id = server_id
        self._prefetch = prefetch
        self._messages = messages
        self._arguments = arguments
        self._take = take
        self._take_back = take_back
        self._publish = publish
        self._backlog = backlog
        self._max_message_bytes = max_message_bytes
        self._warnings = RareWarnings(log)
        self._ended = ended
        self._queue = request_binding(server_id).queue
        self._consumer: Consumer | None = None
        self._consumer_prefetch = 0
        self._connection_number = 0
        self._open_deliveries = OpenDeliveries()
        self._record = Record()
        self._held_back = HeldBack()
        instance = uuid.uuid4().hex
        self._siblings = Siblings(instance, self._record, time.monotonic, self._warnings)
        self._siblings_binding = siblings_binding(server_id, instance)
        self._siblings_consumer: Consumer | None = None
        #: Set once requests are taken, or will not be any more.
        self.taking = threading.Event()
        self._settled: list[Call] = []
        # Guards _settled.
        self._settled_lock = threading.Lock()
        # By when the requests at hand have to be answered, once the server closes;
        # and then, by when those have to be given back that were not.
        self._answer_until: Deadline | None = None
        self._give_back_until: Deadline | None = None

    # --- from other threads ---------------------------------------------------

    def settle(self, calls: Iterable[Call]) -> None:
        """Everything is done for *calls*: they may be acknowledged.

        They are acknowledged with others, when this thread wakes next.  It is not woken
        for each, but when the broker would soon deliver no more, or when the server
        closes; and some milliseconds later by the thread that publishes.
        """
        with self._settled_lock:
            self._settled.extend(calls)
            many = 4 * len(self._settled) >= self._consumer_prefetch
        if many or self._answer_until is not None:
            self.wake()

    def settle_now(self, call: Call) -> None:
        """As :meth:`settle`, where nobody wakes this thread before long."""
        self.settle([call])
        self.wake()

    def begin_to_close(self, deadline: Deadline) -> None:
        """Take no more requests; end when those at hand are answered, or at *deadline*.

        Only sets a flag, so a signal handler may call it.
        """
        self._answer_until = self._answer_until or deadline
        if self._connection is None:  # nothing at hand can be answered or given back
            self.kill = True
        self.wake()

    def exit(self) -> None:
        """Take no more requests, answer those at hand, and end; return when that is done.

        Also when a start is interrupted: requests may have been taken by then.
        """
        self.begin_to_close(Deadline(CLOSE_TIMEOUT))
        self.join_until(Deadline(CLOSE_TIMEOUT + CLOSE_GRACE))

    # --- the connection ---------------------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        declare_server(connection, self._server_id, self._arguments)
        without_gap = self._declare_siblings_queue(connection)
        self._connection_number += 1
        self._open_deliveries = OpenDeliveries()
        self._consumer = None
        # Higher each time: the consumer of a connection that is lost may still be served.
        self._siblings_consumer = connection.consume(
            self._siblings_binding.queue, priority=self._connection_number, max_bytes=MAX_BYTES
        )
        self._siblings.opened(without_gap)

    def _declare_siblings_queue(self, connection: Connection) -> bool:
        """Declare this server's queue among its siblings; return whether it was there already."""
        binding = self._siblings_binding
        connection.declare_exchange(binding.exchange)
        without_gap = self._connection_number > 0 and connection.look(binding.queue) is not None
        arguments = {"x-expires": _SIBLINGS_QUEUE_EXPIRES * 1000}
        if "x-queue-type" in self._arguments:
            arguments["x-queue-type"] = self._arguments["x-queue-type"]
        try:
            connection.declare_queue(binding, arguments)
        except QueueIsDown:  # on a cluster, with the node that has it
            queue = f"{binding.queue}.{self._connection_number}"
            self._siblings_binding = binding._replace(queue=queue)
            connection.declare_queue(self._siblings_binding, arguments)
        return without_gap

    def _consume(self, connection: Connection) -> None:
        """Consume with the prefetch that is wanted now, in place of what went before."""
        before, self._consumer_prefetch = self._consumer, self._prefetch.wanted
        self._consumer = connection.consume(
            self._queue, prefetch=self._consumer_prefetch, max_bytes=self._max_message_bytes
        )
        if before is not None:
            connection.cancel(before)
        else:
            self._siblings.tell_consuming(True)
            self._talk()
        self.taking.set()

    def _next_due(self) -> float | None:
        deadline = self._give_back_until or self._answer_until
        due = sooner(self._siblings.next_due(), deadline.wait_time() if deadline else None)
        return sooner(due, _OVERTAXED_PAUSE) if self._siblings.has_messages else due

    @property
    def _is_overtaxed(self) -> bool:
        """True while more waits to be sent than others may add to by what they say."""
        return self._siblings.has_messages and self._backlog() >= _MAX_BACKLOG

    def _write(self, connection: Connection) -> None:
        self._acknowledge(connection)
        self._receive_what_was_held_back(connection)
        self._carry_out_verdicts()
        if not self._is_overtaxed:
            self._talk()
        if self._siblings.look_is_due:
            self._siblings.looked(self._look(connection), own_consumers=bool(self._consumer))
        if self._answer_until is not None:
            self._close_down(connection, self._answer_until)
        elif self._siblings.announced and (
            self._consumer is None or self._prefetch.wanted != self._consumer_prefetch
        ):
            self._begin_or_adapt(connection)

    def _begin_or_adapt(self, connection: Connection) -> None:
        if self._consumer is None and not self._siblings.vouches:
            # Before the first request comes: then all others come after this look.
            self._siblings.looked(self._look(connection), own_consumers=0)
        self._consume(connection)

    def _look(self, connection: Connection) -> QueueState:
        state = connection.look(self._queue)
        if state is None:
            raise self._queue_deleted()
        return state

    def _queue_deleted(self) -> QAMConnectionException:
        return QAMConnectionException(f"the request queue of {self._server_id!r} was deleted")

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        # The broker delivers them again: the copies that were not started are void.
        not_started = self._take_back()
        for call in not_started:
            self._record.drop(call)
        self._held_back.lost_connection(not_started)
        for call in self._record.running.values():
            call.copies = None
            # As after a method that ran longer than the broker allows; it would close
            # the channel for the same method again.
            call.outlives_its_delivery |= error.by_message
        self._siblings.lost()
        self._consumer = None
        if self._answer_until is not None:
            self.kill = True

    # --- requests come ------------------------------------------------------------

    def _on_events(self, events: Sequence[Event]) -> None:
        now, siblings_tag = time.monotonic(), self._siblings_tag
        for event in events:
            if isinstance(event, Delivery):
                self._open_deliveries.opened(event.delivery_tag)
                if event.consumer_tag == siblings_tag:
                    self._hear(event)
                    self._open_deliveries.done([event.delivery_tag])
                else:
                    call = Call(event, self._connection_number, arrived=now)
                    call.alone = len(events) == 1
                    if not self._held_back.hold(call):
                        self._receive(call)
            elif isinstance(event, Cancelled):
                if event.consumer == siblings_tag:
                    raise QAMConnectionException("the queue of what its siblings say was deleted")
                raise self._queue_deleted()

    @property
    def _siblings_tag(self) -> str | None:
        return self._siblings_consumer.tag if self._siblings_consumer else None

    def _hear(self, word: Delivery) -> None:
        if word.too_large:
            self._siblings.left_out(word.too_large.size)
        else:
            self._siblings.heard(word.body)

    def _receive(self, call: Call) -> None:
        """Find out whether a request that came has been here or elsewhere before."""
        key = call.key
        if key is None:  # a 0.2.x client: there is nothing by which to recognize it
            call.lost = call.delivery.redelivered
            self._hand_over(call)
        elif self._record.knows(key):
            self._receive_again(call, self._record.latest(key))
        elif call.marked or self._record.was_asked(key) or self._siblings.is_judging(key):
            self._siblings.ask(call)
        else:
            # Of what was given back, later ones of the same client may have run elsewhere.
            first = self._siblings.vouches and not call.given_back
            self._begin(call, first)

    def _receive_again(self, call: Call, key: CallKey) -> None:
        if key in self._record.running:
            self._receive_copy(call, self._record.running[key])
            return
        answer = self._record.answer(key)
        if answer is None:
            self._siblings.have_repeated(key.next_run)
        self._answer_again(call, answer)

    def _begin(self, call: Call, first: bool = False) -> None:
        self._record.begin(call, first)
        self._hand_over(call)

    def _hand_over(self, call: Call) -> None:
        if call.delivery.too_large:
            self._refuse(call, call.delivery.too_large)
            return
        if call.lost:
            self._held_back.begin(call)
        self._take(call)

    def _refuse(self, call: Call, why: TooLarge) -> None:
        """Have a request dropped of which the body is not here; tell its caller, if that can be."""
        self._warnings.warn("a request was not taken in: it %s", why)
        call.rejected = True
        reply = self._messages.refusal(call, f"the request {why}")
        if reply is None:
            self.settle_now(call)
        else:
            self._publish(reply)

    def _receive_what_was_held_back(self, connection: Connection) -> None:
        if self._held_back.ready:
            self._look(connection)  # an answer tells that the broker has the acks
            for call in self._held_back.take_ready():
                self._receive(call)

    def _receive_copy(self, call: Call, running: Call) -> None:
        if running.outlives_its_delivery:
            self._finish(call)
        else:
            running.copies = running.copies or []
            running.copies.append(call)

    def _answer_again(self, call: Call, answer: Answer | None) -> None:
        if answer is None:
            self._finish(call)
        else:
            self._publish(self._messages.reply(call, answer))

    def _repeat_answers(self) -> None:
        for key in self._siblings.take_to_repeat():
            self._repeat_answer(self._record.latest(key))

    def _repeat_answer(self, key: CallKey) -> None:
        if key in self._record.running:
            return
        answer = self._record.answer(key)
        if answer is not None:
            self._publish(self._messages.repeated_reply(key, answer))
        else:  # perhaps because it was given to another to run again
            self._siblings.have_repeated(key.next_run)

    def _carry_out_verdicts(self) -> None:
        for calls, verdict in self._siblings.take_verdicts():
            first, *others = calls
            if verdict is Verdict.MINE:
                others = calls
            else:
                first.lost = verdict is Verdict.LOST
                self._begin(first)
            for call in others:
                self._finish(call)

    def _talk(self) -> None:
        """Send what the other servers are to hear, and what they want to be sent again."""
        self._repeat_answers()
        for body in self._siblings.take_messages():
            route = self._siblings_binding.route
            self._publish(Publish(route, body, _SIBLINGS_PROPERTIES, mandatory=False))

    # --- requests are settled --------------------------------------------------------

    def _acknowledge(self, connection: Connection) -> None:
        with self._settled_lock:
            settled, self._settled = self._settled, []
        if settled:
            self._conclude(connection, settled)
        for tag, multiple in self._open_deliveries.take_acks():
            connection.acknowledge(tag, multiple)

    def _conclude(self, connection: Connection, settled: list[Call]) -> None:
        self._record.end(settled)
        self._held_back.end(settled)
        self._prefetch.ran([call.seconds for call in settled if call.seconds is not None])
        for call in settled:
            for copy in call.copies or ():
                self._answer_again(copy, call.answer)
            if call.rejected:
                self._reject(connection, call)
        # What was rejected is open no more, and what another connection brought went with it.
        self._open_deliveries.done(
            [
                call.delivery.delivery_tag
                for call in settled
                if call.connection_number == self._connection_number
            ]
        )

    def _reject(self, connection: Connection, call: Call) -> None:
        """Have the broker drop a delivery that is of no use to anybody."""
        if call.connection_number == self._connection_number:
            self._open_deliveries.dropped(call.delivery.delivery_tag)
            connection.reject(call.delivery.delivery_tag)

    def _finish(self, call: Call) -> None:
        """There is nothing more to do for a delivery; it is acknowledged with the next ones."""
        if call.connection_number == self._connection_number:  # else it went with its connection
            self._open_deliveries.done([call.delivery.delivery_tag])

    # --- closing ------------------------------------------------------------------------

    def _close_down(self, connection: Connection, answer_until: Deadline) -> None:
        if self._consumer is not None:
            self._siblings.tell_consuming(False)
            self._talk()
            connection.cancel(self._consumer)
            self._consumer = None
            self.wake()  # to look here again after what came with the cancel
        elif not (self._open_deliveries or self._record.running):
            self._leave(connection)
        elif self._give_back_until is not None:
            self.kill = self._give_back_until.expired
        elif answer_until.expired:
            # What was not started waits for another server; what still runs does not.
            calls = self._take_back()
            for call in calls:
                self._record.drop(call)
            calls += self._held_back.take_all()
            for call in calls:
                self._publish(self._messages.request_anew(call))
            self._give_back_until = Deadline(_GIVE_BACK_TIME)
            self.kill = not calls

    def _leave(self, connection: Connection) -> None:
        """Nothing is open: say goodbye, once the broker is known to have all acks."""
        self._look(connection)
        self._siblings.leave()
        self._talk()
        connection.delete_queue(self._siblings_binding.queue)
        self.kill = True

    def _on_end(self, error: BaseException | None) -> None:
        self.taking.set()
        self._ended(error)
