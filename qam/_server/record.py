"""Which requests a server has received of late, and what it answered.

Its owner is the thread that receives the requests; nobody else uses it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

from qam._server.call import Answer, Call, next_run

Value = TypeVar("Value")

#: How many answers are kept, and how many bytes of them.
_MAX_ANSWERS, _MAX_BYTES = 20_000, 32 * 1024 * 1024
#: Of how many clients is known which of their calls the record covers.
_MAX_CLIENTS = 10_000


class Record:
    """The requests that run, by their keys, and the answers of those that ran.

    What is older than it reaches back is forgotten, client by client; the numbers of
    a client's calls ascend, so it is known which ones those are.
    """

    def __init__(self, max_answers: int = _MAX_ANSWERS, max_bytes: int = _MAX_BYTES) -> None:
        self._max_answers, self._max_bytes = max_answers, max_bytes
        #: What this server has and has not answered, whether it has begun or not.
        self.running: dict[str, Call] = {}
        # Oldest first; None where there was nothing to answer.
        self._answers: OrderedDict[str, Answer | None] = OrderedDict()
        self._bytes = 0
        # The requests that other servers asked about, which this one did not have.
        self._asked: OrderedDict[str, bool] = OrderedDict()
        # By client: from which number on all calls that came are in here, and up to
        # which number some are forgotten.
        self._covered_from: OrderedDict[str, int] = OrderedDict()
        self._forgotten_to: OrderedDict[str, int] = OrderedDict()

    # --- what comes and goes ----------------------------------------------------

    def begin(self, call: Call, first: bool) -> None:
        """*call* is at hand from now on.

        :param first: no server had it, or any call of that client with a higher number,
            before.
        """
        key = call.key
        if key is None:
            return
        self.running[key] = call
        if first and _client_of(key) not in self._covered_from:
            client, number = _number_of(key)
            if number >= 0:
                _put(self._covered_from, client, number, _MAX_CLIENTS)

    def end(self, calls: Iterable[Call]) -> None:
        """*calls* are answered, or there is nothing to answer."""
        for call in calls:
            key = call.key
            if key is not None and self.running.get(key) is call:
                del self.running[key]
                self._answers[key] = answer = call.answer
                self._bytes += len(answer.body) if answer else 0
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forget what is too much, but not of which clients it was and up to which number."""
        answers, forgotten_to = self._answers, dict[str, int]()
        while len(answers) > self._max_answers or self._bytes > self._max_bytes:
            key, answer = answers.popitem(last=False)
            self._bytes -= len(answer.body) if answer else 0
            client, number = _number_of(key)
            highest = forgotten_to.get(client)
            if highest is None or number > highest:
                forgotten_to[client] = number
        for client, number in forgotten_to.items():
            highest = max(number, self._forgotten_to.get(client, 0))
            pushed_out = _put(self._forgotten_to, client, highest, _MAX_CLIENTS)
            self._covered_from.pop(pushed_out, None)

    def drop(self, call: Call) -> None:
        """*call* was not begun, and is somebody else's again."""
        if call.key is not None:
            self.running.pop(call.key, None)

    def note_asked(self, key: str, doubtful: bool = False) -> None:
        """Another server has *key*; or it is *doubtful* who has it, and this one had it last."""
        _put(self._asked, key, doubtful or self._asked.get(key, False), self._max_answers)

    def uncover(self) -> None:
        """What another server ran is not known any more: nobody can ask it."""
        self._covered_from.clear()

    # --- what is known ------------------------------------------------------------

    def knows(self, key: str) -> bool:
        """Return True if *key* is here: it runs, or there is nothing more to do for it."""
        return key in self.running or key in self._answers

    def latest(self, key: str) -> str:
        """Return the key of the last run that is here of the same call; *key* if it is that one."""
        while self.knows(following := next_run(key)):
            key = following
        return key

    def answer(self, key: str) -> Answer | None:
        """Return what was answered; None if nothing was, or nothing is known."""
        return self._answers.get(key)

    def was_asked(self, key: str) -> bool:
        """Return True if another server may have *key*."""
        return key in self._asked

    def is_lost(self, key: str) -> bool:
        """Return True if *key* may have run here, or elsewhere, without a trace of it."""
        client, number = _number_of(key)
        forgotten_to = self._forgotten_to.get(client)
        return self._asked.get(key, False) or (forgotten_to is not None and number <= forgotten_to)

    def covers(self, key: str) -> bool:
        """Return True if a request as old as *key* would be in here, had it ever come."""
        client, number = _number_of(key)
        covered_from = self._covered_from.get(client)
        return covered_from is not None and number >= covered_from


def _client_of(key: str) -> str:
    return key.rpartition(":")[0]


def _number_of(key: str) -> tuple[str, int]:
    """Take a key apart: the client, and the number of its call; -1 if it has none."""
    client, _, number = key.rpartition(":")
    if "#" in number:  # another run of it
        number = number.partition("#")[0]
    return client, int(number) if number.isdecimal() and len(number) < 20 else -1


def _put(table: OrderedDict[str, Value], key: str, value: Value, limit: int) -> str:
    """Enter *value* as the latest; return the key that is pushed out by that, or else ""."""
    table[key] = value
    table.move_to_end(key)
    return table.popitem(last=False)[0] if len(table) > limit else ""
