"""The requests that a server received recently, and its answers to them.

Only the thread that receives the requests uses this.
"""

from collections import OrderedDict
from collections.abc import Iterable
from enum import IntEnum
from typing import TypeVar

from qam._protocol.correlation import CallKey
from qam._server.call import Answer, Call

Key = TypeVar("Key")
Value = TypeVar("Value")

# Stands for a request that is not in the record.
_NOTHING = object()
#: How many answers are kept, and how many bytes of them.
_MAX_ANSWERS, _MAX_BYTES = 20_000, 32 * 1024 * 1024
#: For how many clients the record knows which of their calls it covers.
_MAX_CLIENTS = 10_000


class Elsewhere(IntEnum):
    """What is known of a request that another server may have; more outweighs less."""

    PERHAPS = 0  # they talked about it
    DOUBTFUL = 1  # this server had a copy, and lost it before it was judged
    ANSWERED = 2  # another server has answered it, or no copy can be kept until it does


class Record:
    """The requests that run, by their keys, and the answers to those that ran.

    The oldest answers are forgotten.  The numbers of a client's calls ascend, so for each
    client one number tells which of its calls are forgotten.
    """

    def __init__(self, max_answers: int = _MAX_ANSWERS, max_bytes: int = _MAX_BYTES) -> None:
        self._max_answers, self._max_bytes = max_answers, max_bytes
        #: The requests at hand: received and not answered, started or not.
        self.running: dict[CallKey, Call] = {}
        # Further ones with the same key, of clients whose keys are not unique; oldest first.
        self._twins: dict[CallKey, list[Call]] = {}
        # Oldest first; None for a request without an answer.
        self._answers: OrderedDict[CallKey, Answer | None] = OrderedDict()
        self._bytes = 0
        # For calls that ran more than once: the key of the last run, by the key of the first.
        self._last_runs: dict[CallKey, CallKey] = {}
        # The requests that another server may have, too.
        self._elsewhere: OrderedDict[CallKey, Elsewhere] = OrderedDict()
        # By client, that is by the routing key of its replies: the number from which on its
        # calls are covered, and the number up to which some are forgotten.
        self._covered_from: OrderedDict[str, int] = OrderedDict()
        self._forgotten_to: OrderedDict[str, int] = OrderedDict()

    # --- changes ------------------------------------------------------------------

    def begin(self, call: Call, first: bool) -> None:
        """Enter *call*, which is at hand from now on.

        :param first: True if no server has received it, or a call of that client with a higher
            number, before.
        """
        key = call.key
        if self.running.setdefault(key, call) is not call:
            self._twins.setdefault(key, []).append(call)
        if self._elsewhere and key in self._elsewhere:
            call.is_elsewhere = True
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
        """*calls* are settled: keep their answers, and forget the oldest ones."""
        for call in calls:
            key = call.key
            if self._remove(call):
                if key in self._answers:
                    self.forget([key])
                self._answers[key] = answer = call.repeatable_answer
                self._bytes += len(answer.body) if answer else 0
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forget surplus answers; note for each client up to which number some are forgotten."""
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

    def _remove(self, call: Call) -> bool:
        """Remove *call* from those at hand; return False if it is not among them."""
        key = call.key
        twins = self._twins.get(key) if self._twins else None
        if twins is None:
            if self.running.get(key) is not call:
                return False
            del self.running[key]
            return True
        calls = [self.running[key], *twins]
        if call not in calls:
            return False
        calls.remove(call)
        self.running[key], *twins = calls
        if twins:
            self._twins[key] = twins
        else:
            del self._twins[key]
        return True

    def drop(self, call: Call) -> None:
        """Forget *call*, which was not started here: another server may get it."""
        self._remove(call)
        if call.runs > 1:
            self._forget_run(call.key)

    def forget(self, keys: Iterable[CallKey]) -> None:
        """Forget the answers to *keys*, as if these requests had never come."""
        for key in keys:
            if key.runs > 1:
                self._forget_run(key)
            answer = self._answers.pop(key, None)
            self._bytes -= len(answer.body) if answer else 0

    def note_elsewhere(self, key: CallKey, what: Elsewhere = Elsewhere.PERHAPS) -> None:
        """Note that another server may have *key*, and *what* is known of it there."""
        if key in self.running:
            self.running[key].is_elsewhere = True
        _put(self._elsewhere, key, max(what, self._elsewhere.get(key, what)), self._max_answers)

    def note_nowhere(self, key: CallKey) -> None:
        """Note that no other server had *key* when this one asked."""
        if self._elsewhere.get(key) is Elsewhere.PERHAPS:
            del self._elsewhere[key]

    def uncover(self) -> None:
        """Cover no earlier calls any more: a server that may have run one can't be asked."""
        self._covered_from.clear()

    # --- questions ----------------------------------------------------------------

    def knows(self, key: CallKey) -> bool:
        """Return True if *key* is in the record: it is at hand, or settled."""
        return key in self.running or key in self._answers

    def latest(self, key: CallKey) -> CallKey:
        """Return the key of the last known run of the same call, which may be *key* itself."""
        last = self._last_runs.get(key._replace(runs=1)) if self._last_runs else None
        return last if last is not None and last.runs > key.runs else key

    def answer(self, key: CallKey) -> Answer | None:
        """Return the answer to *key*; None if there is none, or it is not known."""
        return self._answers.get(key)

    def is_passed_on(self, key: CallKey) -> bool:
        """Return True if *key* ended here without an answer: it was published anew to run again.

        If a later run is known here, that one counts.
        """
        return self._answers.get(key, _NOTHING) is None and self.latest(key) == key

    def is_elsewhere(self, key: CallKey) -> bool:
        """Return True if another server may have *key*, too."""
        return bool(self._elsewhere) and key in self._elsewhere

    def is_answered_elsewhere(self, key: CallKey) -> bool:
        """Return True if another server has answered *key*."""
        return self._elsewhere.get(key) is Elsewhere.ANSWERED

    def is_lost(self, key: CallKey) -> bool:
        """Return True if *key* may have run, here or elsewhere, and the record has forgotten it."""
        forgotten_to = self._forgotten_to.get(key.reply_to)
        forgotten = forgotten_to is not None and key.number <= forgotten_to
        return forgotten or self._elsewhere.get(key) is Elsewhere.DOUBTFUL

    def covers(self, key: CallKey) -> bool:
        """Return True if a request as old as *key* would be in the record, had it ever come."""
        covered_from = self._covered_from.get(key.reply_to)
        return covered_from is not None and key.number >= covered_from


def _put(table: OrderedDict[Key, Value], key: Key, value: Value, limit: int) -> Key | None:
    """Enter *value* as the latest; return the key that this pushes out, or None."""
    table[key] = value
    table.move_to_end(key)
    return table.popitem(last=False)[0] if len(table) > limit else None
