"""The other servers of one server_id: what this server says to them, and what it hears of them.

A request that may have been received before must not run twice.  The broker's mark *redelivered*
is no evidence that one began to run: after the broker was killed, it marks every message.  So a
server that receives such a request asks the others, and waits for their answers.

:mod:`~qam._server.membership` knows whom to ask, and :mod:`~qam._server.judgement` what the
answers mean.  This module hears the words, and tells each of the two what concerns it.

No I/O and no clock here: :meth:`Siblings.heard` takes the words that arrive, and
:meth:`Siblings.take_messages` returns the words to send.  Only the thread that receives the
requests uses this.
"""

from collections.abc import Callable, Iterable
from math import inf

from qam._broker.messages import QueueState
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._server.call import Call
from qam._server.judgement import Judgement
from qam._server.membership import Membership
from qam._server.record import Record
from qam._server.sibling_outbox import SiblingOutbox
from qam._server.sibling_questions import Questions, Verdict
from qam._server.sibling_words import MAX_SIBLINGS, NoWordError, Word, decode, encode


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
        self._membership = Membership()
        self._questions = Questions()
        self._outbox = SiblingOutbox(instance)
        self._judgement = Judgement(
            instance, record, self._membership, self._questions, self._outbox
        )

    # --- the connection -----------------------------------------------------------

    def opened(self, without_gap: bool, follows: bool = False) -> bytes:
        """A connection is open; return the hello to say on it.

        :param without_gap: True if all words since then wait in this server's queue.
        :param follows: True if another server may have gone just before, and none is there.
        """
        now = self._clock()
        if not without_gap:
            self._record.uncover()
            if follows:
                self._membership.known.note_departure(f"before {self._instance}", now)
        number = self._membership.opened(without_gap, now)
        self._outbox.consumes = False
        return encode(Word("hello", self._instance, number=number))

    def hello_confirmed(self, number: int) -> None:
        """The broker has confirmed the hello of the connection *number*."""
        self._membership.hello_confirmed(number)

    def lost(self) -> None:
        """The connection is gone; the broker delivers the requests under judgement again."""
        self._judgement.give_up()
        self._membership.lost(self._clock())

    def tell_consuming(self, whether: bool) -> None:
        """Tell the others that this server consumes from the request queue, or is about to stop.

        The others count its consumer only while it says so.  Otherwise they might take the
        consumer of an unknown server for this one's.
        """
        self._outbox.consumes = whether
        self._outbox.say("here")

    def leave(self) -> None:
        """Say goodbye: this server has no request at hand, and takes no more."""
        self._outbox.say_goodbye()

    # --- who is there, and what is due -----------------------------------------------

    @property
    def announced(self) -> bool:
        """True once all others know this server, so that it may take requests."""
        return self._membership.announced

    @property
    def vouches(self) -> bool:
        """True if no unknown server can have received a request that arrives with a mark."""
        return self._membership.vouches

    @property
    def is_needed(self) -> bool:
        """True while others may have to ask this server about what it has answered before."""
        return self._membership.is_needed(self._clock())

    @property
    def inspection_is_due(self) -> bool:
        """True if the request queue is to be inspected, see :meth:`queue_inspected`."""
        now = self._clock()
        return now >= self._membership.next_inspection(self._holds, now)

    def servers_counted(self, others: int | None) -> None:
        """So many *others* are there; None if they can't be counted.

        They are counted before each inspection of the request queue.
        """
        self._membership.servers_counted(others)

    def queue_inspected(self, state: QueueState, own_consumers: int) -> None:
        """Learn from the *state* of the request queue, which has *own_consumers* of this server."""
        found = self._membership.queue_inspected(
            state, own_consumers, self._questions.holders, self._clock()
        )
        if found.roll_is_called:
            # Each that is there answers, before a request depends on who is gone.
            self._outbox.say("ask")
        for instance in found.forgotten:
            self._questions.died(instance)
            self._record.uncover()

    def next_due(self) -> float | None:
        """Return the seconds until there is something to do, if no word arrives; None for never."""
        now = self._clock()
        soonest = min(
            self._membership.next_due(self._holds, now),
            self._questions.next_end(self._membership.opened_at),
        )
        return None if soonest == inf else max(0.0, soonest - now)

    # --- requests -------------------------------------------------------------------

    @property
    def others_consume(self) -> bool:
        """True if another server takes requests."""
        return self._membership.known.count_consumers() > 0

    def ask(self, call: Call) -> None:
        """Ask the others about *call*; :meth:`take_verdicts` returns the verdict later."""
        self._judgement.ask(call, self._clock())

    def is_judging(self, key: CallKey) -> bool:
        """Return True if *key* is under judgement."""
        return key in self._questions

    def take_verdicts(self) -> list[tuple[list[Call], Verdict]]:
        """Return the requests that are judged now: the copies of each, and the verdict."""
        return self._judgement.take_verdicts(self._clock())

    @property
    def held(self) -> int:
        """How many deliveries are kept, since a sibling has the request and may still die."""
        return sum(len(each.calls) for each in self._questions.held)

    @property
    def _holds(self) -> bool:
        return bool(self._questions.held)

    def stop_holding(self, since: float) -> bool:
        """Keep no copy of the request any more that is held longest; return False if there is none.

        :param since: only if it is held since before that.
        """
        return self._judgement.stop_holding(since)

    def answered(self, calls: Iterable[Call]) -> None:
        """Tell the others of those *calls*, which are answered now, that they may have, too."""
        self._judgement.tell_answered(calls)

    def ask_to_repeat(self, key: CallKey) -> None:
        """Ask the server that has answered the request *key* to send the reply again."""
        self._outbox.ask_to_repeat(key)

    def take_to_repeat(self) -> list[CallKey]:
        """Return the requests whose replies others have asked this server to repeat; each once."""
        return self._judgement.take_to_repeat()

    # --- words to send ------------------------------------------------------------------

    def take_messages(self) -> list[bytes]:
        """Return the words to send to all servers, this one included."""
        return self._outbox.take_messages(self._questions, self._membership.known)

    @property
    def has_messages(self) -> bool:
        """True if there are words to send or replies to repeat."""
        return bool(self._outbox) or self._judgement.has_to_repeat

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
            self._membership.heard_own_hello(word.number)
        elif word.kind == "ask":
            self._questions.echoed(word.calls.keys(), self._clock())

    def _hear_here(self, word: Word) -> None:
        """Note that the sender of *word* is there."""
        sender = word.sender
        if sender not in self._membership.known and not self._add(sender, there=True):
            return
        if self._membership.heard(sender, word.consumes, self._clock()):
            self._questions.wait_for(sender)

    def _add(self, instance: str, there: bool) -> bool:
        """Add *instance* to the known siblings; return False if there is no room for it."""
        if not self._membership.add(instance, there):
            self._record.uncover()
            self._warnings.warn("there are more than %d servers of one server_id", MAX_SIBLINGS)
            return False
        if there:
            self._questions.wait_for(instance)
        return True

    def _hear_hello(self, word: Word) -> None:
        self._hear_here(word)
        self._outbox.greet()

    def _hear_bye(self, word: Word) -> None:
        self._record.uncover()
        if self._membership.known.leave(word.sender, self._clock()):
            self._questions.left(word.sender)

    def _hear_ask(self, word: Word) -> None:
        self._hear_here(word)
        if self._outbox.full:
            self._warnings.warn("other servers of the same server_id ask more than can be answered")
        else:
            self._judgement.answer(word.calls, word.sender, self._clock())

    def _hear_answer(self, word: Word) -> None:
        self._hear_here(word)
        if word.to != self._instance:
            return
        for instance, there in word.knows.items():
            if instance != self._instance and not self._membership.known.has_heard_of(instance):
                self._add(instance, there)
        self._judgement.hear_answer(word.calls, word.sender, self._clock())

    def _hear_repeat(self, word: Word) -> None:
        self._hear_here(word)
        self._judgement.hear_repeat(word.calls)

    def _hear_done(self, word: Word) -> None:
        self._hear_here(word)
        self._judgement.hear_done(word.calls, word.sender)


_HEAR: dict[str, Callable[[Siblings, Word], None]] = {
    "hello": Siblings._hear_hello,
    "here": Siblings._hear_here,
    "bye": Siblings._hear_bye,
    "ask": Siblings._hear_ask,
    "answer": Siblings._hear_answer,
    "done": Siblings._hear_done,
    "repeat": Siblings._hear_repeat,
}
