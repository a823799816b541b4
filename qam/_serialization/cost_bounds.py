"""What the building of one message may cost: in calls, in memory, in hashes, in depth."""

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

# What the calls and the hashes of one message may cost: so much, and more for its size.
_BUDGET, _BUDGET_PER_BYTE = 100_000, 3
_COST_OF_CALL = 10
# What a call takes at least, with what is noted of it; a deque has a block from the start.
_BYTES_OF_CALL, _BYTES_OF_DEQUE, _BYTES_OF_CONTAINER = 200, 800, 400
# What an item takes in what is made of it; and in what hashes it.
_BYTES_OF_ITEM, _BYTES_OF_KEY = 16, 160
_BYTES_OF_PART = 8  # of a path, for each of its letters: the parts may be that short
_HASHING = frozenset({set, frozenset, dict, Counter, OrderedDict, defaultdict})
_NUMBERS, _SHORT_NUMBER = frozenset({int, float, complex, bool, type(None)}), 64
# So often a key is compared for what it costs to look at it.
_COMPARED_PER_COST = 4
# How deep what is built by calls may lie in the like: to hash and to free it takes stack.
_MAX_DEPTH = 1000
# How much of what is freed by recursion, in C, may lie in the like.
_MAX_NESTED = 20_000


def _bytes_of_state(part: Any) -> int:
    if type(part) is dict:  # one of them counts as part of the instance
        return max(0, len(part) - 1) * _BYTES_OF_KEY
    return len(part) * (_BYTES_OF_ITEM if type(part) in CONTAINERS else 1)


class Bounds:
    """Counts what the message of *size* bytes has cost so far, and refuses more than it may.

    Every method raises pickle.UnpicklingError.

    :param taken: the memory that what is made without a call takes.
    """

    __slots__ = ("_budget", "_depths", "_keys", "_memory", "_nested", "_unfinished")

    def __init__(self, size: int, taken: int = 0) -> None:
        self._budget = _BUDGET + _BUDGET_PER_BYTE * size
        self._memory = memory_bounds.FREE + memory_bounds.PER_BYTE * size - taken
        # How deep what calls have made lies in each other; by id, with the thing.
        self._depths: dict[int, tuple[Any, int]] = {}
        self._keys: HashBounds | None = None
        self._nested = 0  # how many of those that are freed by recursion lie in each other
        self._unfinished: set[int] = set()  # arrays of numpy whose data do not stand yet, by id

    # --- how much ---------------------------------------------------------------------------

    def call(self, called: Any) -> None:
        """Something is called."""
        self.spend(_COST_OF_CALL)
        if called is deque:
            self.take(_BYTES_OF_DEQUE)
        else:
            filled = called in _HASHING or called in FILLED_LATER
            self.take(_BYTES_OF_CONTAINER if filled else _BYTES_OF_CALL)

    def spend(self, cost: int) -> None:
        """Count *cost*, in what about an item costs."""
        self._budget -= cost
        if self._budget < 0:
            raise pickle.UnpicklingError("the message would build more than its size allows")

    def take(self, octets: int) -> None:
        """Count *octets* of memory."""
        self._memory -= octets
        if self._memory < 0:
            raise pickle.UnpicklingError("the message would take more than its size allows")

    def take_items(self, called: Any, args: Iterable[Any]) -> None:
        """Count the memory of what *called* makes of what is in *args*."""
        each = _BYTES_OF_KEY if called in _HASHING else _BYTES_OF_ITEM
        for arg in args:
            if type(arg) in CONTAINERS:
                self.take(len(arg) * each)
            elif type(arg) in SIZED:
                self.take(len(arg) * (_BYTES_OF_PART if called in PATHS else 1))
            else:
                self.take_again(arg)

    def take_again(self, value: Any) -> None:
        """Count what stands somewhere already, and gets another place.

        A number is written out in each of them, when what was built is encoded again.
        """
        if type(value) is int:
            self.take(value.bit_length() // 8)

    def take_state(self, state: Any) -> None:
        """Count what an instance gets: it is copied, and what is long may be given to many."""
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
        """Count all that is in *values*, each as often as it is in there.

        :param check_leaf: called with each that is no container.
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

    # --- how deep ---------------------------------------------------------------------------

    def _check_depth(self, depth: int) -> None:
        if depth > _MAX_DEPTH + 2:
            raise pickle.UnpicklingError("the message is nested too deeply")

    def _depth_of(self, value: Any) -> int:
        return self._depths.get(id(value), (None, 0))[1]

    def deepen(self, made: Any, parts: Iterable[Any]) -> Any:
        """Note how deep *made* is, by its *parts*; return it."""
        if type(made) in LEAVES:
            return made
        depth = 1 + max(map(self._depth_of, parts), default=0)
        self._check_depth(depth + 1)
        self._depths[id(made)] = made, depth
        return made

    def check_nesting(self, container: Any, items: Iterable[Any]) -> None:
        """Look at what is put into a container that is freed by recursion.

        Counted, since what lies in there may get its own items later.
        """
        if not issubclass(type(container), FREED_BY_RECURSION):
            return
        for item in items:
            if issubclass(type(item), (*FREED_BY_RECURSION, BaseException)) or is_array(item):
                self._check_finished(item)
                self._nested += 1 + self._depth_of(item)
        if self._nested > _MAX_NESTED:
            raise pickle.UnpicklingError("the message has too many containers in each other")

    def check_keys(self, keys: Collection[Any], container: Any, is_set: bool = False) -> None:
        """Look at what is going to be hashed, and put into *container*.

        :param container: None for one that is made of *keys* alone.
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
        """Count what the hash of *key* costs, and return it; 0 for a small number."""
        kind = type(key)
        if kind in _NUMBERS and (kind is not int or key.bit_length() <= _SHORT_NUMBER):
            return 0
        before = self._budget
        self.spend_on([key], _check_hash)
        return before - self._budget

    def begin_array(self, array: Any) -> None:
        """An array of numpy is made, which gets its data later."""
        self._unfinished.add(id(array))

    def finish_array(self, array: Any, items: Iterable[Any]) -> None:
        """An array gets its data now: *items*, if it is one of objects."""
        for item in items:
            self._check_finished(item)
        self.deepen(array, items)
        self._unfinished.discard(id(array))

    def _check_finished(self, item: Any) -> None:
        if id(item) in self._unfinished:
            raise pickle.UnpicklingError("an array of numpy has no data yet where it is used")

    def check_exceptions(self) -> None:
        """Look at the end at what exceptions hold: it may have grown, and text is made of it."""
        for made, _ in self._depths.values():
            if isinstance(made, BaseException):
                self.spend_on(args_of(made))


def _check_hash(value: Any) -> None:
    if has_own_hash(value):
        raise pickle.UnpicklingError("an exception with a hash of its own is no key")
