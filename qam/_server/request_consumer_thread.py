"""The thread of a server that receives requests."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from logging import DEBUG
from math import inf

from qam._broker.connect import Connect, connect
from qam._broker.connection import Connection
from qam._broker.connection_thread import ConnectionThread
from qam._broker.credentials import AMQPCredentials
from qam._broker.events import Cancelled, Event
from qam._broker.messages import Delivery
from qam._broker.upkeep import Upkeep
from qam._common.deadline import Deadline, sooner
from qam._common.logs import get_logger
from qam._common.printable import printable
from qam._common.rare_warnings import RareWarnings
from qam._server.call import Call
from qam._server.closing import CloseStep, Closing
from qam._server.intake import Decision, Decisions, Intake
from qam._server.mailboxes import ResultQueue, SettledCalls
from qam._server.messages import Message, Messages
from qam._server.open_deliveries import UNSAFE_ACKS
from qam._server.prefetch import Prefetch
from qam._server.presence_queue import PresenceQueue
from qam._server.request_queue import RequestQueue
from qam._server.settings import ServerSettings
from qam._server.siblings_queue import SiblingsQueue
from qam._server.surplus import Surplus
from qam._server.worker_pool import WorkerPool
from qam.exceptions import QAMConnectionException

log = get_logger("qam.qam_server")

#: Seconds that closing leaves for the requests at hand.
CLOSE_TIMEOUT = 30.0
#: Seconds beyond its timeout that closing may take to end the threads of a server.
CLOSE_GRACE = 5.0
#: While so many messages wait to be written, the other servers get no answers.
_MAX_BACKLOG = 10_000
#: Seconds until a server that stands back looks for a free worker again.
_ROOM_PAUSE = 0.25
#: Seconds until the backlog is checked again.
_OVERLOAD_PAUSE = 0.05
#: RabbitMQ sends what it has in segments of 1.4 kB, and many requests so in quick succession, a few
#: in each.  Once more than a few have come together, those behind them are read together, too:
#: seconds for which they wait, for each that has come, and at most.
_FEW, _DELAY_PER_REQUEST, _MOST_DELAY = 2, 0.00005, 0.002


class RequestConsumerThread(ConnectionThread):
    """Takes requests from the queue, hands them to workers, and acknowledges them once settled.

    :class:`~qam._server.intake.Intake` decides what becomes of a request; this thread carries
    that out.

    :param credentials: where to connect.
    :param settings: the settings of the server.
    :param prefetch: how many unacknowledged requests the broker delivers.
    :param messages: makes the messages of the server.
    :param workers: run the requests.
    :param results: takes the messages to be written.
    :param settled: gives the calls that may be acknowledged.
    :param ended: called at the end of this thread, with the error that ended it, or None.
    :param connect: opens a connection to one of the brokers.
    """

    def __init__(
        self,
        credentials: AMQPCredentials,
        settings: ServerSettings,
        prefetch: Prefetch,
        messages: Messages,
        workers: WorkerPool,
        results: ResultQueue,
        settled: SettledCalls,
        ended: Callable[[BaseException | None], None],
        connect: Connect = connect,
    ) -> None:
        name = f"qam server RequestConsumerThread {settings.server_id}"
        endpoints, timeout = credentials.endpoints(), settings.connect_timeout
        super().__init__(name, endpoints, log, timeout, settled.waker, settings.stations, connect)
        self._messages = messages
        self._workers = workers
        self._results = results
        self._settled = settled
        self._ended = ended
        self._warnings = RareWarnings(log)
        instance = uuid.uuid4().hex
        # A dead connection is noticed after two heartbeats; the third is a margin.
        unsafe = max(UNSAFE_ACKS, 3.0 * credentials.heartbeat)
        self._intake = Intake(instance, time.monotonic, self._warnings, unsafe)
        self._siblings = self._intake.siblings
        self._closing = Closing(time.monotonic)
        self._surplus = Surplus()
        self._upkeep = Upkeep()
        # How many events the last read has brought.
        self._came_together = 0
        self._request_queue = RequestQueue(settings, prefetch)
        self._siblings_queue = SiblingsQueue(settings, instance)
        self._presence_queue = PresenceQueue(settings)
        #: Set once the server consumes requests, or never will.
        self.taking = threading.Event()

    # --- from other threads ---------------------------------------------------

    def begin_to_close(self, deadline: Deadline) -> None:
        """Take no more requests; end once those at hand are answered, or at *deadline*.

        Only sets a flag, so a signal handler may call it.
        """
        self._closing.begin(deadline.at)
        self._settled.hurry()
        self.wake()

    @property
    def takes_requests(self) -> bool:
        """Whether there is a consumer on the request queue at this moment."""
        return self.is_connected and self._request_queue.is_attached

    def exit(self) -> None:
        """Take no more requests, answer those at hand, and end; waits for that.

        An interrupted start calls this too: requests may have been received by then.
        """
        self.begin_to_close(Deadline(CLOSE_TIMEOUT))
        self.join_until(Deadline(CLOSE_TIMEOUT + CLOSE_GRACE))

    # --- the connection ---------------------------------------------------------

    def _on_open(self, connection: Connection) -> None:
        self._request_queue.declare(connection)
        follows = self._presence_queue.declare(connection)
        without_gap = self._siblings_queue.open(connection)
        self._presence_queue.consume(connection)
        self._upkeep.done(time.monotonic())
        hello = self._intake.opened(without_gap, follows)
        number = self._intake.connection_number
        self._results.put(self._siblings_queue.message(hello, number))

    def _next_due(self) -> float | None:
        due = sooner(self._siblings.next_due(), self._closing.next_due())
        if not self._closing.begun:
            due = sooner(due, self._next_look_at_surplus())
            if self._request_queue.stands_back:  # a worker that becomes idle says nothing
                due = sooner(due, _ROOM_PAUSE)
            due = sooner(due, max(0.0, self._upkeep.due - time.monotonic()))
        return sooner(due, _OVERLOAD_PAUSE) if self._siblings.has_messages else due

    def _read_delay(self) -> float:
        came = self._came_together
        return min(came * _DELAY_PER_REQUEST, _MOST_DELAY) if came > _FEW else 0.0

    def _next_look_at_surplus(self) -> float | None:
        look_at = self._surplus.next_look(self._workers.waiting_since())
        return None if look_at == inf else max(0.0, look_at - time.monotonic())

    @property
    def _is_overloaded(self) -> bool:
        """True while so many messages wait that the words of siblings must not add to them."""
        return self._siblings.has_messages and len(self._results) >= _MAX_BACKLOG

    def _write(self, connection: Connection) -> None:
        self._siblings.hello_confirmed(self._settled.announced)
        self._acknowledge(connection)
        if self._siblings.inspection_is_due:
            self._inspect_request_queue(connection)
        if self._intake.waits_for_acks:
            self._request_queue.inspect(connection)
            self._carry_out(self._intake.acks_arrived(), connection)
        self._carry_out(self._intake.take_judged(), connection)
        self._send_acks(connection)  # perhaps nothing else happens for long
        if not self._is_overloaded:
            self._send_words()
        if self._closing.begun:
            self._close_down(connection)
            return
        now = time.monotonic()
        if now >= self._upkeep.due:
            self._declare_again(connection)
        self._share_work(connection, now)
        self._request_queue.make_room(self._siblings.held + self._workers.nested, now)
        if self._siblings.announced and not self._request_queue.is_as_wanted:
            self._consume(connection)

    def _declare_again(self, connection: Connection) -> None:
        self._request_queue.declare(connection)
        self._siblings_queue.declare_again(connection)
        self._presence_queue.declare_again(connection)
        if self._presence_queue.consumer_tag is None:  # its node was down before
            self._presence_queue.consume(connection)
        self._upkeep.done(time.monotonic())

    def _share_work(self, connection: Connection, now: float) -> None:
        """Leave requests that can't be started to other servers, if there are any."""
        if self._request_queue.stands_back and self._workers.has_room:
            self._request_queue.stands_back = False
            self._surplus.looked_long_ago()
        if now < self._surplus.next_look(self._workers.waiting_since()):
            return
        self._surplus.looked(now)
        if self._request_queue.is_attached and self._siblings.others_consume:
            self._leave_to_others(connection, now)

    def _leave_to_others(self, connection: Connection, now: float) -> None:
        if self._request_queue.is_consumed:
            self._stop_consuming(connection)  # first, or what is published anew would come back
            self._request_queue.stands_back = True
            self._surplus.looked_long_ago()  # more may have come with the answer
        left, kept = self._intake.leave_to_others(self._workers.take_back())
        self._workers.put(kept)
        for call in left:
            self._results.put(self._messages.request_anew(call, now))

    def _inspect_request_queue(self, connection: Connection) -> None:
        # The servers first: what one had that is not there any more is in the queue by then.
        self._siblings.servers_counted(self._presence_queue.count_others(connection))
        state = self._request_queue.inspect(connection)
        # What was delivered before the queue was seen empty may have been anybody's.
        self._on_events(connection.take_events())
        self._siblings.queue_inspected(state, own_consumers=self._request_queue.is_consumed)

    def _consume(self, connection: Connection) -> None:
        """Begin to consume requests, or go on with another prefetch."""
        is_adapted = self._request_queue.is_consumed
        if not (is_adapted or self._siblings.vouches):
            # Before this server consumes, so that each request is delivered after the inspection.
            self._inspect_request_queue(connection)
        self._request_queue.consume(connection)
        self._settled.set_prefetch(self._request_queue.consumer_prefetch)
        self._workers.prefetch = self._request_queue.consumer_prefetch
        if is_adapted:
            return
        if not self._siblings.vouches:
            self._inspect_request_queue(connection)  # its own consumer shows that the queue answers
        self._siblings.tell_consuming(True)
        self._send_words()
        self.taking.set()

    def _stop_consuming(self, connection: Connection) -> None:
        self._siblings.tell_consuming(False)
        self._send_words()
        self._request_queue.cancel(connection)

    def _on_lost(self, connection: Connection, error: QAMConnectionException) -> None:
        self._intake.lost(self._workers.take_back(), error.by_message)
        self._request_queue.lost()

    def _without_connection(self) -> float | None:
        """Settle calls, and go on closing; the replies use the connection of the publisher."""
        self._take_settled(None)
        if self._closing.begun:
            self._close_down(None)
        return self._closing.next_due()

    # --- requests come ------------------------------------------------------------

    def _on_events(self, events: Sequence[Event]) -> None:
        to_run: list[Call] = []
        self._came_together = len(events)
        try:
            self._receive(events, to_run)
        finally:  # together, since that takes a lock; and also those before an error
            if to_run:
                self._workers.put(to_run)

    def _receive(self, events: Sequence[Event], to_run: list[Call]) -> None:
        """Decide on the requests among *events*; append those that are to be run to *to_run*."""
        now, number = time.monotonic(), self._intake.connection_number
        siblings_tag, is_watched = self._siblings_queue.consumer_tag, log.isEnabledFor(DEBUG)
        presence_tag = self._presence_queue.consumer_tag
        for event in events:
            if isinstance(event, Delivery):
                if event.consumer_tag == siblings_tag:
                    self._intake.heard(event)
                elif event.consumer_tag != presence_tag:
                    call = Call(event, number, arrived=now)
                    if len(events) == 1:
                        call.alone = True
                    if is_watched:
                        self.stations.note("received", call.correlation_id)
                    decision = self._intake.received(call)
                    if decision is Decision.RUN:
                        to_run.append(call)
                    else:
                        self._carry_out_one(decision, call)
            elif isinstance(event, Cancelled):
                raise self._ended_consumer(event.consumer)

    def _ended_consumer(self, consumer: str) -> QAMConnectionException:
        """Return the error that the broker has ended *consumer*, as when its queue is deleted."""
        for queue in (self._siblings_queue, self._presence_queue):
            if consumer == queue.consumer_tag:
                return queue.deleted()
        is_there = self._request_queue.is_there(self._connection)
        return self._request_queue.cancelled() if is_there else self._request_queue.deleted()

    # --- decisions are carried out -----------------------------------------------

    def _carry_out(self, decisions: Decisions, connection: Connection | None) -> None:
        for decision, call in decisions:
            if decision is Decision.REJECT and connection is not None:
                connection.reject(call.delivery.delivery_tag)
            else:
                self._carry_out_one(decision, call)

    def _carry_out_one(self, decision: Decision, call: Call) -> None:
        if decision is Decision.RUN:
            self._workers.put([call])
        elif decision is Decision.ANSWER and call.answer is not None:
            self._results.put(self._messages.reply(call, call.answer))
        elif decision is Decision.REFUSE:
            self._refuse(call)

    def _refuse(self, call: Call) -> None:
        """Tell the caller of a request that its body is too large, if it can be told."""
        why = call.delivery.too_large
        self._warnings.warn("a request was rejected: it %s", why)
        reply = self._messages.refusal(call, f"the request {why}")
        if reply is None:
            self._settled.put_now(call)
        else:
            self._results.put(reply)

    def _send_words(self) -> None:
        """Send the words for the other servers, and the replies that they ask to repeat."""
        for key, answer in self._intake.take_to_repeat():
            self._results.put(self._messages.repeated_reply(key, answer))
        for word in self._siblings.take_messages():
            self._results.put(self._siblings_queue.message(word))

    # --- requests are settled --------------------------------------------------------

    def _acknowledge(self, connection: Connection) -> None:
        settled = self._take_settled(connection)
        self._send_acks(connection)
        if settled and log.isEnabledFor(DEBUG):
            self._note_settled(settled)

    def _send_acks(self, connection: Connection) -> None:
        for tag, multiple in self._intake.take_acks():
            connection.acknowledge(tag, multiple)

    def _note_settled(self, calls: list[Call]) -> None:
        for call in calls:
            if call.connection_number == self._intake.connection_number:
                name = "rejected" if call.rejected else "acknowledged"
                self.stations.note(name, call.correlation_id, last=True)

    def _take_settled(self, connection: Connection | None) -> list[Call]:
        settled = self._settled.take_all()
        if settled:
            seconds = [each.seconds for each in settled if each.seconds is not None]
            self._request_queue.adapt_prefetch(seconds)
            self._carry_out(self._intake.settled(settled), connection)
        return settled

    # --- closing ------------------------------------------------------------------------

    def _close_down(self, connection: Connection | None) -> None:
        consuming = self._request_queue.is_consumed
        is_needed = connection is not None and self._siblings.is_needed
        idle = self._intake.is_idle and not is_needed
        match self._closing.next_step(consuming, idle):
            case CloseStep.STOP_CONSUMING if connection is not None:
                self._stop_consuming(connection)
                self.wake()  # to come back here after the deliveries that came with the cancel
            case CloseStep.LEAVE if connection is not None:
                self._leave(connection)
            case CloseStep.GIVE_BACK:
                self._give_up()
            case CloseStep.LEAVE | CloseStep.END:
                self.kill = True

    def _give_up(self) -> None:
        """Give back the requests that were not started, and report the running ones as lost."""
        now = time.monotonic()
        # A lost one stays at hand: it must not run as if nobody had had it.
        not_started = [call for call in self._workers.take_back() if not call.lost]
        self._intake.give_back(not_started)
        not_started += self._intake.take_held_back()
        messages = [self._messages.request_anew(call, now) for call in not_started]
        at_hand = self._intake.at_hand
        running = [call for call in at_hand if call.answer is None]
        messages += [told for call in running if (told := self._give_up_call(call)) is not None]
        self._workers.cancel()
        for message in messages:
            self._results.put(message)
        # What is answered waits for the broker's confirm.
        self.kill = not messages and all(call.answer is None for call in at_hand)

    def _give_up_call(self, call: Call) -> Message | None:
        """Return the reply to a call whose method still runs; None if another server answers it."""
        call.given_up = True  # first: what its method raises because of that is no answer
        method = f"{printable(call.method_name)}()" if call.method_name else "a method"
        log.warning("%s still runs, and the server closes: its reply will be lost", method)
        if call.idempotent:  # the broker delivers the request to another server, which runs it
            return None
        return self._messages.loss(call, f"the server closed while {method} ran")

    def _leave(self, connection: Connection) -> None:
        """Say goodbye, after the broker has shown that it has all acks: no request is at hand."""
        self._request_queue.inspect(connection)
        # First: RabbitMQ 4.0 ends the connection that sends a word to a quorum queue while that is
        # being deleted, and with it replies.
        self._siblings_queue.unbind(connection)
        self._siblings.leave()
        self._send_words()
        self._siblings_queue.delete(connection)
        self.kill = True

    def _on_end(self, error: BaseException | None) -> None:
        self.taking.set()
        self._ended(error)
