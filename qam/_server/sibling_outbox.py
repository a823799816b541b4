"""What a server is about to say to the others of its server_id.  No I/O here."""

from collections.abc import Iterable, Mapping

from qam._protocol.correlation import CallKey
from qam._server.sibling_questions import Question
from qam._server.sibling_words import Word, encode_in_portions

# Characters of answers that may wait to be sent before questions are left unanswered, and about
# how many a call and the name of a server take there beside their own text.
_MAX_CHARACTERS = 4 * 2**20
_OF_CALL, _OF_NAME = 40, 80


class SiblingOutbox:
    """The words that one server has to say, and the questions that it has to ask.

    :param instance: who says them.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance
        #: Whether it takes requests; each word says so.
        self.consumes = False
        self._words: list[Word] = []
        # Of them those that answer, by who asked, and about how many characters they have.
        self._answers: dict[str, Word] = {}
        self._characters = 0
        self._to_ask: dict[CallKey, bool] = {}
        # A newcomer is to hear that this one is here, and what it asks.
        self._has_newcomer = False

    def __bool__(self) -> bool:
        return bool(self._words or self._to_ask or self._has_newcomer)

    @property
    def full(self) -> bool:
        """True if so much waits that questions are left unanswered."""
        return self._characters >= _MAX_CHARACTERS

    def say(self, kind: str, number: int = 0) -> None:
        """Say a word of that *kind*, which is about no call."""
        self._words.append(Word(kind, self._instance, self.consumes, number))

    def answer(self, to: str, calls: Mapping[CallKey, str], known: int) -> None:
        """Tell *to* what is known of *calls*, and of the others.

        :param known: how many others there are.
        """
        answer = self._answers.get(to)
        if answer is None:
            answer = Word("answer", self._instance, self.consumes, to=to)
            self._answers[to] = answer
            self._words.append(answer)
            self._characters += known * _OF_NAME
        new = calls.keys() - answer.calls.keys()
        answer.calls |= calls
        self._characters += sum(
            len(key.reply_to) + len(key.correlation_id) + _OF_CALL for key in new
        )

    def ask(self, key: CallKey, resent: bool) -> None:
        """Ask about a request."""
        self._to_ask[key] = resent

    def ask_no_more(self, key: CallKey) -> None:
        """It is known what becomes of a request."""
        self._to_ask.pop(key, None)

    def forget_questions(self) -> None:
        """What was to be asked about comes again."""
        self._to_ask.clear()

    def greet(self) -> None:
        """Tell a newcomer what it has missed, with the next words that are sent."""
        self._has_newcomer = True

    def say_goodbye(self) -> None:
        """Say the last word; who came just now need not be greeted."""
        self._has_newcomer = False
        self.say("bye")

    def take_messages(
        self, questions: Iterable[Question], others: Mapping[str, bool]
    ) -> list[bytes]:
        """Return what is to be sent.

        :param questions: those that are open: a newcomer may have been away when they were asked.
        :param others: who is known, and whether each is there; whoever asked hears it once.
        """
        if self._has_newcomer:
            self._has_newcomer = False
            self.say("here")
            self._to_ask |= {each.key: each.resent for each in questions}
        for answer in self._answers.values():
            answer.knows = dict(others)
        if self._to_ask:
            self._words.append(Word("ask", self._instance, self.consumes, calls=self._to_ask))
        words, self._words, self._to_ask = self._words, [], {}
        self._answers, self._characters = {}, 0
        return [body for word in words for body in encode_in_portions(word)]
