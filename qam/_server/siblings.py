"""What the servers of one server_id know of each other, and ask each other.

A request that may have been received before must not run twice.  That the broker
marks it as redelivered is no evidence: after it was killed, it marks every message.
So the one that receives such a request asks the others, and waits for their words.

How they know whom to ask.  Each server has a queue of its own on an exchange that
reaches all of them, and says hello there before it takes its first request; the
queue outlives a lost connection, so none misses a hello.  One that has seen the
request queue empty, with no consumer that it does not know, can *vouch*: whatever
comes marked from then on was received by servers that it knows.  One that said
goodbye has left nothing open.  One that does not answer may be dead with the request
in its hands, so that counts as lost.

No I/O and no clock here: :meth:`Siblings.heard` takes in what came,
:meth:`Siblings.take_messages` returns what is to be sent.  All belongs to the thread
that receives the requests.
"""

from collections.abc import Callable
from math import inf

from qam._broker.messages import QueueState
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._server.call import Call, is_resent
from qam._server.known_siblings import GRACE, VALID, KnownSiblings, Sibling
from qam._server.queue_inspections import QueueInspections
from qam._server.record import Record
from qam._server.sibling_outbox import SiblingOutbox
from qam._server.sibling_questions import Question, Questions, Verdict
from qam._server.sibling_words import MAX_SIBLINGS, NoWordError, Word, decode


class Siblings:
    """The other servers of a server_id, as one of them sees them.

    :param instance: its own name among them.
    :param record: what it has received itself.
    :param clock: seconds on a clock that only goes forward.
    :param warnings: takes what is wrong with the words of others.
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
        # The requests whose answers others want to be sent again.
        self._to_repeat: dict[CallKey, None] = {}
        self._inspections = QueueInspections()
        self._vouches_since: float | None = None
        self._opened_at = 0.0
        self._hello = 0
        #: True once this server is known to all others, and may take requests.
        self.announced = False

    @property
    def vouches(self) -> bool:
        """True if whatever comes marked was received by nobody unknown."""
        return self._vouches_since is not None

    def _vouch_no_more(self) -> None:
        self._vouches_since = None
        self._record.uncover()

    # --- the connection -----------------------------------------------------------

    def opened(self, without_gap: bool) -> None:
        """A connection is open.

        :param without_gap: all that was said in the meantime waits in the queue.
        """
        self._opened_at = self._clock()
        self.announced = self._outbox.consumes = False
        self._hello += 1
        if not without_gap:
            self._vouch_no_more()
            self._others.begin_to_hear_anew()
        self._outbox.say("hello", self._hello)

    def lost(self) -> None:
        """The connection is gone, and what was under judgement comes again."""
        if not self.vouches:
            for question in self._questions:
                self._record.note_asked(question.key, doubtful=True)
        self._questions.clear()
        self._outbox.forget_questions()
        self._others.give_up_roll_call()
        self._others.bring_back_who_just_left(self._clock())

    def tell_consuming(self, whether: bool) -> None:
        """This server has begun to consume from the request queue, or is about to end that.

        Others count with its consumer only while it says so: else it would make up for one
        that nobody knows.
        """
        self._outbox.consumes = whether
        self._outbox.say("here")

    def leave(self) -> None:
        """Say goodbye: this server has nothing open, and takes nothing any more."""
        self._outbox.say_goodbye()

    # --- requests -------------------------------------------------------------------

    def ask(self, call: Call) -> None:
        """Find out what is to become of *call*; see :meth:`take_verdicts`."""
        key = call.key
        question = self._questions.get(key)
        if question is None:
            question = self._question(key, is_resent(call.delivery))
            self._questions.add(question)
            self._outbox.ask(key, question.resent)
        question.calls.append(call)

    def _question(self, key: CallKey, resent: bool) -> Question:
        vouched = self._vouches_for(key, resent)
        question = Question(key, resent, self._clock(), vouched, self._others.present)
        question.lost = self._record.is_lost(key)
        return question

    def have_repeated(self, key: CallKey) -> None:
        """Have whoever answered the request *key* send its answer again."""
        self._outbox.ask(key, resent=True)

    def is_judging(self, key: CallKey) -> bool:
        """Return True if the verdict on *key* is open."""
        return key in self._questions

    def _vouches_for(self, key: CallKey, resent: bool) -> bool:
        # That the queue was empty says nothing of a request that was sent before.
        return self.vouches and (not resent or self._record.covers(key))

    def take_verdicts(self) -> list[tuple[list[Call], Verdict]]:
        """Return the requests that are judged now: all duplicates of each, and the verdict."""
        for instance in self._others.end_roll_call(self._clock()):
            self._mark_absent(instance)
        verdicts = []
        for question in list(self._questions):
            verdict = question.verdict or self._judge(question)
            if verdict is not None:
                self._questions.remove(question)
                self._outbox.ask_no_more(question.key)
                verdicts.append((question.calls, verdict))
        return verdicts

    def _judge(self, question: Question) -> Verdict | None:
        if question.echoed_at is None:
            return Verdict.LOST if self._clock() >= question.echo_expected_until else None
        if not question.silent:
            if question.lost or self._others.absent or self._others.crowded:
                return Verdict.LOST
            if question.vouched:
                return Verdict.RUN
        if self._clock() < self._wait_ends(question):
            return None
        for instance in tuple(question.silent):
            self._mark_absent(instance)
        return Verdict.LOST

    def _wait_ends(self, question: Question) -> float:
        # Whoever is not known yet was here before, and lost its connection as we did.
        expected = question.echoed_at if question.silent else self._opened_at
        return (expected or 0.0) + GRACE

    # --- who is there -----------------------------------------------------------------

    def _mark_absent(self, instance: str) -> None:
        """*instance* does not answer: take it for dead."""
        if self._others.mark_absent(instance):
            self._questions.expect_no_more(instance)

    def _add(self, instance: str, there: bool) -> Sibling | None:
        """Know *instance* from now on; return None if there is no room for it.

        As long as there is not, nobody vouches here: it may have what comes marked.
        """
        sibling = self._others.add(instance, there)
        if sibling is None:
            self._vouch_no_more()
            self._warnings.warn("there are more than %d servers of one server_id", MAX_SIBLINGS)
        elif there:
            self._questions.expect(instance)
        return sibling

    def _call_the_roll(self) -> None:
        """Find out who is not there any more, before a request depends on it."""
        self._others.call_roll(self._clock())
        self._outbox.say("ask")

    # --- what is due ------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Seconds until there is something to do, if nothing is heard; None for never."""
        soonest = min(self._next_inspection(), self._others.roll_call_ends())
        for each in self._questions:
            echoed = each.echoed_at is not None
            soonest = min(soonest, self._wait_ends(each) if echoed else each.echo_expected_until)
        return None if soonest == inf else max(0.0, soonest - self._clock())

    def _next_inspection(self) -> float:
        if not self.announced or (self.vouches and not self._others):
            return inf
        return self._inspections.next_due(calm=self.vouches and not self._others.absent)

    @property
    def inspection_is_due(self) -> bool:
        """True if the request queue is to be inspected, see :meth:`queue_inspected`."""
        return self._clock() >= self._next_inspection()

    def queue_inspected(self, state: QueueState, own_consumers: int) -> None:
        """This is the state of the request queue, with some consumers of our own."""
        now = self._clock()
        self._inspections.done(now)
        expected = own_consumers + self._others.count_consumers()
        if state.consumers < expected and not self._others.roll_is_called:
            self._call_the_roll()
        if state.messages or state.consumers != expected:
            return
        # Nothing waits, and all that is under way is with servers that are known.
        if self._others.crowded:
            # If there is room now, those speak up for whom there was none.
            if self._others.make_up_for_crowd():
                self._call_the_roll()
        elif self._vouches_since is None:
            self._vouches_since = now
        for instance in list(self._others.absent):
            if self._others.forget_if_judged(instance, now):
                self._questions.expect_no_more(instance)
                self._record.uncover()

    # --- what is said -------------------------------------------------------------------

    def take_messages(self) -> list[bytes]:
        """Return what is to be sent to all, this server included."""
        return self._outbox.take_messages(self._questions, self._others.report)

    def take_to_repeat(self) -> list[CallKey]:
        """Return the requests whose answers clients want that asked another server; each once."""
        to_repeat, self._to_repeat = self._to_repeat, {}
        return list(to_repeat)

    @property
    def has_messages(self) -> bool:
        """True if something is to be sent, words or answers."""
        return bool(self._outbox or self._to_repeat)

    # --- what is heard ------------------------------------------------------------------

    def heard(self, body: bytes) -> None:
        """Take in what a sibling said, or this server itself.

        What is no word is ignored, and so is one of another protocol: its server is
        not known then, so this one vouches for nothing that it may have.
        """
        try:
            word = decode(body)
        except NoWordError as error:
            self._warnings.warn(
                "what another server of the same server_id said makes no sense: %s", error
            )
            return
        if word is None:
            return
        if word.sender == self._instance:
            self._hear_own(word)
        else:
            _HEAR[word.kind](self, word)

    def heard_too_large(self, size: int) -> None:
        """Something came in place of a word that was too large to be taken in."""
        self._warnings.warn(
            "what another server of the same server_id said makes no sense: it has %d bytes", size
        )

    def _hear_own(self, word: Word) -> None:
        if word.kind == "hello":
            # One of an earlier connection may come again, before the others have this one.
            self.announced = self.announced or word.number == self._hello
        elif word.kind == "ask":
            self._questions.echoed(word.calls.keys(), self._clock())

    def _hear_here(self, word: Word) -> None:
        """Whoever said *word* is there."""
        sender = word.sender
        sibling = self._others.get(sender) or self._add(sender, there=True)
        if sibling is None:
            return
        before = self._others.is_consuming(sender)
        if self._others.came_back(sender):
            self._questions.expect(sender)
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
            self._questions.expect_no_more(word.sender)

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
        """Return what this server says of *key*: mine, lost, never; or vouch: nobody had it."""
        if self._record.knows(key):
            if resent:
                self._to_repeat[key] = None
            return "mine"
        if self._record.is_lost(key):
            return "lost"
        question = self._questions.get(key)
        if question is not None:
            # If two servers have it, the first by name goes on with it.
            if self._instance < asker:
                return "mine"
            question.verdict = Verdict.MINE
        self._record.note_asked(key)
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


_HEAR: dict[str, Callable[[Siblings, Word], None]] = {
    "hello": Siblings._hear_hello,
    "here": Siblings._hear_here,
    "bye": Siblings._hear_bye,
    "ask": Siblings._hear_ask,
    "answer": Siblings._hear_answer,
}
