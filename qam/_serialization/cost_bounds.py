"""Limits what it may cost to build one message: calls, memory, hashes and depth."""

import pickle  # for its errors only  # nosec B403
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any

from qam._common.error_inspection import args_of, has_own_hash
from qam._serialization import memory_bounds
from qam._serialization.hash_bounds import TEXTS, HashBounds
from qam._serialization.known_names import (
    CONTAINERS,
    FILLED_LATER,
    FREED_BY_RECURSION,
    LEAVES,
    SIZED,
    parts_of,
)
from qam._serialization.numpy_names import is_array
from qam._serialization.pure_paths import PATHS

# What the calls and the hashes of one message may cost together, and what each byte adds.
_BUDGET, _BUDGET_PER_BYTE = 100_000, 3
_COST_OF_CALL = 10
# Memory that the result of a call takes at least, with its entry in _depths.  A deque allocates
# a block when it is made.
_BYTES_OF_CALL, _BYTES_OF_DEQUE, _BYTES_OF_CONTAINER = 200, 800, 400
# Memory that an item takes in a list or the like, and as a key.
_BYTES_OF_ITEM, _BYTES_OF_KEY = 16, 160
_BYTES_OF_PART = 8  # for each letter of a path: each may be a part of its own
_HASHING = frozenset({set, frozenset, dict, Counter, OrderedDict, defaultdict})
_NUMBERS, _SHORT_NUMBER = frozenset({int, float, complex, bool, type(None)}), 64
# How many comparisons of a key cost as much as one walk over it.
_COMPARED_PER_COST = 4
# How deep results of calls may be nested: hashing and freeing them takes stack.
_MAX_DEPTH = 1000
# How many containers that C frees recursively may be nested.
_MAX_NESTED = 20_000


def _bytes_of_state(part: Any) -> int:
    if type(part) is dict:  # its first item is counted with the instance
        return max(0, len(part) - 1) * _BYTES_OF_KEY
    return len(part) * (_BYTES_OF_ITEM if type(part) in CONTAINERS else 1)


class Bounds:
    """Counts what a message of *size* bytes has cost so far, and refuses what exceeds its limits.

    Every method raises pickle.UnpicklingError.

    :param taken: bytes of memory that the values made without a call take.
    """

    __slots__ = ("_budget", "_depths", "_keys", "_memory", "_nested", "_unfinished")

    def __init__(self, size: int, taken: int = 0) -> None:
        self._budget = _BUDGET + _BUDGET_PER_BYTE * size
        self._memory = memory_bounds.FREE + memory_bounds.PER_BYTE * size - taken
        # The nesting depth of each result of a call, by its id.  The result itself is kept with
        # it, so that no other object gets its id.
        self._depths: dict[int, tuple[Any, int]] = {}
        self._keys: HashBounds | None = None
        self._nested = 0  # how many containers that are freed recursively are nested
        self._unfinished: set[int] = set()  # arrays of numpy that have no data yet, by id

    # --- calls and memory -------------------------------------------------------------------

    def call(self, called: Any) -> None:
        """Count a call of *called*, and the memory of its result."""
        self.spend(_COST_OF_CALL)
        if called is deque:
            self.take(_BYTES_OF_DEQUE)
        else:
            filled = called in _HASHING or called in FILLED_LATER
            self.take(_BYTES_OF_CONTAINER if filled else _BYTES_OF_CALL)

    def spend(self, cost: int) -> None:
        """Count *cost*; its unit is about the time that one item takes."""
        self._budget -= cost
        if self._budget < 0:
            raise pickle.UnpicklingError("the message would build more than its size allows")

    def take(self, octets: int) -> None:
        """Count *octets* of memory."""
        self._memory -= octets
        if self._memory < 0:
            raise pickle.UnpicklingError("the message would take more memory than its size allows")

    def take_items(self, called: Any, args: Iterable[Any]) -> None:
        """Count the memory of what *called* makes of the items in *args*."""
        each = _BYTES_OF_KEY if called in _HASHING else _BYTES_OF_ITEM
        for arg in args:
            if type(arg) in CONTAINERS:
                self.take(len(arg) * each)
            elif type(arg) in SIZED:
                self.take(len(arg) * (_BYTES_OF_PART if called in PATHS else 1))
            else:
                self.take_again(arg)

    def take_again(self, value: Any) -> None:
        """Count another reference to *value*.

        When the result is encoded again, a number is written out at each of its references.
        """
        if type(value) is int:
            self.take(value.bit_length() // 8)

    def take_state(self, state: Any) -> None:
        """Count the state of an instance: it is copied, and a long one may be given to many."""
        parts = state if type(state) is tuple else (state,)
        items = sum(len(part) for part in parts if type(part) in SIZED)
        self.spend(len(parts) + items)
        self.take(sum(_bytes_of_state(part) for part in parts if type(part) in SIZED))
        for part in parts:
            if type(part) in CONTAINERS:
                for value in part.values() if type(part) is dict else part:
                    self.take_again(value)

    def spend_on(
        self, values: Iterable[Any], check_leaf: Callable[[Any], None] | None = None
    ) -> None:
        """Count everything in *values*, an object as often as it occurs.

        :param check_leaf: called with each value that is no container.
        """
        walks = [iter(values)]
        while walks:
            for value in walks[-1]:
                kind = type(value)
                if kind is int:
                    self.spend(1 + value.bit_length() // 64)
                else:
                    self.spend(1 + (len(value) if kind in SIZED else 0))
                if check_leaf is not None and kind not in CONTAINERS:
                    check_leaf(value)
                if kind not in LEAVES:
                    walks.append(iter(parts_of(value)))
                    self._check_depth(len(walks))
                    break
            else:
                walks.pop()

    # --- depth ------------------------------------------------------------------------------

    def _check_depth(self, depth: int) -> None:
        if depth > _MAX_DEPTH + 2:
            raise pickle.UnpicklingError("the message is nested too deeply")

    def _depth_of(self, value: Any) -> int:
        return self._depths.get(id(value), (None, 0))[1]

    def deepen(self, made: Any, parts: Iterable[Any]) -> Any:
        """Note the nesting depth of *made*, one more than that of its *parts*; return *made*."""
        if type(made) in LEAVES:
            return made
        depth = 1 + max(map(self._depth_of, parts), default=0)
        self._check_depth(depth + 1)
        self._depths[id(made)] = made, depth
        return made

    def check_nesting(self, container: Any, items: Iterable[Any]) -> None:
        """Check *items* before they are put into *container*, if it is freed recursively.

        The items are counted, not measured: they may get items of their own later.
        """
        if not issubclass(type(container), FREED_BY_RECURSION):
            return
        for item in items:
            if issubclass(type(item), (*FREED_BY_RECURSION, BaseException)) or is_array(item):
                self._check_finished(item)
                self._nested += 1 + self._depth_of(item)
        if self._nested > _MAX_NESTED:
            raise pickle.UnpicklingError("the message has too many nested containers")

    def check_keys(self, keys: Collection[Any], container: Any, is_set: bool = False) -> None:
        """Check *keys* before they are hashed and put into *container*.

        :param container: None for a new one that gets *keys* alone.
        """
        costs = [self._cost_of(key) for key in keys if type(key) not in TEXTS]
        if not costs:
            return
        if self._keys is None:
            self._keys = HashBounds()
        if container is not None and self._keys.is_forgotten(container):
            self.spend(len(container))
        compared = self._keys.check(keys, container, is_set)
        if compared is not None:
            self.spend(sum(map(int.__mul__, costs, compared)) // _COMPARED_PER_COST)

    def _cost_of(self, key: Any) -> int:
        """Count and return what it costs to hash *key*; 0 for a small number."""
        kind = type(key)
        if kind in _NUMBERS and (kind is not int or key.bit_length() <= _SHORT_NUMBER):
            return 0
        before = self._budget
        self.spend_on([key], _check_hash)
        return before - self._budget

    def begin_array(self, array: Any) -> None:
        """Note that *array*, of numpy, was made and gets its data later."""
        self._unfinished.add(id(array))

    def finish_array(self, array: Any, items: Iterable[Any]) -> None:
        """Note that *array* gets its data now: *items*, if it is an array of objects."""
        for item in items:
            self._check_finished(item)
        self.deepen(array, items)
        self._unfinished.discard(id(array))

    def _check_finished(self, item: Any) -> None:
        if id(item) in self._unfinished:
            raise pickle.UnpicklingError("an array of numpy is used before it has its data")

    def check_exceptions(self) -> None:
        """Count the args of exceptions, at the end: they may have grown, and become a text."""
        for made, _ in self._depths.values():
            if isinstance(made, BaseException):
                self.spend_on(args_of(made))


def _check_hash(value: Any) -> None:
    if has_own_hash(value):
        raise pickle.UnpicklingError("an exception whose class defines a hash can't be a key")
