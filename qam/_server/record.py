"""Which requests a server has received of late, and what it answered.

Its owner is the thread that receives the requests; nobody else uses it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

from qam._protocol.correlation import CallKey
from qam._server.call import Answer, Call

Key = TypeVar("Key")
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
        self.running: dict[CallKey, Call] = {}
        # Oldest first; None where there was nothing to answer.
        self._answers: OrderedDict[CallKey, Answer | None] = OrderedDict()
        self._bytes = 0
        # By the key of the first run, the last one of what ran more than once.
        self._last_runs: dict[CallKey, CallKey] = {}
        # The requests that other servers asked about, which this one did not have.
        self._asked: OrderedDict[CallKey, bool] = OrderedDict()
        # By client, which is where its replies go: from which number on all calls that came
        # are in here, and up to which number some are forgotten.
        self._covered_from: OrderedDict[str, int] = OrderedDict()
        self._forgotten_to: OrderedDict[str, int] = OrderedDict()

    # --- what comes and goes ----------------------------------------------------

    def begin(self, call: Call, first: bool) -> None:
        """*call* is at hand from now on.

        :param first: no server had it, or any call of that client with a higher number,
            before.
        """
        key = call.key
        self.running[key] = call
        if key.runs > 1:
            self._note_run(key)
        client = key.reply_to
        if first and client not in self._covered_from and (number := key.number) >= 0:
            _put(self._covered_from, client, number, _MAX_CLIENTS)

    def _note_run(self, key: CallKey) -> None:
        first = key._replace(runs=1)
        last = self._last_runs.get(first)
        if last is None or key.runs > last.runs:
            self._last_runs[first] = key

    def _forget_run(self, key: CallKey) -> None:
        first = key._replace(runs=1)
        if self._last_runs.get(first) == key:
            del self._last_runs[first]

    def end(self, calls: Iterable[Call]) -> None:
        """*calls* are answered, or there is nothing to answer."""
        for call in calls:
            key = call.key
            if self.running.get(key) is call:
                del self.running[key]
                # What has no correlation id is never answered again.
                answer = None if call.is_anonymous else call.answer
                self._answers[key] = answer
                self._bytes += len(answer.body) if answer else 0
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forget what is too much, but not of which clients it was and up to which number."""
        answers, forgotten_to = self._answers, dict[str, int]()
        while len(answers) > self._max_answers or self._bytes > self._max_bytes:
            key, answer = answers.popitem(last=False)
            self._bytes -= len(answer.body) if answer else 0
            if key.runs > 1:
                self._forget_run(key)
            client, number = key.reply_to, key.number
            highest = forgotten_to.get(client)
            if highest is None or number > highest:
                forgotten_to[client] = number
        for client, number in forgotten_to.items():
            highest = max(number, self._forgotten_to.get(client, 0))
            pushed_out = _put(self._forgotten_to, client, highest, _MAX_CLIENTS)
            if pushed_out is not None:
                self._covered_from.pop(pushed_out, None)

    def drop(self, call: Call) -> None:
        """*call* was not begun, and is somebody else's again."""
        self.running.pop(call.key, None)
        if call.runs > 1:
            self._forget_run(call.key)

    def forget(self, keys: Iterable[CallKey]) -> None:
        """Forget the answers to *keys*, as if they had never come."""
        for key in keys:
            answer = self._answers.pop(key, None)
            self._bytes -= len(answer.body) if answer else 0

    def note_asked(self, key: CallKey, doubtful: bool = False) -> None:
        """Another server has *key*; or it is *doubtful* who has it, and this one had it last."""
        _put(self._asked, key, doubtful or self._asked.get(key, False), self._max_answers)

    def uncover(self) -> None:
        """What another server ran is not known any more: nobody can ask it."""
        self._covered_from.clear()

    # --- what is known ------------------------------------------------------------

    def knows(self, key: CallKey) -> bool:
        """Return True if *key* is here: it runs, or there is nothing more to do for it."""
        return key in self.running or key in self._answers

    def latest(self, key: CallKey) -> CallKey:
        """Return the key of the last run that is here of the same call; *key* if it is that one."""
        last = self._last_runs.get(key._replace(runs=1)) if self._last_runs else None
        return last if last is not None and last.runs > key.runs else key

    def answer(self, key: CallKey) -> Answer | None:
        """Return what was answered; None if nothing was, or nothing is known."""
        return self._answers.get(key)

    def was_asked(self, key: CallKey) -> bool:
        """Return True if another server may have *key*."""
        return key in self._asked

    def is_lost(self, key: CallKey) -> bool:
        """Return True if *key* may have run here, or elsewhere, without a trace of it."""
        forgotten_to = self._forgotten_to.get(key.reply_to)
        forgotten = forgotten_to is not None and key.number <= forgotten_to
        return forgotten or self._asked.get(key, False)

    def covers(self, key: CallKey) -> bool:
        """Return True if a request as old as *key* would be in here, had it ever come."""
        covered_from = self._covered_from.get(key.reply_to)
        return covered_from is not None and key.number >= covered_from


def _put(table: OrderedDict[Key, Value], key: Key, value: Value, limit: int) -> Key | None:
    """Enter *value* as the latest; return the key that is pushed out by that, if one is."""
    table[key] = value
    table.move_to_end(key)
    return table.popitem(last=False)[0] if len(table) > limit else None
