"""Decides what becomes of a request that a server receives.  No I/O, threads or clock here.

A request runs if no server can have begun to run it.  If it runs here or was answered here,
it is a duplicate, or is answered from the record.  If it may have been received elsewhere, the
other servers are asked, and it waits for their answers.  If it replaces an earlier request, it
waits until that one is acknowledged.

Events go in, and decisions come out.  The thread that receives the requests carries them out;
no other thread uses this.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from math import inf

from qam._broker.messages import Delivery
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._server.call import Answer, Call
from qam._server.held_back import HeldBack
from qam._server.open_deliveries import UNSAFE_ACKS, OpenDeliveries
from qam._server.record import Record
from qam._server.reused_keys import ReusedKeys
from qam._server.sibling_questions import Verdict
from qam._server.siblings import Siblings


class Decision(Enum):
    """The next step for a request."""

    RUN = "run"  # hand it to a worker, which runs its method, or answers that it is lost
    REFUSE = "refuse"  # tell its caller that it is too large; then it is settled
    ANSWER = "answer"  # send the answer that is stored in the call
    REJECT = "reject"  # have the broker drop its delivery
    NOTHING = "nothing"  # it waits, or is done


Decisions = list[tuple[Decision, Call]]


class Intake:
    """The requests of one server, from their delivery to their acknowledgement.

    :param instance: the name of the server among those of its server_id.
    :param clock: seconds on a clock that only goes forward.
    :param warnings: logs the errors in the words of other servers.
    :param unsafe: for how many seconds the broker may lack an ack that was sent.
    """

    def __init__(
        self,
        instance: str,
        clock: Callable[[], float],
        warnings: RareWarnings,
        unsafe: float = UNSAFE_ACKS,
    ) -> None:
        self._clock = clock
        self._record = Record()
        self._reused_keys = ReusedKeys(unsafe)
        # The requests that a worker has or will get, whether their deliveries are open or not.
        self._at_hand: set[Call] = set()
        self._held_back = HeldBack()
        self._deliveries = OpenDeliveries()
        #: The other servers, and the questions to them.
        self.siblings = Siblings(instance, self._record, clock, warnings)
        #: How many connections were opened.  A delivery of an earlier one can't be acknowledged.
        self.connection_number = 0
        self._is_connected = False

    # --- the connection -----------------------------------------------------------

    def opened(self, without_gap: bool, follows: bool = False) -> bytes:
        """A connection is open; return the hello to the other servers, with its number in it.

        :param without_gap: True if all words of siblings since then wait in the queue for them.
        :param follows: True if another server may have gone just before, and none is there.
        """
        self.connection_number += 1
        self._is_connected = True
        self._reused_keys.connection_opened(self._clock())
        return self.siblings.opened(without_gap, follows)

    def lost(self, not_started: Iterable[Call], by_message: bool) -> None:
        """The connection is gone: the broker delivers the unacknowledged requests again.

        :param not_started: the requests that no worker has begun; they are dropped.
        :param by_message: True if the broker closed the channel because of an error on it.
        """
        self._is_connected = False
        self._deliveries = OpenDeliveries()  # those that there are can't be acknowledged
        not_started = list(not_started)
        self._forget(not_started)
        self._held_back.lost_connection(not_started)
        for call in self._at_hand:
            call.duplicates = None
            call.is_elsewhere = True
            self._record.note_elsewhere(call.key)
        if by_message:
            self._note_what_outlives_its_delivery()
        self.siblings.lost()

    def _note_what_outlives_its_delivery(self) -> None:
        """Note that the oldest request that this server has, has no delivery any more.

        Perhaps its method ran longer than the broker allows, here or with a sibling.  If a copy
        of its request were held unacknowledged, the broker would close the channel again.
        """
        others = [call for call in self._at_hand if not call.outlives_its_delivery]
        oldest = min(others, key=_arrival, default=None)
        if not self.siblings.stop_holding(oldest.arrived if oldest else inf) and oldest:
            oldest.outlives_its_delivery = True

    def _forget(self, not_started: Iterable[Call]) -> None:
        for call in not_started:
            self._record.drop(call)
            self._at_hand.discard(call)

    @property
    def is_idle(self) -> bool:
        """True if no request is at hand; those that siblings have go back to the queue."""
        return not self._at_hand and len(self._deliveries) <= self.siblings.held

    @property
    def at_hand(self) -> list[Call]:
        """The requests that a worker has begun, or may begin."""
        return list(self._at_hand)

    # --- requests come ------------------------------------------------------------

    def heard(self, word: Delivery) -> None:
        """A *word* of a sibling, or of this server itself, arrived."""
        self._deliveries.opened(word.delivery_tag)
        self._forget_reused_keys()
        if word.too_large:
            self.siblings.heard_too_large(word.too_large.size)
        else:
            self.siblings.heard(word.body, word.redelivered)
        self._deliveries.done([word.delivery_tag])

    def received(self, call: Call) -> Decision:
        """A request arrived: return what to do with it."""
        self._deliveries.opened(call.delivery.delivery_tag)
        self._forget_reused_keys()
        return Decision.NOTHING if self._held_back.hold(call) else self._judge(call)

    def _judge(self, call: Call) -> Decision:
        """Decide on a request: is it in the record, may another server have it, or is it new?"""
        key = call.key
        known = self._record.knows(key)
        suspected = self._record.is_elsewhere(key) or self.siblings.is_judging(key)
        if not call.marked and (known or suspected) and not key.is_unique:
            # Another call of the same client has the same key.
            return self._begin(call)
        if known:
            return self._judge_known(call, self._record.latest(key))
        if call.marked or suspected or (call.given_back and self._may_have_missed_a_copy(call)):
            self.siblings.ask(call)
            return Decision.NOTHING
        # A request that was given back, or runs again, does not prove that we have received all
        # later requests of its client: they may have run elsewhere.
        was_elsewhere = call.given_back or call.runs > 1
        return self._begin(call, first=self.siblings.vouches and not was_elsewhere)

    def _may_have_missed_a_copy(self, call: Call) -> bool:
        """Return True if *call*, given back, was that before this server heard all that is asked.

        Its client may have sent it again meanwhile, and a server that got that copy and asked
        about it runs that one.
        """
        return call.key.is_unique and not self.siblings.vouches

    def _judge_known(self, call: Call, key: CallKey) -> Decision:
        if key in self._record.running:
            return self._add_duplicate(call, self._record.running[key])
        asks = call.is_resent and not call.is_anonymous
        if asks and self._record.is_passed_on(key):
            return self._judge_next_run(call, key)
        return self._answer_again(call, self._record.answer(key))

    def _judge_next_run(self, call: Call, key: CallKey) -> Decision:
        """Decide on *call* as on the next run of *key*, which was published anew.

        Its client asks for an answer, and only who has that run can give one.
        """
        call.become_run(key.next_run)
        return self._judge(call)

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

    # --- requests that waited for a decision --------------------------------------

    @property
    def waits_for_acks(self) -> bool:
        """True if a request waits for the broker to show that it has all acks."""
        return self._held_back.ready

    def acks_arrived(self) -> Decisions:
        """The broker has all acks: return the decisions on the requests that waited for that."""
        return [(self._judge(call), call) for call in self._held_back.take_ready()]

    def take_judged(self) -> Decisions:
        """Return the decisions on the requests that the other servers have answered about."""
        decisions = []
        for calls, verdict in self.siblings.take_verdicts():
            first, *others = calls
            if verdict is Verdict.AGAIN:
                decisions.append((self._judge_next_run(first, first.key), first))
            elif verdict is Verdict.MINE:
                self._acknowledge(first)
            else:
                first.lost = verdict is Verdict.LOST
                decisions.append((self._begin(first), first))
            for call in others:
                self._acknowledge(call)
        return decisions

    def take_to_repeat(self) -> list[tuple[CallKey, Answer]]:
        """Return the answers to send again to clients whose resent requests reached other servers.

        If another server has the answer to a later run, ask that one to send it.
        """
        repeated = []
        for key in map(self._record.latest, self.siblings.take_to_repeat()):
            running = self._record.running.get(key)
            answer = running.repeatable_answer if running else self._record.answer(key)
            if answer is not None:
                repeated.append((key, answer))
            elif running is None:  # perhaps another server has run it again
                self.siblings.ask_to_repeat(key.next_run)
        return repeated

    # --- requests are settled -----------------------------------------------------

    def settled(self, calls: list[Call]) -> Decisions:
        """*calls* are answered, or can't be: return the decisions on them and their duplicates."""
        self.siblings.answered(calls)
        self._end(calls)
        decisions = []
        for call in calls:
            if call.duplicates:
                answer = call.repeatable_answer
                decisions += [(self._answer_again(x, answer), x) for x in call.duplicates]
            if call.rejected and self._is_connected and self._is_open(call):
                self._deliveries.dropped(call.delivery.delivery_tag)
                decisions.append((Decision.REJECT, call))
        # A rejected delivery is not open any more, so it is not acknowledged.
        number = self.connection_number
        self._deliveries.done(
            [each.delivery.delivery_tag for each in calls if each.connection_number == number]
        )
        return decisions

    def _end(self, calls: list[Call]) -> None:
        self._record.end(calls)
        self._held_back.end(calls)
        self._at_hand.difference_update(calls)
        self._reused_keys.end(calls, self._clock())

    def _forget_reused_keys(self) -> None:
        """Forget the requests whose keys may come again by now as those of others."""
        if self._reused_keys.ended:
            self._record.forget(self._reused_keys.take_safe(self._clock()))

    def _is_open(self, call: Call) -> bool:
        """Return False if an earlier connection delivered *call*: its delivery went with it."""
        return call.connection_number == self.connection_number

    def _acknowledge(self, call: Call) -> Decision:
        """Settle a request that needs no answer; it is acknowledged with the next ones."""
        if self._is_open(call):
            self._deliveries.done([call.delivery.delivery_tag])
        return Decision.NOTHING

    def take_acks(self) -> list[tuple[int, bool]]:
        """Return the acks to send now, as pairs of tag and *multiple*."""
        return self._deliveries.take_acks()

    def give_back(self, not_started: Iterable[Call]) -> None:
        """Forget requests that no worker has begun: they are published anew for other servers."""
        self._forget(not_started)

    def leave_to_others(self, waiting: Iterable[Call]) -> tuple[list[Call], list[Call]]:
        """Return those of the *waiting* requests to be published anew, and those that are kept.

        Each is published anew once: servers that all have too much to do would pass it around.
        What may have run, or may be with another server, is kept.
        """
        left, kept = list[Call](), list[Call]()
        for call in waiting:
            may_have_run = call.lost or call.runs > 1 or call.is_elsewhere
            (kept if call.given_back or may_have_run else left).append(call)
        self.give_back(left)
        return left, kept

    def take_held_back(self) -> list[Call]:
        """Return the requests that are held back: they are published anew, too."""
        return self._held_back.take_all()


def _arrival(call: Call) -> float:
    return call.arrived
