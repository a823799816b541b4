"""Limits what the keys of one container cost: by number, equal hashes, and steps of probing.

The sender of a message chooses the hashes of numbers, tuples and frozensets; those of texts and
bytes depend on a secret.  Keys of the same hash are compared with each other.  Keys of different
hashes may still probe the same places of the hash table one after the other, as long as those
are taken.  So this module probes for the keys in tables of bytes of its own, and counts the
steps, before a container gets the keys.  The steps for one key are its walk.
"""

import pickle  # for its errors only  # nosec B403
from array import array
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable
from typing import Any

#: How many keys of a container may be ints, and how many neither ints nor texts.
MAX_NUMBERS, MAX_OTHERS = 100_000, 10_000
#: How many of them may have the same hash.
MAX_SAME_HASH = 200
#: Types whose hashes depend on a secret.
TEXTS = frozenset({str, bytes})
# In a container of so few keys every walk is short: for keys that C compares directly, and for
# others.
_FEW, _FEW_OTHERS = 64, 2
_COMPARED_AT_ONCE = frozenset({int, float, complex, bool, type(None)})
# The walks of how many containers are remembered: a message fills a container in several steps.
_REMEMBERED = 64
# How many steps the walks of one message may take: so many a key, and so many beyond.  Keys that
# differ only in their upper bits, such as multiples of a large power of two, take about ten each.
_MEAN_STEPS, _FREE_STEPS = 16, 300_000
# Constants of CPython: by how many bits a hash is shifted for the next step, and how many
# neighbours of a place a set tries.
_SHIFT, _NEIGHBOURS = 5, 10
_MASK_OF_HASH = 2**64 - 1
# A dict is filled to two thirds; a set may be larger, by up to four times.
_SIZES_OF_DICT, _SIZES_OF_SET = (1,), (1, 2, 4)


class HashBounds:
    """Counts keys for the containers of one message.

    Every method raises pickle.UnpicklingError.
    """

    __slots__ = ("_steps", "_walks")

    def __init__(self) -> None:
        self._steps = _FREE_STEPS
        # By id.  The container itself is kept with them, so that no other object gets its id.
        self._walks: OrderedDict[int, tuple[Any, _Walks]] = OrderedDict()

    def check(self, keys: Collection[Any], container: Any, is_set: bool) -> list[int] | None:
        """Check *keys* that are about to be added to *container*.

        :param container: a dict, a set or a subclass; None for a new one that gets *keys* alone.
        :returns: for each key that is no text, with how many others it may be compared; None if
            those are few.
        """
        new = [key for key in keys if type(key) not in TEXTS]
        size = len(keys) + (0 if container is None else len(container))
        if size <= _FEW_OTHERS or not new:
            return None
        if size <= _FEW and all(type(key) in _COMPARED_AT_ONCE for key in new):
            return None
        walks = _Walks((), is_set) if container is None else self._walks_of(container, is_set)
        taken, self._steps = walks.add(new, size, self._steps)
        return taken

    def _walks_of(self, container: Any, is_set: bool) -> "_Walks":
        remembered = self._walks.get(id(container))
        if remembered is not None:
            self._walks.move_to_end(id(container))
            return remembered[1]
        walks = _Walks([key for key in container if type(key) not in TEXTS], is_set)
        self._walks[id(container)] = container, walks
        if len(self._walks) > _REMEMBERED:
            self._walks.popitem(last=False)
        return walks

    def is_forgotten(self, container: Any) -> bool:
        """Return True if all keys of *container* would have to be walked again."""
        return len(container) > _FEW and id(container) not in self._walks


class _Walks:
    """The walks of the keys of one container."""

    __slots__ = ("_by_hash", "_hashes", "_numbers", "_others", "_sizes", "_tables", "_width")

    def __init__(self, keys: Collection[Any], is_set: bool) -> None:
        self._numbers = self._others = 0
        self._hashes = array("q")
        self._by_hash: Counter[int] | None = None
        self._tables: dict[int, _Table] = {}
        self._width = _NEIGHBOURS if is_set else 1
        self._sizes = _SIZES_OF_SET if is_set else _SIZES_OF_DICT
        if keys:
            self._note(keys)

    def _note(self, keys: Collection[Any]) -> None:
        numbers = sum(type(key) is int for key in keys)
        self._numbers += numbers
        self._others += len(keys) - numbers
        if self._numbers > MAX_NUMBERS or self._others > MAX_OTHERS:
            raise pickle.UnpicklingError("a container has too many keys that are no texts")
        self._hashes.extend(map(hash, keys))

    def add(self, keys: Collection[Any], size: int, steps: int) -> tuple[list[int], int]:
        """Count the steps that it takes to add *keys*.

        :param size: how many keys the container then has, texts included.
        :param steps: how many steps may be taken beyond the mean.
        :returns: how many taken places each key met at most, and how many *steps* are left.
        """
        before = len(self._hashes)
        self._note(keys)
        texts = max(0, size - len(self._hashes))
        taken = list[int]()
        while before + len(taken) < len(self._hashes):
            start = before + len(taken)
            end = min(start + max(start // 4, _FEW), len(self._hashes))  # as the table grows
            longest, steps = self._walk_to(end, end - start, texts, steps)
            taken += longest
            self._check_hashes(longest, start, end)
        return taken, steps

    def _walk_to(self, end: int, new: int, texts: int, steps: int) -> tuple[list[int], int]:
        longest = [0] * new
        for table in self._tables_for(end + texts):
            walked, steps = table.walk(self._hashes[table.walked : end], steps)
            longest = list(map(max, longest, walked[-new:]))
        return [(walked - 1) * self._width for walked in longest], steps

    def _tables_for(self, size: int) -> Iterable["_Table"]:
        least, known = 1 << (size * 3 // 2).bit_length(), self._tables
        self._tables = {
            least * factor: known.get(least * factor) or _Table(least * factor, self._width)
            for factor in self._sizes
        }
        return self._tables.values()

    def _check_hashes(self, taken: list[int], start: int, end: int) -> None:
        """Count the keys of each hash, once a walk is so long that many may be the same."""
        if self._by_hash is None and max(taken) > MAX_SAME_HASH - 2 * _NEIGHBOURS:
            self._by_hash, start = Counter(), 0
        if self._by_hash is not None:
            for number in self._hashes[start:end]:
                self._by_hash[number] += 1
                if self._by_hash[number] > MAX_SAME_HASH:
                    raise pickle.UnpicklingError("too many keys of the message have the same hash")


class _Table:
    """Which places of a table of CPython's dict or set are taken."""

    __slots__ = ("_mask", "_places", "_width", "walked")

    def __init__(self, size: int, width: int) -> None:
        self._places, self._mask, self._width = bytearray(size), size - 1, width
        #: How many keys have a place here.
        self.walked = 0

    def walk(self, hashes: Collection[int], steps: int) -> tuple[list[int], int]:
        """Take a place for each of *hashes*.

        :returns: how many steps each of them took, and how many of *steps* are left.
        """
        places, mask, walks = self._places, self._mask, [1] * len(hashes)
        steps += _MEAN_STEPS * len(hashes)
        for index, number in enumerate(hashes):
            place = number & mask
            if places[place]:
                place, walks[index] = self._walk_on(place, number & _MASK_OF_HASH)
                steps -= walks[index]
                if steps < 0:
                    raise pickle.UnpicklingError(
                        "too many keys of the message collide in a hash table"
                    )
            places[place] = 1
        self.walked += len(hashes)
        return walks, steps - len(hashes)

    def _walk_on(self, place: int, perturb: int) -> tuple[int, int]:
        places, mask, width, steps = self._places, self._mask, self._width, 1
        last = mask + 1 - width if width > 1 else -1  # the last place with all its neighbours
        while places[place]:
            if place <= last and (free := places.find(0, place, place + width)) >= 0:
                return free, steps
            perturb >>= _SHIFT
            place = (place * 5 + perturb + 1) & mask
            steps += 1
        return place, steps
