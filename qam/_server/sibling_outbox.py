"""What a server is about to say to the others of its server_id.  No I/O here."""

from collections.abc import Iterable, Mapping

from qam._protocol.correlation import CallKey
from qam._server.sibling_questions import Question
from qam._server.sibling_words import Word, encode, in_portions

#: How many words may wait to be sent before questions are left unanswered.
_MAX_WAITING = 1000


class SiblingOutbox:
    """The words that one server has to say, and the questions that it has to ask.

    :param instance: who says them.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance
        #: Whether it takes requests; each word says so.
        self.consumes = False
        self._words: list[Word] = []
        self._to_ask: dict[CallKey, bool] = {}
        # A newcomer is to hear that this one is here, and what it asks.
        self._has_newcomer = False

    def __bool__(self) -> bool:
        return bool(self._words or self._to_ask or self._has_newcomer)

    @property
    def full(self) -> bool:
        """True if so many words wait that questions are left unanswered."""
        return len(self._words) >= _MAX_WAITING

    def say(self, kind: str, number: int = 0) -> None:
        """Say a word of that *kind*, which is about no call."""
        self._words.append(Word(kind, self._instance, self.consumes, number))

    def answer(self, to: str, calls: Mapping[CallKey, str], knows: dict[str, bool]) -> None:
        """Tell *to* what is known of *calls*, and of the others."""
        self._words += [
            Word("answer", self._instance, self.consumes, calls=each, to=to, knows=knows)
            for each in in_portions(calls)
        ]

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

    def take_messages(self, questions: Iterable[Question]) -> list[bytes]:
        """Return what is to be sent.

        :param questions: those that are open: a newcomer may have been away when they were asked.
        """
        if self._has_newcomer:
            self._has_newcomer = False
            self.say("here")
            self._to_ask |= {each.key: each.resent for each in questions}
        if self._to_ask:
            self._words += [
                Word("ask", self._instance, self.consumes, calls=calls)
                for calls in in_portions(self._to_ask)
            ]
            self._to_ask = {}
        words, self._words = self._words, []
        return [encode(word) for word in words]
