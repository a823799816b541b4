"""Judges the requests that several servers of one server_id may have received.

Such a request must not run twice.  So a server that receives one asks the others, and answers
what they ask.  A server that said goodbye has no request open.  A server that does not answer may
have died with the request, so the request counts as lost.

No I/O and no clock here.
"""

from collections.abc import Collection, Iterable, Mapping

from qam._protocol.correlation import CallKey
from qam._server.call import Call
from qam._server.membership import Membership
from qam._server.record import Elsewhere, Record
from qam._server.sibling_outbox import SiblingOutbox
from qam._server.sibling_questions import Question, Questions, Verdict


class Judgement:
    """What this server asks and tells its siblings about requests, and what it hears of them.

    :param instance: the name of this server among its siblings.
    :param record: the requests that it has received itself.
    :param membership: its siblings.
    :param questions: the requests under judgement.
    :param outbox: takes the words to say.
    """

    def __init__(
        self,
        instance: str,
        record: Record,
        membership: Membership,
        questions: Questions,
        outbox: SiblingOutbox,
    ) -> None:
        self._instance = instance
        self._record = record
        self._membership = membership
        self._questions = questions
        self._outbox = outbox
        # The requests whose replies other servers have asked this one to repeat.
        self._to_repeat: dict[CallKey, None] = {}

    # --- this server asks -----------------------------------------------------------

    def ask(self, call: Call, now: float) -> None:
        """Ask the others about *call*; :meth:`take_verdicts` returns the verdict later."""
        key = call.key
        question = self._questions.get(key)
        if question is None:
            question = self._question(key, call.is_resent, now)
            suspected = self._record.is_elsewhere(key)
            question.fresh = call.given_back and not call.marked and not suspected
            self._questions.add(question)
            self._record.note_elsewhere(key)
            self._outbox.ask(key, question.resent)
        else:
            question.fresh = question.fresh and not call.marked
            if call.is_resent:
                question.late.append(call)
        question.calls.append(call)

    def _question(self, key: CallKey, resent: bool, now: float) -> Question:
        vouched = self._membership.vouches and self._reaches_back(key, resent)
        question = Question(key, resent, now, vouched, self._membership.known.present)
        question.lost = self._is_lost(key, resent)
        if self._record.is_answered_elsewhere(key) and not resent:
            question.verdict = Verdict.MINE
        return question

    def hear_answer(self, calls: Mapping[CallKey, str], instance: str, now: float) -> None:
        """Take the answers of *instance* about *calls*."""
        known = instance in self._membership.known
        for key, said in calls.items():
            question = self._questions.get(key)
            if question is not None:
                question.take_word(instance, known, said, now)

    def take_verdicts(self, now: float) -> list[tuple[list[Call], Verdict]]:
        """Return the requests that are judged now: the copies of each, and the verdict."""
        self._mark_absent(self._membership.known.end_roll_call(now))
        verdicts = []
        for question in list(self._questions):
            verdict = question.judge(now, self._membership.opened_at, self._membership.is_in_doubt)
            if verdict is not None:
                self._close(question, verdict)
                if verdict is Verdict.RUN and question.fresh and not question.shared:
                    # Nobody has it, so it may be given back once more as if it had not been asked.
                    self._record.note_nowhere(question.key)
                if verdict is Verdict.MINE:
                    self._ask_again(question, now)
                verdicts.append((question.calls, verdict))
        return verdicts

    def _ask_again(self, question: Question, now: float) -> None:
        """Ask for the answer of a request that another server has answered, if it may be lost."""
        question.calls = [call for call in question.calls if call not in question.late]
        for call in question.late:
            self.ask(call, now)

    def _close(self, question: Question, verdict: Verdict) -> None:
        if verdict is Verdict.LOST and question.echoed_at is not None:
            self._mark_absent(list(question.silent))
        self._questions.remove(question)
        was_asked = not self._outbox.withdraw_question(question.key)
        if verdict is Verdict.MINE and question.resent and not was_asked:
            self._outbox.ask_to_repeat(question.key)

    def _mark_absent(self, silent: Iterable[str]) -> None:
        """Take the siblings that do not answer for dead."""
        for instance in silent:
            if self._membership.known.mark_absent(instance):
                self._questions.died(instance)

    def stop_holding(self, since: float) -> bool:
        """Keep no copy of the request any more that is held longest; return False if there is none.

        :param since: only if it is held since before that.
        """
        oldest = self._questions.held_longest
        if oldest is None or oldest.asked_at >= since:
            return False
        self._note_answered(oldest.key)
        return True

    def give_up(self) -> None:
        """Close all questions: the connection is lost, so the requests are delivered again."""
        for question in self._questions:
            # That this server vouches now says nothing of what it asked about before.
            if not (question.vouched or question.holders):
                self._record.note_elsewhere(question.key, Elsewhere.DOUBTFUL)
        self._questions.clear()
        self._outbox.forget_questions()

    # --- others ask -------------------------------------------------------------------

    def answer(self, calls: Mapping[CallKey, bool], asker: str, now: float) -> None:
        """Answer the question of *asker* about *calls*; each says whether it was sent again."""
        answers = {key: self._word_on(key, resent, asker, now) for key, resent in calls.items()}
        self._outbox.answer(asker, answers, len(self._membership.known))

    def _word_on(self, key: CallKey, resent: bool, asker: str, now: float) -> str:
        """Return the answer about *key*: mine, done, again, lost or never.

        Or vouch: no server had it.
        """
        if self._record.knows(key):
            return self._word_on_known(key, resent)
        if self._is_lost(key, resent):
            return "lost"
        if self._record.is_answered_elsewhere(key):
            return "done"
        if self._goes_on_with(key, asker):
            return "mine"
        self._record.note_elsewhere(key)
        vouches = self._membership.vouches_to_others(now) and self._reaches_back(key, resent)
        return "vouch" if vouches else "never"

    def _word_on_known(self, key: CallKey, resent: bool) -> str:
        """Return the answer about *key*, which runs here, or was answered here."""
        self._record.note_elsewhere(key)
        if resent and self._record.is_passed_on(key):
            return "again"
        if resent:
            self._to_repeat[key] = None
        running = self._record.running.get(key)
        return "done" if running is None or running.outlives_its_delivery else "mine"

    def _goes_on_with(self, key: CallKey, asker: str) -> bool:
        """Return True if this server judges *key*, too, and *asker* leaves it to this one."""
        question = self._questions.get(key)
        if question is None:
            return False
        question.shared = True
        # The first by name goes on with it.
        if self._instance < asker:
            return True
        question.claimed_by(asker, asker in self._membership.known)
        return False

    def _is_lost(self, key: CallKey, resent: bool) -> bool:
        """Return True if *key* may have run, and can't be answered here.

        If its client sent it again, an answer has to be repeated, by the one that gave it.
        """
        repeats = resent and self._record.is_answered_elsewhere(key)
        return repeats or self._record.is_lost(key)

    def _reaches_back(self, key: CallKey, resent: bool) -> bool:
        # A request that its client sent again may have been answered before the queue was empty.
        return not resent or self._record.covers(key)

    # --- what is answered -------------------------------------------------------------

    def tell_answered(self, calls: Iterable[Call]) -> None:
        """Tell the others of those *calls*, which are answered now, that they may have, too.

        Not of those that are given back: they are not in the record, and have to run.
        """
        running = self._record.running
        self._outbox.tell_done(
            [each.key for each in calls if each.is_elsewhere and each.key in running]
        )

    def hear_done(self, keys: Collection[CallKey], instance: str) -> None:
        """*instance* says that it has answered *keys*."""
        self._questions.answered(keys, instance)
        for key in keys:
            self._note_answered(key)

    def _note_answered(self, key: CallKey) -> None:
        if key.is_unique:  # else it may be used again
            self._record.note_elsewhere(key, Elsewhere.ANSWERED)

    def hear_repeat(self, keys: Iterable[CallKey]) -> None:
        """Another server asks for the replies to *keys*."""
        self._to_repeat |= {key: None for key in keys if self._record.knows(key)}

    @property
    def has_to_repeat(self) -> bool:
        """True if there are replies to repeat."""
        return bool(self._to_repeat)

    def take_to_repeat(self) -> list[CallKey]:
        """Return the requests whose replies others have asked this server to repeat; each once."""
        to_repeat, self._to_repeat = self._to_repeat, {}
        return list(to_repeat)
