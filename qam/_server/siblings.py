"""Decides, with the other servers of one server_id, on requests that may have been received before.

Such a request must not run twice.  The broker's mark *redelivered* is no evidence that one
began to run: after the broker was killed, it marks every message.  So a server that receives
such a request asks the others, and waits for their answers.

How a server knows whom to ask: Each server has a queue of its own on an exchange that reaches
all of them, and says hello there before it takes its first request.  The queue outlives a lost
connection, so no server misses a hello.  A server that has seen the request queue empty, with
no consumer that it does not know, can *vouch*: each request that is delivered with a mark from
then on was received by servers that it knows.  A server that said goodbye has no request open.
A server that does not answer may have died with the request, so the request counts as lost.

No I/O and no clock here: :meth:`Siblings.heard` takes the words that arrive, and
:meth:`Siblings.take_messages` returns the words to send.  Only the thread that receives the
requests uses this.
"""

from collections.abc import Callable, Iterable
from math import inf

from qam._broker.messages import QueueState
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._server.call import Call, is_resent
from qam._server.known_siblings import VALID, KnownSiblings, Sibling
from qam._server.open_deliveries import UNSAFE_ACKS
from qam._server.queue_inspections import QueueInspections
from qam._server.record import Elsewhere, Record
from qam._server.sibling_outbox import SiblingOutbox
from qam._server.sibling_questions import Question, Questions, Verdict
from qam._server.sibling_words import MAX_SIBLINGS, NoWordError, Word, decode

#: Seconds in which no broker is killed and started again.
_SHORT_OUTAGE = 1.0


class Siblings:
    """The other servers of a server_id, as one of them sees them.

    :param instance: its own name among them.
    :param record: the requests that it has received itself.
    :param clock: seconds on a clock that only goes forward.
    :param warnings: logs the errors in the words of others.
    """

    def __init__(
        self,
        instance: str,
        record: Record,
        clock: Callable[[], float],
        warnings: RareWarnings,
    ) -> None:
        self._instance = instance
        self._record = record
        self._clock = clock
        self._warnings = warnings
        self._others = KnownSiblings()
        self._questions = Questions()
        self._outbox = SiblingOutbox(instance)
        # The requests whose replies other servers have asked this one to repeat.
        self._to_repeat: dict[CallKey, None] = {}
        self._inspections = QueueInspections()
        self._vouches_since: float | None = None
        self._opened_at = 0.0
        self._lost_at: float | None = None
        # Until when the broker may deliver what this server has acknowledged already.
        self._needed_until = -inf
        self._hello = 0
        #: True once all others know this server, so that it may take requests.
        self.announced = False

    @property
    def vouches(self) -> bool:
        """True if no unknown server can have received a request that arrives with a mark."""
        return self._vouches_since is not None

    def _stop_vouching(self) -> None:
        self._vouches_since = None
        self._record.uncover()

    # --- the connection -----------------------------------------------------------

    def opened(self, without_gap: bool) -> None:
        """A connection is open.

        :param without_gap: True if all words since then wait in this server's queue.
        """
        self._opened_at = now = self._clock()
        if self._lost_at is not None and now - self._lost_at > _SHORT_OUTAGE:
            self._needed_until = now + UNSAFE_ACKS
        self.announced = self._outbox.consumes = False
        self._hello += 1
        if not without_gap:
            self._stop_vouching()
            self._others.mark_all_unheard()
        self._outbox.say("hello", self._hello)

    def lost(self) -> None:
        """The connection is gone; the broker delivers the requests under judgement again."""
        for question in self._questions:
            # That this server vouches now says nothing of what it asked about before.
            if not (question.vouched or question.holders):
                self._record.note_elsewhere(question.key, Elsewhere.DOUBTFUL)
        self._lost_at = self._clock()
        self._questions.clear()
        self._outbox.forget_questions()
        self._others.give_up_roll_call()
        self._others.restore_recently_left(self._lost_at)

    def tell_consuming(self, whether: bool) -> None:
        """Tell the others that this server consumes from the request queue, or is about to stop.

        The others count its consumer only while it says so.  Otherwise they might take the
        consumer of an unknown server for this one's.
        """
        self._outbox.consumes = whether
        self._outbox.say("here")

    @property
    def is_needed(self) -> bool:
        """True while others may have to ask this server about what it has answered before.

        A broker that was killed may have lost the last acks.
        """
        return self._clock() < self._needed_until

    def leave(self) -> None:
        """Say goodbye: this server has no request at hand, and takes no more."""
        self._outbox.say_goodbye()

    # --- requests -------------------------------------------------------------------

    @property
    def others_consume(self) -> bool:
        """True if another server takes requests."""
        return self._others.count_consumers() > 0

    def ask(self, call: Call) -> None:
        """Ask the others about *call*; :meth:`take_verdicts` returns the verdict later."""
        key = call.key
        question = self._questions.get(key)
        if question is None:
            question = self._question(key, is_resent(call.delivery))
            self._questions.add(question)
            self._record.note_elsewhere(key)
            self._outbox.ask(key, question.resent)
        question.calls.append(call)

    def _question(self, key: CallKey, resent: bool) -> Question:
        vouched = self._vouches_for(key, resent)
        question = Question(key, resent, self._clock(), vouched, self._others.present)
        question.lost = self._is_lost(key, resent)
        if self._record.is_answered_elsewhere(key) and not resent:
            question.verdict = Verdict.MINE
        return question

    def _is_lost(self, key: CallKey, resent: bool) -> bool:
        """Return True if *key* may have run, and can't be answered here.

        If its client sent it again, an answer has to be repeated, by the one that gave it.
        """
        repeats = resent and self._record.is_answered_elsewhere(key)
        return repeats or self._record.is_lost(key)

    def ask_to_repeat(self, key: CallKey) -> None:
        """Ask the server that has answered the request *key* to send the reply again."""
        self._outbox.ask_to_repeat(key)

    def answered(self, calls: Iterable[Call]) -> None:
        """Tell the others of those *calls*, which are answered now, that they may have, too.

        Not of those that are given back: they are not in the record, and have to run.
        """
        keys = (each.key for each in calls if self._record.is_elsewhere(each.key))
        self._outbox.tell_done(key for key in keys if key in self._record.running)

    def is_judging(self, key: CallKey) -> bool:
        """Return True if *key* is under judgement."""
        return key in self._questions

    def _vouches_for(self, key: CallKey, resent: bool) -> bool:
        # A request that its client sent again may have been answered before the queue was empty.
        return self.vouches and (not resent or self._record.covers(key))

    def take_verdicts(self) -> list[tuple[list[Call], Verdict]]:
        """Return the requests that are judged now: the copies of each, and the verdict."""
        now = self._clock()
        for instance in self._others.end_roll_call(now):
            self._mark_absent(instance)
        verdicts = []
        for question in list(self._questions):
            in_doubt = bool(self._others.absent) or self._others.crowded
            verdict = question.judge(now, self._opened_at, in_doubt)
            if verdict is not None:
                self._close(question, verdict)
                verdicts.append((question.calls, verdict))
        return verdicts

    def _close(self, question: Question, verdict: Verdict) -> None:
        if verdict is Verdict.LOST and question.echoed_at is not None:
            for instance in tuple(question.silent):
                self._mark_absent(instance)
        self._questions.remove(question)
        was_asked = not self._outbox.withdraw_question(question.key)
        if verdict is Verdict.MINE and question.resent and not was_asked:
            self._outbox.ask_to_repeat(question.key)

    @property
    def held(self) -> int:
        """How many deliveries are kept, since a sibling has the request and may still die."""
        return sum(len(each.calls) for each in self._questions.held)

    def stop_holding(self, since: float) -> bool:
        """Keep no copy of the request any more that is held longest; return False if there is none.

        :param since: only if it is held since before that.
        """
        oldest = min(self._questions.held, key=_asked_at, default=None)
        if oldest is None or oldest.asked_at >= since:
            return False
        self._note_answered(oldest.key)
        return True

    # --- the known siblings -----------------------------------------------------------

    def _mark_absent(self, instance: str) -> None:
        """Take *instance*, which does not answer, for dead."""
        if self._others.mark_absent(instance):
            self._questions.died(instance)

    def _add(self, instance: str, there: bool) -> Sibling | None:
        """Add *instance* to the known siblings; return None if there is no room for it.

        While there is no room, this server does not vouch: *instance* may have requests that
        arrive with a mark.
        """
        sibling = self._others.add(instance, there)
        if sibling is None:
            self._stop_vouching()
            self._warnings.warn("there are more than %d servers of one server_id", MAX_SIBLINGS)
        elif there:
            self._questions.wait_for(instance)
        return sibling

    def _call_the_roll(self) -> None:
        """Find out which siblings are gone, before a request depends on that."""
        self._others.call_roll(self._clock())
        self._outbox.say("ask")

    # --- what is due ------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return the seconds until there is something to do, if no word arrives; None for never."""
        soonest = min(self._next_inspection(), self._others.roll_call_ends())
        if self.is_needed:
            soonest = min(soonest, self._needed_until)
        for each in self._questions:
            soonest = min(soonest, each.ends(self._opened_at))
        return None if soonest == inf else max(0.0, soonest - self._clock())

    def _next_inspection(self) -> float:
        if not self.announced or (self.vouches and not self._others):
            return inf
        is_calm = self.vouches and not (self._others.absent or self._questions.held)
        return self._inspections.next_due(is_calm)

    @property
    def inspection_is_due(self) -> bool:
        """True if the request queue is to be inspected, see :meth:`queue_inspected`."""
        return self._clock() >= self._next_inspection()

    def queue_inspected(self, state: QueueState, own_consumers: int) -> None:
        """Learn from the *state* of the request queue, which has *own_consumers* of this server."""
        now = self._clock()
        self._inspections.done(now)
        expected = own_consumers + self._others.count_consumers()
        is_suspicious = state.consumers < expected or self._a_holder_is_not_counted
        if is_suspicious and not self._others.roll_is_called:
            self._call_the_roll()
        if state.messages or state.consumers != expected:
            return
        # The queue is empty, so all unacknowledged requests are with known servers.
        if self._others.crowded:
            # If there is room now, the siblings without room answer the roll call.
            if self._others.has_room_again():
                self._call_the_roll()
        elif self._vouches_since is None:
            self._vouches_since = now
        for instance in list(self._others.absent):
            if self._others.forget_if_judged(instance, now):
                self._questions.died(instance)
                self._record.uncover()

    @property
    def _a_holder_is_not_counted(self) -> bool:
        """True if the number of consumers would not show the death of one that has a request."""
        holders = {each for question in self._questions.held for each in question.holders}
        return not all(map(self._others.is_consuming, holders))

    # --- words to send ------------------------------------------------------------------

    def take_messages(self) -> list[bytes]:
        """Return the words to send to all servers, this one included."""
        return self._outbox.take_messages(self._questions, self._others)

    def take_to_repeat(self) -> list[CallKey]:
        """Return the requests whose replies others have asked this server to repeat; each once."""
        to_repeat, self._to_repeat = self._to_repeat, {}
        return list(to_repeat)

    @property
    def has_messages(self) -> bool:
        """True if there are words to send or replies to repeat."""
        return bool(self._outbox or self._to_repeat)

    # --- words that arrive --------------------------------------------------------------

    def heard(self, body: bytes, redelivered: bool = False) -> None:
        """Take a word of a sibling, or of this server itself.

        :param redelivered: True if the broker has delivered it before, perhaps.

        A message that is no word is ignored.  So is a word of another protocol: its server
        stays unknown, so this one does not vouch while that one consumes.
        """
        try:
            word = decode(body)
        except NoWordError as error:
            self._warnings.warn(
                "a message of another server of the same server_id was ignored: %s", error
            )
            return
        # A goodbye that comes again may be older than the doubt in who has left.
        if word is None or (redelivered and word.kind == "bye"):
            return
        if word.sender == self._instance:
            self._hear_own(word)
        else:
            _HEAR[word.kind](self, word)

    def heard_too_large(self, size: int) -> None:
        """A message of *size* bytes arrived, which is too large for a word."""
        self._warnings.warn(
            "a message of another server of the same server_id was ignored: it has %d bytes", size
        )

    def _hear_own(self, word: Word) -> None:
        if word.kind == "hello":
            # The hello of an earlier connection may arrive before the others have this one.
            self.announced = self.announced or word.number == self._hello
        elif word.kind == "ask":
            self._questions.echoed(word.calls.keys(), self._clock())

    def _hear_here(self, word: Word) -> None:
        """Note that the sender of *word* is there."""
        sender = word.sender
        sibling = self._others.get(sender) or self._add(sender, there=True)
        if sibling is None:
            return
        before = self._others.is_consuming(sender)
        if self._others.came_back(sender):
            self._questions.wait_for(sender)
        sibling.heard, sibling.settled_at = True, None
        sibling.consumes = word.consumes
        if self._others.is_consuming(sender) and not before:
            self._inspections.hasten()
        sibling.last_heard = self._clock()

    def _hear_hello(self, word: Word) -> None:
        self._hear_here(word)
        self._outbox.greet()

    def _hear_bye(self, word: Word) -> None:
        self._record.uncover()
        if self._others.leave(word.sender, self._clock()):
            self._questions.left(word.sender)

    def _hear_ask(self, word: Word) -> None:
        self._hear_here(word)
        if self._outbox.full:
            self._warnings.warn("other servers of the same server_id ask more than can be answered")
            return
        answers = {
            key: self._word_on(key, resent, word.sender) for key, resent in word.calls.items()
        }
        self._outbox.answer(word.sender, answers, len(self._others))

    def _word_on(self, key: CallKey, resent: bool, asker: str) -> str:
        """Return the answer about *key*: mine, lost or never; or vouch: no server had it."""
        if self._record.knows(key):
            if resent:
                self._to_repeat[key] = None
            self._record.note_elsewhere(key)
            running = self._record.running.get(key)
            if running is None or running.outlives_its_delivery:
                self._outbox.tell_done([key])
            return "mine"
        if self._is_lost(key, resent):
            return "lost"
        if self._record.is_answered_elsewhere(key):
            self._outbox.tell_done([key])
            return "mine"
        question = self._questions.get(key)
        if question is not None:
            # If two servers judge it, the first by name goes on with it.
            if self._instance < asker:
                return "mine"
            question.claimed_by(asker, asker in self._others)
        self._record.note_elsewhere(key)
        since = self._vouches_since
        long_enough = since is not None and self._clock() - since >= VALID
        return "vouch" if long_enough and self._vouches_for(key, resent) else "never"

    def _hear_answer(self, word: Word) -> None:
        self._hear_here(word)
        if word.to != self._instance:
            return
        for instance, there in word.knows.items():
            if instance != self._instance and not self._others.has_heard_of(instance):
                self._add(instance, there)
        for key, said in word.calls.items():
            question = self._questions.get(key)
            if question is not None:
                known = word.sender in self._others
                question.take_word(word.sender, known, said, self._clock())

    def _hear_repeat(self, word: Word) -> None:
        self._hear_here(word)
        self._to_repeat |= {key: None for key in word.calls if self._record.knows(key)}

    def _hear_done(self, word: Word) -> None:
        self._hear_here(word)
        self._questions.answered(word.calls, word.sender)
        for key in word.calls:
            self._note_answered(key)

    def _note_answered(self, key: CallKey) -> None:
        if key.is_unique:  # else it may be used again
            self._record.note_elsewhere(key, Elsewhere.ANSWERED)


def _asked_at(question: Question) -> float:
    return question.asked_at


_HEAR: dict[str, Callable[[Siblings, Word], None]] = {
    "hello": Siblings._hear_hello,
    "here": Siblings._hear_here,
    "bye": Siblings._hear_bye,
    "ask": Siblings._hear_ask,
    "answer": Siblings._hear_answer,
    "done": Siblings._hear_done,
    "repeat": Siblings._hear_repeat,
}
