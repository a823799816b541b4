"""The words that a server is about to send to its siblings.  No I/O here."""

from collections.abc import Iterable, Mapping

from qam._protocol.correlation import CallKey
from qam._server.known_siblings import KnownSiblings
from qam._server.sibling_questions import Question
from qam._server.sibling_words import Word, encode_in_portions

# How many characters of answers may wait before further questions are left unanswered; and
# about how many characters one call adds beside its text, and one name of a server.
_MAX_CHARACTERS = 4 * 2**20
_OF_CALL, _OF_NAME = 40, 80


class SiblingOutbox:
    """The words and the questions that one server has to send.

    :param instance: the name of that server among its siblings.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance
        #: Whether the server takes requests, which each word tells.
        self.consumes = False
        self._words: list[Word] = []
        # The answers among them, by the instance that asked; and about how many characters
        # they have.
        self._answers: dict[str, Word] = {}
        self._characters = 0
        self._to_ask: dict[CallKey, bool] = {}
        self._done: dict[CallKey, bool] = {}
        self._to_repeat: dict[CallKey, bool] = {}
        # True if a newcomer has to hear that this server is here, and what it asks.
        self._has_newcomer = False

    def __bool__(self) -> bool:
        about_calls = self._to_ask or self._done or self._to_repeat
        return bool(self._words or about_calls or self._has_newcomer)

    @property
    def full(self) -> bool:
        """True if so many answers wait that further questions are left unanswered."""
        return self._characters >= _MAX_CHARACTERS

    def say(self, kind: str) -> None:
        """Add a word of a *kind* that is about no call."""
        self._words.append(Word(kind, self._instance, self.consumes))

    def answer(self, to: str, calls: Mapping[CallKey, str], known: int) -> None:
        """Add an answer to the instance *to* about *calls*; it also names the known siblings.

        :param known: how many siblings are known.
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
        """Add a question about a request."""
        self._to_ask[key] = resent

    def withdraw_question(self, key: CallKey) -> bool:
        """Withdraw the question about a request, which is judged; return False if it was sent."""
        return self._to_ask.pop(key, None) is not None

    def forget_questions(self) -> None:
        """Withdraw all questions: the requests will be delivered again."""
        self._to_ask.clear()

    def tell_done(self, keys: Iterable[CallKey]) -> None:
        """Tell the others that these requests are answered; said before all other words."""
        self._done |= dict.fromkeys(keys, True)

    def ask_to_repeat(self, key: CallKey) -> None:
        """Ask who has answered a request to send the reply again."""
        self._to_repeat[key] = True

    def greet(self) -> None:
        """Tell a newcomer, with the next words, that this server is here and what it asks."""
        self._has_newcomer = True

    def say_goodbye(self) -> None:
        """Add the last word; a newcomer need not be greeted any more, and no request is left."""
        self._has_newcomer = False
        self.forget_questions()
        self.say("bye")

    def take_messages(self, questions: Iterable[Question], others: KnownSiblings) -> list[bytes]:
        """Return the words to be sent, encoded.

        :param questions: the open questions, which are asked again if there is a newcomer.
        :param others: the known siblings, and whether each is there; one answer to each
            instance that asked says so.
        """
        if self._has_newcomer:
            self._has_newcomer = False
            self.say("here")
            self._to_ask |= {each.key: each.resent for each in questions}
        if self._answers:
            known = others.report
            for answer in self._answers.values():
                answer.knows = known
        words = [
            *self._about("done", self._done),
            *self._about("repeat", self._to_repeat),
            *self._words,
            *self._about("ask", self._to_ask),
        ]
        self._words, self._to_ask, self._done, self._to_repeat = [], {}, {}, {}
        self._answers, self._characters = {}, 0
        return [body for word in words for body in encode_in_portions(word)]

    def _about(self, kind: str, calls: dict[CallKey, bool]) -> list[Word]:
        return [Word(kind, self._instance, self.consumes, calls=calls)] if calls else []
