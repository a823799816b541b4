"""What becomes of a request that comes to a server.  No I/O, no threads and no clock here.

A request runs if nobody can have begun with it; else it is one that runs here, was
answered here, or is another server's; or the other servers are asked, and it waits for
their words; or it waits for the end of what it replaces.

What happened goes in, and what is to be done comes out: the thread that receives the
requests carries it out.  Nobody else uses this.
"""

from collections.abc import Callable, Iterable
from enum import Enum

from qam._broker.messages import Delivery
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._server.anonymous_calls import AnonymousCalls
from qam._server.call import Answer, Call
from qam._server.held_back import HeldBack
from qam._server.open_deliveries import OpenDeliveries
from qam._server.record import Record
from qam._server.sibling_questions import Verdict
from qam._server.siblings import Siblings


class Decision(Enum):
    """What is to be done with a request now."""

    RUN = "run"  # hand it to a worker, which runs its method, or answers that it is lost
    REFUSE = "refuse"  # tell its caller that it is too large; then it is settled
    ANSWER = "answer"  # send its answer, which it has
    REJECT = "reject"  # have the broker drop its delivery
    NOTHING = "nothing"  # it waits, or there is nothing more to do for it


Decisions = list[tuple[Decision, Call]]


class Intake:
    """The requests of one server, from their delivery to their acknowledgement.

    :param instance: the name of the server among those of its server_id.
    :param clock: seconds on a clock that only goes forward.
    :param warnings: takes what is wrong with the words of other servers.
    """

    def __init__(self, instance: str, clock: Callable[[], float], warnings: RareWarnings) -> None:
        self._clock = clock
        self._record = Record()
        self._anonymous = AnonymousCalls()
        # Those that a worker has, or is about to get; whatever becomes of their deliveries.
        self._at_hand: set[Call] = set()
        self._held_back = HeldBack()
        self._deliveries = OpenDeliveries()
        #: What is known of the other servers.
        self.siblings = Siblings(instance, self._record, clock, warnings)
        #: How many connections were opened; what another one brought is not acknowledged.
        self.connection_number = 0
        self._is_connected = False

    # --- the connection -----------------------------------------------------------

    def opened(self, without_gap: bool) -> None:
        """A connection is open.

        :param without_gap: all that siblings said in the meantime waits in their queue.
        """
        self.connection_number += 1
        self._is_connected = True
        self._deliveries = OpenDeliveries()
        self._anonymous.connection_opened(self._clock())
        self.siblings.opened(without_gap)

    def lost(self, not_started: Iterable[Call], by_message: bool) -> None:
        """The connection is gone: the broker delivers again what was not acknowledged.

        :param not_started: the requests that no worker has begun with; they are void.
        :param by_message: the broker closed it for something that it does not allow.
        """
        self._is_connected = False
        not_started = list(not_started)
        self._forget(not_started)
        self._held_back.lost_connection(not_started)
        self._record.forget(self._anonymous.take_safe(self._clock()))
        for call in self._at_hand:
            call.duplicates = None
        if by_message:
            self._note_what_outlives_its_delivery()
        self.siblings.lost()

    def _note_what_outlives_its_delivery(self) -> None:
        """Perhaps a method runs longer than the broker allows: that is the one that came first.

        Else it would close the channel for the same method again.
        """
        others = [call for call in self._at_hand if not call.outlives_its_delivery]
        if others:
            min(others, key=_arrival).outlives_its_delivery = True

    def _forget(self, not_started: Iterable[Call]) -> None:
        for call in not_started:
            self._record.drop(call)
            self._at_hand.discard(call)

    @property
    def is_idle(self) -> bool:
        """True if no request is at hand."""
        return not (self._deliveries or self._at_hand)

    @property
    def at_hand(self) -> list[Call]:
        """The requests that a worker has begun with, or may begin with."""
        return list(self._at_hand)

    # --- requests come ------------------------------------------------------------

    def heard(self, word: Delivery) -> None:
        """A sibling said something, or this server itself."""
        self._deliveries.opened(word.delivery_tag)
        if word.too_large:
            self.siblings.heard_too_large(word.too_large.size)
        else:
            self.siblings.heard(word.body)
        self._deliveries.done([word.delivery_tag])

    def received(self, call: Call) -> Decision:
        """A request came: decide what becomes of it."""
        self._deliveries.opened(call.delivery.delivery_tag)
        return Decision.NOTHING if self._held_back.hold(call) else self._judge(call)

    def _judge(self, call: Call) -> Decision:
        """Find out whether a request has been here or elsewhere before."""
        key = call.key
        if call.is_anonymous and not call.delivery.redelivered:
            # Another call of the same client may be the same in every byte.
            return self._begin(call)
        if self._record.knows(key):
            return self._judge_known(call, self._record.latest(key))
        if call.marked or self._record.was_asked(key) or self.siblings.is_judging(key):
            self.siblings.ask(call)
            return Decision.NOTHING
        # A request that was given back does not prove that we have seen all later ones of
        # its client: they may have run elsewhere.
        return self._begin(call, first=self.siblings.vouches and not call.given_back)

    def _judge_known(self, call: Call, key: CallKey) -> Decision:
        if key in self._record.running:
            return self._add_duplicate(call, self._record.running[key])
        answer = self._record.answer(key)
        if answer is None and not call.is_anonymous:
            self.siblings.have_repeated(key.next_run)
        return self._answer_again(call, answer)

    def _add_duplicate(self, call: Call, running: Call) -> Decision:
        if running.outlives_its_delivery:
            return self._acknowledge(call)
        running.duplicates = running.duplicates or []
        running.duplicates.append(call)
        return Decision.NOTHING

    def _answer_again(self, call: Call, answer: Answer | None) -> Decision:
        if answer is None:
            return self._acknowledge(call)
        call.answer = answer
        return Decision.ANSWER

    def _begin(self, call: Call, first: bool = False) -> Decision:
        self._record.begin(call, first)
        return self._start(call)

    def _start(self, call: Call) -> Decision:
        if call.delivery.too_large:
            call.rejected = True
            return Decision.REFUSE
        if call.lost:
            self._held_back.begin(call)
        self._at_hand.add(call)
        return Decision.RUN

    # --- what was undecided is decided --------------------------------------------

    @property
    def waits_for_acks(self) -> bool:
        """True if a request waits until the broker is known to have all acks."""
        return self._held_back.ready

    def acks_arrived(self) -> Decisions:
        """The broker has all acks: decide what becomes of the requests that waited for that."""
        return [(self._judge(call), call) for call in self._held_back.take_ready()]

    def take_judged(self) -> Decisions:
        """Return what becomes of the requests that the other servers were asked about."""
        decisions = []
        for calls, verdict in self.siblings.take_verdicts():
            first, *others = calls
            if verdict is Verdict.MINE:
                self._acknowledge(first)
            else:
                first.lost = verdict is Verdict.LOST
                decisions.append((self._begin(first), first))
            for call in others:
                self._acknowledge(call)
        return decisions

    def take_to_repeat(self) -> list[tuple[CallKey, Answer]]:
        """Return the answers that are wanted by clients whose requests came to another server.

        What is answered elsewhere is asked for there.
        """
        repeated = []
        for key in map(self._record.latest, self.siblings.take_to_repeat()):
            if key in self._record.running:
                continue
            answer = self._record.answer(key)
            if answer is not None:
                repeated.append((key, answer))
            else:  # perhaps because it was given to another to run again
                self.siblings.have_repeated(key.next_run)
        return repeated

    # --- requests are settled -----------------------------------------------------

    def settled(self, calls: list[Call]) -> Decisions:
        """*calls* are answered, or nobody can be: decide what becomes of their duplicates."""
        self._end(calls)
        decisions = []
        for call in calls:
            if call.duplicates:
                answer = None if call.is_anonymous else call.answer
                decisions += [(self._answer_again(x, answer), x) for x in call.duplicates]
            if call.rejected and self._is_connected and self._is_open(call):
                self._deliveries.dropped(call.delivery.delivery_tag)
                decisions.append((Decision.REJECT, call))
        # What was rejected is open no more.
        number = self.connection_number
        self._deliveries.done(
            [each.delivery.delivery_tag for each in calls if each.connection_number == number]
        )
        return decisions

    def _end(self, calls: list[Call]) -> None:
        now = self._clock()
        self._record.end(calls)
        self._held_back.end(calls)
        self._at_hand.difference_update(calls)
        self._anonymous.end(calls, now)
        if self._is_connected:
            self._record.forget(self._anonymous.take_safe(now))

    def _is_open(self, call: Call) -> bool:
        """False for what another connection brought: its delivery went with it."""
        return call.connection_number == self.connection_number

    def _acknowledge(self, call: Call) -> Decision:
        """There is nothing more to do for a delivery; it is acknowledged with the next ones."""
        if self._is_open(call):
            self._deliveries.done([call.delivery.delivery_tag])
        return Decision.NOTHING

    def take_acks(self) -> list[tuple[int, bool]]:
        """Return what to acknowledge now, as pairs of tag and *multiple*."""
        return self._deliveries.take_acks()

    def give_back(self, not_started: Iterable[Call]) -> list[Call]:
        """Return the requests that another server is to run: there is no more time to start them.

        :param not_started: those that no worker has begun with.
        """
        calls = list(not_started)
        self._forget(calls)
        return calls + self._held_back.take_all()


def _arrival(call: Call) -> float:
    return call.arrived
