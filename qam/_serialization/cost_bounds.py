"""What the building of one message may cost: in calls, in hashes, in depth."""

import pickle  # for its errors only  # nosec B403
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from qam._serialization.known_names import CONTAINERS, FREED_BY_RECURSION, SIZED, parts_of
from qam._serialization.numpy_names import is_array

# What the calls and the hashes of one message may cost: so much, and more for its size.
_BUDGET, _BUDGET_PER_BYTE = 100_000, 3
_COST_OF_CALL, _COST_OF_DEQUE = 10, 40  # about the memory that the least of them takes
# How deep what is built by calls may lie in the like: to hash and to free it takes stack.
_MAX_DEPTH = 1000
# How much of what is freed by recursion, in C, may lie in the like.
_MAX_NESTED = 20_000
# How many keys that are no text and no small number may have one hash.
_MAX_SAME_HASH = 200


class Bounds:
    """Counts what the message of *size* bytes has cost so far, and refuses more than it may.

    Every method raises pickle.UnpicklingError.
    """

    def __init__(self, size: int) -> None:
        self._budget = _BUDGET + _BUDGET_PER_BYTE * size
        # How deep tuples, and what calls have made, lie in each other; by id, with the thing.
        self._depths: dict[int, tuple[Any, int]] = {}
        self._same_hash: Counter[tuple[int, int]] = Counter()  # by container and hash
        self._nested = 0  # how many of those that are freed by recursion lie in each other
        self._unfinished: set[int] = set()  # arrays of numpy whose data do not stand yet, by id

    # --- how much ---------------------------------------------------------------------------

    def call(self, called: Any) -> None:
        """Something is called."""
        self.spend(_COST_OF_DEQUE if called is deque else _COST_OF_CALL)

    def spend(self, cost: int) -> None:
        """Count *cost*, in what about an item costs."""
        self._budget -= cost
        if self._budget < 0:
            raise pickle.UnpicklingError("the message would build more than its size allows")

    def spend_on(
        self, values: Iterable[Any], check_leaf: Callable[[Any], None] | None = None
    ) -> None:
        """Count all that is in *values*, each as often as it is in there.

        :param check_leaf: called with each that is no container.
        """
        left = list(values)
        while left:
            value = left.pop()
            kind = type(value)
            self.spend(1 + (len(value) if kind in SIZED else 0))
            if kind is int:
                self.spend(value.bit_length() // 64)
            if check_leaf is not None and kind not in CONTAINERS:
                check_leaf(value)
            left.extend(parts_of(value))

    # --- how deep ---------------------------------------------------------------------------

    def _depth_of(self, value: Any) -> int:
        return self._depths.get(id(value), (None, 0))[1]

    def deepen(self, made: Any, parts: Iterable[Any]) -> Any:
        """Note how deep *made* is, by its *parts*; return it."""
        depth = 1 + max(map(self._depth_of, parts), default=0)
        if depth > _MAX_DEPTH:
            raise pickle.UnpicklingError("the message is nested too deeply")
        self._depths[id(made)] = made, depth
        return made

    def check_nesting(self, container: Any, items: Iterable[Any]) -> None:
        """Look at what is put into a container that is freed by recursion.

        Counted, since what lies in there may get its own items later.
        """
        if not isinstance(container, FREED_BY_RECURSION):
            return
        for item in items:
            if isinstance(item, (*FREED_BY_RECURSION, BaseException)) or is_array(item):
                self._check_finished(item)
                self._nested += 1 + self._depth_of(item)
        if self._nested > _MAX_NESTED:
            raise pickle.UnpicklingError("the message has too many containers in each other")

    def check_keys(self, keys: Iterable[Any], container: Any) -> None:
        """Look at what is going to be hashed, and put into *container*."""
        for key in keys:
            kind = type(key)
            if kind is str or kind is bytes or (kind is int and key.bit_length() < 64):
                continue
            self.spend_on([key])
            place = id(container), hash(key)
            self._same_hash[place] += 1
            if self._same_hash[place] > _MAX_SAME_HASH:
                raise pickle.UnpicklingError("too many keys of the message have the same hash")

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
                self.spend_on(made.args)
