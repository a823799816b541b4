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

No I/O here: :meth:`Siblings.heard` takes in what came, :meth:`Siblings.take_messages`
returns what is to be sent.  All belongs to the thread that receives the requests.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any

from qam._broker.messages import QueueState
from qam._common.logs import get_logger
from qam._server.call import Call, is_resent
from qam._server.record import Record

log = get_logger("qam.qam_server")

#: Seconds in which a server that lost its connection is expected back.
GRACE = 3.0
#: Seconds in which the broker, when it is killed, may forget that it got an ack.
_UNSAFE = 5.0
#: Seconds for which the word of another counts; as long it must have known.
_VALID = 2 * GRACE
#: Seconds between two looks at the request queue, while there is a reason to look; and
#: while there is none but that one of the others might have died.
_LOOK_INTERVAL, _SLOW_LOOK_INTERVAL = 1.0, 10.0
#: How many dead ones are remembered, so that others do not bring them back.
_MAX_BURIED = 1000
_KINDS = ("hello", "here", "bye", "ask", "answer")
# What comes of a message that no sibling wrote.
_NONSENSE = (
    *(ValueError, LookupError, TypeError, AttributeError),
    RecursionError,
)


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
    #: It did not answer in time.
    absent: bool = False
    #: When the request queue was seen empty after that.
    settled_at: float | None = None

    @property
    def is_consuming(self) -> bool:
        return self.heard and self.consumes and not self.absent


@dataclass(slots=True)
class _Question:
    """A request under judgement."""

    key: str
    resent: bool
    asked_at: float
    vouched: bool
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
    :param repeat: has the answer to a request sent again.
    :param clock: seconds on a clock that only goes forward.
    """

    def __init__(
        self,
        instance: str,
        record: Record,
        repeat: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instance = instance
        self._record = record
        self._repeat = repeat
        self._clock = clock
        self._known: dict[str, _Sibling] = {}
        self._left: dict[str, float] = {}
        self._buried: dict[str, None] = {}
        # When it was asked who is there, if the answers are still waited for.
        self._roll_called_at: float | None = None
        self._questions: dict[str, _Question] = {}
        self._to_ask: dict[str, bool] = {}
        self._messages: list[bytes] = []
        self._opened_at = 0.0
        self._vouches_since: float | None = None
        self._looked_at = -inf
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
        self._say("hello", number=self._hello)

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
                self._known[instance] = _Sibling(absent=True)
        self._left.clear()

    def tell_consuming(self, whether: bool) -> None:
        """This server has begun to consume from the request queue, or is about to end that.

        Others count with its consumer only while it says so: else it would make up for one
        that nobody knows.
        """
        self._consumes = whether
        self._say("here")

    def leave(self) -> None:
        """Say goodbye: this server has nothing open, and takes nothing any more."""
        self._say("bye")

    # --- requests -------------------------------------------------------------------

    def ask(self, call: Call) -> None:
        """Find out what is to become of *call*; see :meth:`take_verdicts`."""
        key = str(call.key)
        question = self._questions.get(key)
        if question is None:
            resent = is_resent(call.delivery)
            question = _Question(key, resent, self._clock(), self._vouches_for(key, resent))
            self._questions[key] = question
            self._to_ask[key] = resent
            if self._record.is_lost(key):
                question.verdict = Verdict.LOST
        question.calls.append(call)

    def have_repeated(self, key: str) -> None:
        """Have whoever answered the request *key* send its answer again."""
        self._to_ask[key] = True

    def is_judging(self, key: str) -> bool:
        """Return True if the verdict on *key* is open."""
        return key in self._questions

    def _vouches_for(self, key: str, resent: bool) -> bool:
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
        silent = self._silent(question)
        if not silent and self._absent:
            return Verdict.LOST
        if not silent and question.vouched:
            return Verdict.RUN
        if self._clock() < self._patience_ends(question, silent):
            return None
        for instance in silent:
            self._known[instance].absent = True
        return Verdict.LOST

    @property
    def _absent(self) -> set[str]:
        return {name for name, sibling in self._known.items() if sibling.absent}

    def _silent(self, question: _Question) -> set[str]:
        """Those who are still to say a word; nobody waits for one that is taken for dead."""
        return self._known.keys() - question.answered - self._absent

    def _patience_ends(self, question: _Question, silent: Iterable[str]) -> float:
        # Whoever is not known yet was here before, and lost its connection as we did.
        expected = question.echoed_at if silent else self._opened_at
        return (expected or 0.0) + GRACE

    def _call_the_roll(self) -> None:
        """Find out who is not there any more, before a request depends on it."""
        self._roll_called_at = self._clock()
        self._say("ask", calls={})

    def _end_roll_call(self) -> None:
        called_at = self._roll_called_at
        if called_at is None or self._clock() < called_at + GRACE:
            return
        self._roll_called_at = None
        for sibling in self._known.values():
            sibling.absent = sibling.absent or sibling.last_heard < called_at

    # --- what is due ------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Seconds until there is something to do, if nothing is heard; None for never."""
        soonest = self._next_look()
        for each in self._questions.values():
            if each.echoed_at is not None:
                soonest = min(soonest, self._patience_ends(each, self._silent(each)))
        if self._roll_called_at is not None:
            soonest = min(soonest, self._roll_called_at + GRACE)
        return None if soonest == inf else max(0.0, soonest - self._clock())

    def _next_look(self) -> float:
        if not self.announced or (self.vouches and not self._known):
            return inf
        calm = self.vouches and not any(each.absent for each in self._known.values())
        return self._looked_at + (_SLOW_LOOK_INTERVAL if calm else _LOOK_INTERVAL)

    @property
    def look_is_due(self) -> bool:
        """True if the request queue is to be looked at, see :meth:`looked`."""
        return self._clock() >= self._next_look()

    def looked(self, state: QueueState, own_consumers: int) -> None:
        """This is the state of the request queue, with some consumers of our own."""
        now = self._looked_at = self._clock()
        present = sum(each.is_consuming for each in self._known.values())
        if state.consumers < own_consumers + present and self._roll_called_at is None:
            self._call_the_roll()
        if state.messages or state.consumers != own_consumers + present:
            return
        # Nothing waits, and all that is under way is with servers that are known.
        if self._vouches_since is None:
            self._vouches_since = now
        for instance, sibling in list(self._known.items()):
            if sibling.absent:
                self._settle(instance, sibling, now)

    def _settle(self, instance: str, sibling: _Sibling, now: float) -> None:
        """All that a dead server had is with living ones; forget it when that is judged."""
        if sibling.settled_at is None:
            sibling.settled_at = now
        elif now - sibling.settled_at > _VALID:
            del self._known[instance]
            self._record.uncover()
            self._buried[instance] = None
            if len(self._buried) > _MAX_BURIED:
                del self._buried[next(iter(self._buried))]

    # --- what is said -------------------------------------------------------------------

    def take_messages(self) -> list[bytes]:
        """Return what is to be sent to all, this server included."""
        if self._to_ask:
            self._say("ask", calls=self._to_ask)
            self._to_ask = {}
        messages, self._messages = self._messages, []
        return messages

    def _say(self, kind: str, **more: Any) -> None:
        message = {"kind": kind, "from": self._instance, "consumes": self._consumes, **more}
        # As it is: of the halves of a character that a key may have, escapes make one.
        text = json.dumps(message, ensure_ascii=False)
        self._messages.append(text.encode("utf-8", "surrogatepass"))

    def heard(self, body: bytes) -> None:
        """Take in what a sibling said, or this server itself."""
        try:
            message = json.loads(body)
            kind, sender = message["kind"], message["from"]
            if kind not in _KINDS or not isinstance(sender, str):
                raise ValueError(f"{kind!r} of {sender!r}")
            getattr(self, f"_hear_{kind}")(sender, message)
        except _NONSENSE as error:
            log.warning("what another server of the same server_id said makes no sense: %r", error)

    def _meet(self, sender: str, message: dict[str, Any]) -> None:
        sibling = self._known.setdefault(sender, _Sibling())
        before = sibling.is_consuming
        sibling.heard, sibling.absent, sibling.settled_at = True, False, None
        sibling.consumes = message.get("consumes") is True
        if sibling.is_consuming and not before:
            self._looked_at = -inf  # with one more to count on, look at once
        sibling.last_heard = self._clock()
        self._buried.pop(sender, None)

    def _hear_hello(self, sender: str, message: dict[str, Any]) -> None:
        if sender == self._instance:
            # One of an earlier connection may come again, before the others have this one.
            self.announced = self.announced or message.get("number") == self._hello
            return
        self._meet(sender, message)
        self._say("here")
        # It may have been away when it was asked.
        open_questions = {each.key: each.resent for each in self._questions.values()}
        if open_questions:
            self._say("ask", calls=open_questions)

    def _hear_here(self, sender: str, message: dict[str, Any]) -> None:
        if sender != self._instance:
            self._meet(sender, message)

    def _hear_bye(self, sender: str, message: dict[str, Any]) -> None:
        self._record.uncover()
        if self._known.pop(sender, None) is not None:
            now = self._clock()
            self._left = {each: at for each, at in self._left.items() if now - at < _UNSAFE}
            self._left[sender] = now

    def _hear_ask(self, sender: str, message: dict[str, Any]) -> None:
        calls = dict(message["calls"])
        if sender == self._instance:
            for key in calls.keys() & self._questions.keys():
                self._questions[key].echoed_at = self._clock()
            return
        self._meet(sender, message)
        answers = {key: self._word_on(key, bool(resent), sender) for key, resent in calls.items()}
        knows = {instance: not each.absent for instance, each in self._known.items()}
        self._say("answer", to=sender, calls=answers, knows=knows)

    def _word_on(self, key: str, resent: bool, asker: str) -> str:
        """Return what this server says of *key*: mine, lost, never; or vouch: nobody had it."""
        if self._record.knows(key):
            if resent:
                self._repeat(key)
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

    def _hear_answer(self, sender: str, message: dict[str, Any]) -> None:
        if sender == self._instance:
            return
        self._meet(sender, message)
        if message["to"] != self._instance:
            return
        for instance, present in dict(message["knows"]).items():
            if instance not in (self._instance, *self._known, *self._left, *self._buried):
                self._known[instance] = _Sibling(absent=not present)
        for key, word in dict(message["calls"]).items():
            if key in self._questions:
                self._take_word(self._questions[key], sender, word)

    def _take_word(self, question: _Question, sender: str, word: str) -> None:
        question.answered.add(sender)
        if word == "mine":
            question.verdict = question.verdict or Verdict.MINE
        elif word == "lost":
            question.verdict = question.verdict or Verdict.LOST
        elif word == "vouch" and self._clock() - question.asked_at < _VALID:
            question.vouched = True
