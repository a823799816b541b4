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

No I/O here, and no look at the time: :meth:`Siblings.heard` takes in what came,
:meth:`Siblings.take_messages` returns what is to be sent.  All belongs to the thread
that receives the requests.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from qam._broker.messages import QueueState
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._server.call import Call, is_resent
from qam._server.record import Record
from qam._server.sibling_words import MAX_SIBLINGS, NoWordError, Word, decode, encode, in_portions

#: Seconds in which a server that lost its connection is expected back.
GRACE = 3.0
#: Seconds in which the broker, when it is killed, may forget that it got an ack.
_UNSAFE = 5.0
#: Seconds for which the word of another counts; as long it must have known.
_VALID = 2 * GRACE
#: Seconds between two looks at the request queue, while there is a reason to look; and
#: while there is none but that one of the others might have died.
_LOOK_INTERVAL, _SLOW_LOOK_INTERVAL = 1.0, 10.0
#: Seconds from one look to the next where a sibling asks for it by what it says.
_SHORTEST_LOOK_INTERVAL = 0.05
#: How many dead ones are remembered, so that others do not bring them back.
_MAX_BURIED = 1000
#: How many words may wait to be sent before questions are left unanswered.
_MAX_WAITING = 1000


class Verdict(Enum):
    """What is to become of a request that may have been received before."""

    RUN = "run"  # nobody began with it
    MINE = "mine"  # somebody else has it, and answers
    LOST = "lost"  # whoever had it may be gone


@dataclass(slots=True)
class _Sibling:
    #: It said something since this server can hear without a gap.
    heard: bool = False
    #: It consumes from the request queue, or so it said last.
    consumes: bool = False
    #: When it said something last.
    last_heard: float = -inf
    #: When the request queue was seen empty after that.
    settled_at: float | None = None


@dataclass(slots=True)
class _Question:
    """A request under judgement."""

    key: CallKey
    resent: bool
    asked_at: float
    vouched: bool
    #: Those who are still to say a word; nobody waits for one that is taken for dead.
    silent: set[str]
    calls: list[Call] = field(default_factory=list)
    #: When this server's own copy of the question came back: all that others said
    #: before it has been heard.
    echoed_at: float | None = None
    answered: set[str] = field(default_factory=set)
    verdict: Verdict | None = None


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
        self._known: dict[str, _Sibling] = {}
        # Those of them that did not answer in time.
        self._absent: set[str] = set()
        # There was no room for one of them.
        self._crowded = False
        # When they left, in that order.
        self._left: dict[str, float] = {}
        self._buried: dict[str, None] = {}
        # When it was asked who is there, if the answers are still waited for.
        self._roll_called_at: float | None = None
        self._questions: dict[CallKey, _Question] = {}
        self._to_ask: dict[CallKey, bool] = {}
        # A newcomer is to hear that this one is here, and what it asks.
        self._has_newcomer = False
        self._words: list[Word] = []
        # The requests whose answers others want to be sent again.
        self._to_repeat: dict[CallKey, None] = {}
        self._opened_at = 0.0
        self._vouches_since: float | None = None
        self._looked_at = -inf
        self._looks_soon = False
        self._hello = 0
        #: True once this server is known to all others, and may take requests.
        self.announced = False
        self._consumes = False

    @property
    def vouches(self) -> bool:
        """True if whatever comes marked was received by nobody unknown."""
        return self._vouches_since is not None

    # --- the connection -----------------------------------------------------------

    def opened(self, without_gap: bool) -> None:
        """A connection is open.

        :param without_gap: all that was said in the meantime waits in the queue.
        """
        self._opened_at = self._clock()
        self.announced = self._consumes = False
        self._hello += 1
        if not without_gap:
            self._vouches_since = None
            self._record.uncover()
            for sibling in self._known.values():
                sibling.heard = False
        self._words.append(Word("hello", self._instance, self._consumes, self._hello))

    def lost(self) -> None:
        """The connection is gone, and what was under judgement comes again."""
        if not self.vouches:
            for question in self._questions.values():
                self._record.note_asked(question.key, doubtful=True)
        self._questions.clear()
        self._to_ask.clear()
        self._roll_called_at = None
        now = self._clock()
        for instance, left_at in self._left.items():
            if now - left_at < _UNSAFE:  # its last acks may be forgotten
                self._known[instance] = _Sibling()
                self._absent.add(instance)
        self._left.clear()

    def tell_consuming(self, whether: bool) -> None:
        """This server has begun to consume from the request queue, or is about to end that.

        Others count with its consumer only while it says so: else it would make up for one
        that nobody knows.
        """
        self._consumes = whether
        self._say_here()

    def leave(self) -> None:
        """Say goodbye: this server has nothing open, and takes nothing any more."""
        self._has_newcomer = False  # who came just now need not know it
        self._words.append(Word("bye", self._instance, self._consumes))

    # --- requests -------------------------------------------------------------------

    def ask(self, call: Call) -> None:
        """Find out what is to become of *call*; see :meth:`take_verdicts`."""
        key = call.key
        if key is None:
            raise ValueError("a request without a correlation id can't be asked about")
        question = self._questions.get(key)
        if question is None:
            question = self._question(key, is_resent(call.delivery))
            self._questions[key] = question
            self._to_ask[key] = question.resent
        question.calls.append(call)

    def _question(self, key: CallKey, resent: bool) -> _Question:
        vouched = self._vouches_for(key, resent)
        silent = self._known.keys() - self._absent
        question = _Question(key, resent, self._clock(), vouched, silent)
        if self._record.is_lost(key):
            question.verdict = Verdict.LOST
        return question

    def have_repeated(self, key: CallKey) -> None:
        """Have whoever answered the request *key* send its answer again."""
        self._to_ask[key] = True

    def is_judging(self, key: CallKey) -> bool:
        """Return True if the verdict on *key* is open."""
        return key in self._questions

    def _vouches_for(self, key: CallKey, resent: bool) -> bool:
        # That the queue was empty says nothing of a request that was sent before.
        return self.vouches and (not resent or self._record.covers(key))

    def take_verdicts(self) -> list[tuple[list[Call], Verdict]]:
        """Return the requests that are judged now: all copies of each, and the verdict."""
        self._end_roll_call()
        verdicts = []
        for question in list(self._questions.values()):
            verdict = question.verdict or self._judge(question)
            if verdict is not None:
                del self._questions[question.key]
                self._to_ask.pop(question.key, None)
                verdicts.append((question.calls, verdict))
        return verdicts

    def _judge(self, question: _Question) -> Verdict | None:
        if question.echoed_at is None:
            return None
        if not question.silent:
            if self._absent or self._crowded:
                return Verdict.LOST
            if question.vouched:
                return Verdict.RUN
        if self._clock() < self._patience_ends(question):
            return None
        for instance in tuple(question.silent):
            self._miss(instance)
        return Verdict.LOST

    def _patience_ends(self, question: _Question) -> float:
        # Whoever is not known yet was here before, and lost its connection as we did.
        expected = question.echoed_at if question.silent else self._opened_at
        return (expected or 0.0) + GRACE

    # --- who is there -----------------------------------------------------------------

    def _await(self, instance: str) -> None:
        """Have every open question wait for *instance*, which is there."""
        for question in self._questions.values():
            if instance not in question.answered:
                question.silent.add(instance)

    def _await_no_more(self, instance: str) -> None:
        for question in self._questions.values():
            question.silent.discard(instance)

    def _miss(self, instance: str) -> None:
        """*instance* does not answer: take it for dead."""
        if instance not in self._absent:
            self._absent.add(instance)
            self._await_no_more(instance)

    def _enter(self, instance: str, there: bool) -> _Sibling | None:
        """Know *instance* from now on; return None if there is no room for it.

        As long as there is not, nobody vouches here: it may have what comes marked.
        """
        if len(self._known) >= MAX_SIBLINGS:
            self._crowded, self._vouches_since = True, None
            self._record.uncover()
            self._warnings.warn("there are more than %d servers of one server_id", MAX_SIBLINGS)
            return None
        sibling = self._known[instance] = _Sibling()
        if there:
            self._await(instance)
        else:
            self._absent.add(instance)
        return sibling

    def _forget(self, instance: str) -> None:
        del self._known[instance]
        self._absent.discard(instance)
        self._await_no_more(instance)

    def _call_the_roll(self) -> None:
        """Find out who is not there any more, before a request depends on it."""
        self._roll_called_at = self._clock()
        self._words.append(Word("ask", self._instance, self._consumes))

    def _end_roll_call(self) -> None:
        called_at = self._roll_called_at
        if called_at is None or self._clock() < called_at + GRACE:
            return
        self._roll_called_at = None
        for instance, sibling in self._known.items():
            if sibling.last_heard < called_at:
                self._miss(instance)

    # --- what is due ------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Seconds until there is something to do, if nothing is heard; None for never."""
        soonest = self._next_look()
        for each in self._questions.values():
            if each.echoed_at is not None:
                soonest = min(soonest, self._patience_ends(each))
        if self._roll_called_at is not None:
            soonest = min(soonest, self._roll_called_at + GRACE)
        return None if soonest == inf else max(0.0, soonest - self._clock())

    def _next_look(self) -> float:
        if not self.announced or (self.vouches and not self._known):
            return inf
        if self._looks_soon:
            return self._looked_at + _SHORTEST_LOOK_INTERVAL
        calm = self.vouches and not self._absent
        return self._looked_at + (_SLOW_LOOK_INTERVAL if calm else _LOOK_INTERVAL)

    @property
    def look_is_due(self) -> bool:
        """True if the request queue is to be looked at, see :meth:`looked`."""
        return self._clock() >= self._next_look()

    def looked(self, state: QueueState, own_consumers: int) -> None:
        """This is the state of the request queue, with some consumers of our own."""
        now = self._looked_at = self._clock()
        self._looks_soon = False
        present = sum(map(self._is_consuming, self._known))
        if state.consumers < own_consumers + present and self._roll_called_at is None:
            self._call_the_roll()
        if state.messages or state.consumers != own_consumers + present:
            return
        # Nothing waits, and all that is under way is with servers that are known.
        if self._crowded:
            self._make_up_for_crowd()
        elif self._vouches_since is None:
            self._vouches_since = now
        for instance in list(self._absent):
            self._settle(instance, now)

    def _make_up_for_crowd(self) -> None:
        """Have those speak for whom there was no room, if there is now; before the next look."""
        if len(self._known) < MAX_SIBLINGS:
            self._crowded = False
            self._call_the_roll()

    def _is_consuming(self, instance: str) -> bool:
        sibling = self._known[instance]
        return sibling.heard and sibling.consumes and instance not in self._absent

    def _settle(self, instance: str, now: float) -> None:
        """All that a dead server had is with living ones; forget it when that is judged."""
        sibling = self._known[instance]
        if sibling.settled_at is None:
            sibling.settled_at = now
        elif now - sibling.settled_at > _VALID:
            self._forget(instance)
            self._record.uncover()
            self._buried[instance] = None
            if len(self._buried) > _MAX_BURIED:
                del self._buried[next(iter(self._buried))]

    # --- what is said -------------------------------------------------------------------

    def take_messages(self) -> list[bytes]:
        """Return what is to be sent to all, this server included."""
        if self._has_newcomer:
            self._greet()
        if self._to_ask:
            self._words += [
                Word("ask", self._instance, self._consumes, calls=calls)
                for calls in in_portions(self._to_ask)
            ]
            self._to_ask = {}
        words, self._words = self._words, []
        return [encode(word) for word in words]

    def take_to_repeat(self) -> list[CallKey]:
        """Return the requests whose answers clients want that asked another server; each once."""
        to_repeat, self._to_repeat = self._to_repeat, {}
        return list(to_repeat)

    @property
    def has_messages(self) -> bool:
        """True if something is to be sent, words or answers."""
        return bool(self._words or self._to_ask or self._has_newcomer or self._to_repeat)

    def _greet(self) -> None:
        """Say what a newcomer has missed, however many there are."""
        self._has_newcomer = False
        self._say_here()
        # It may have been away when it was asked.
        self._to_ask |= {each.key: each.resent for each in self._questions.values()}

    def _say_here(self) -> None:
        self._words.append(Word("here", self._instance, self._consumes))

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

    def left_out(self, size: int) -> None:
        """Something came in place of a word that was too large to be taken in."""
        self._warnings.warn(
            "what another server of the same server_id said makes no sense: it has %d bytes", size
        )

    def _hear_own(self, word: Word) -> None:
        if word.kind == "hello":
            # One of an earlier connection may come again, before the others have this one.
            self.announced = self.announced or word.number == self._hello
        elif word.kind == "ask":
            for key in word.calls.keys() & self._questions.keys():
                self._questions[key].echoed_at = self._clock()

    def _meet(self, word: Word) -> None:
        """Whoever said *word* is there."""
        sibling = self._known.get(word.sender) or self._enter(word.sender, there=True)
        if sibling is None:
            return
        before = self._is_consuming(word.sender)
        if word.sender in self._absent:
            self._absent.remove(word.sender)
            self._await(word.sender)
        sibling.heard, sibling.settled_at = True, None
        sibling.consumes = word.consumes
        if self._is_consuming(word.sender) and not before:
            self._looks_soon = True  # with one more to count on
        sibling.last_heard = self._clock()
        self._buried.pop(word.sender, None)

    def _hear_hello(self, word: Word) -> None:
        self._meet(word)
        self._has_newcomer = True

    def _hear_bye(self, word: Word) -> None:
        self._record.uncover()
        now = self._clock()
        while self._left and now - self._left[earliest := next(iter(self._left))] >= _UNSAFE:
            del self._left[earliest]
        # Where too many have left it is found to be silent.
        if word.sender in self._known and len(self._left) < MAX_SIBLINGS:
            self._forget(word.sender)
            self._left.pop(word.sender, None)
            self._left[word.sender] = now

    def _hear_ask(self, word: Word) -> None:
        self._meet(word)
        if len(self._words) >= _MAX_WAITING:
            self._warnings.warn("other servers of the same server_id ask more than can be answered")
            return
        answers = {
            key: self._word_on(key, resent, word.sender) for key, resent in word.calls.items()
        }
        knows = {instance: instance not in self._absent for instance in self._known}
        self._words += [
            Word("answer", self._instance, self._consumes, calls=calls, to=word.sender, knows=knows)
            for calls in in_portions(answers)
        ]

    def _word_on(self, key: CallKey, resent: bool, asker: str) -> str:
        """Return what this server says of *key*: mine, lost, never; or vouch: nobody had it."""
        if self._record.knows(key):
            if resent:
                self._to_repeat[key] = None
            return "mine"
        if self._record.is_lost(key):
            return "lost"
        if key in self._questions:
            # Of two who have copies the first by name goes on with it.
            if self._instance < asker:
                return "mine"
            self._questions[key].verdict = Verdict.MINE
        self._record.note_asked(key)
        since = self._vouches_since
        long_enough = since is not None and self._clock() - since >= _VALID
        return "vouch" if long_enough and self._vouches_for(key, resent) else "never"

    def _hear_answer(self, word: Word) -> None:
        self._meet(word)
        if word.to != self._instance:
            return
        for instance, there in word.knows.items():
            if instance != self._instance and not self._has_heard_of(instance):
                self._enter(instance, there)
        for key, said in word.calls.items():
            if key in self._questions:
                self._take_word(self._questions[key], word.sender, said)

    def _has_heard_of(self, instance: str) -> bool:
        return instance in self._known or instance in self._left or instance in self._buried

    def _take_word(self, question: _Question, sender: str, said: str) -> None:
        if sender in self._known:
            question.answered.add(sender)
        question.silent.discard(sender)
        if said == "mine":
            question.verdict = question.verdict or Verdict.MINE
        elif said == "lost":
            question.verdict = question.verdict or Verdict.LOST
        elif said == "vouch" and self._clock() - question.asked_at < _VALID:
            question.vouched = True


_HEAR: dict[str, Callable[[Siblings, Word], None]] = {
    "hello": Siblings._hear_hello,
    "here": Siblings._meet,
    "bye": Siblings._hear_bye,
    "ask": Siblings._hear_ask,
    "answer": Siblings._hear_answer,
}
