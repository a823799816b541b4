"""Scans the opcodes of a pickle before an unpickler executes any of them.

An unpickler does not check the sizes in opcodes: ten bytes with a huge index into the memo, or
with the length of a huge byte string, cost gigabytes before any other check.  Opcodes of the
extension registry bypass ``find_class``.  And hashing a tuple hashes each item as often as it
occurs: a hundred bytes can make a pair of the same pair, of the same pair, and so on, which
takes for ever as a key of a dict.

Frames do not change the meaning of a pickle, but unpicklers differ in what they do when an
opcode's argument extends beyond the end of its frame.  The scan refuses such pickles.
"""

import pickle  # for its errors only  # nosec B403
import re
from struct import Struct

from qam._serialization import memory_bounds
from qam._serialization.opcodes import (
    CODES,
    LENGTH_1,
    LENGTH_4,
    LENGTH_8,
    REFUSED,
    SIZES,
    TWO_LINES,
    after_line,
)

# The C unpickler may build a pickle that consists of these opcodes alone: they make and change
# only containers and immutable values.
_PLAIN_NAMES = {
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BYTEARRAY8"),
    *("SHORT_BINUNICODE", "BINUNICODE"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_SET", "ADDITEMS", "FROZENSET"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
}


def _codes(*names: str) -> frozenset[int]:
    return frozenset(CODES[name] for name in names)


_STOP, _MARK, _FRAME, _PUT = map(CODES.get, ("STOP", "MARK", "FRAME", "PUT"))
_LONG1, _LONG4 = map(CODES.get, ("LONG1", "LONG4"))
_MEMOIZE, _BINPUT = map(CODES.get, ("MEMOIZE", "BINPUT"))
_BINGET, _LONG_BINGET = map(CODES.get, ("BINGET", "LONG_BINGET"))
_TUPLE, _SETITEM, _FROZENSET = map(CODES.get, ("TUPLE", "SETITEM", "FROZENSET"))
_SMALL_TUPLES = _codes("TUPLE1", "TUPLE2", "TUPLE3")
_PUTS = _codes("BINPUT", "LONG_BINPUT")
# Opcodes that end a mark, and whose result caches its hash or has none.
_FILLING = _codes("APPENDS", "SETITEMS", "ADDITEMS", "FROZENSET")
# With no items above the mark, C does not check that these opcodes fill a container.
_ADDING = _FILLING - _codes("FROZENSET")
_NO_ITEMS = re.compile(rb"(?:\x80.|\x95.{8})*+", re.DOTALL)
# Opcodes that hash the items above the mark.
_HASHING = _codes("SETITEMS", "ADDITEMS", "FROZENSET")
# Opcodes before a mark that show that the container to fill is empty.
_EMPTY = _codes("EMPTY_DICT", "EMPTY_SET")
_NOT_PLAIN = frozenset(CODES.values()) - _codes(*_PLAIN_NAMES)
# Opcodes with an effect that the scan keeps track of; it skips the others by their size.
_TRACKED = _NOT_PLAIN | _PUTS | _FILLING | _SMALL_TUPLES
_TRACKED |= _codes("MARK", "TUPLE", "BINGET", "LONG_BINGET", "FRAME", "STOP", "SETITEM")
# Opcodes whose result a message may get from the memo again: hashing it is cheap or impossible.
_SHAREABLE = _codes(
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BYTEARRAY8"),
    *("SHORT_BINUNICODE", "BINUNICODE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"),
)

#: How deep tuples may be nested for the C unpickler: their hash takes stack for each level.
_MAX_DEPTH = 2000
#: How many ints of _WIDE bytes or more the C unpickler may get: a sender can make any number of
#: those with the same hash.
_MAX_WIDE = 2000
_WIDE = 9
#: How many tuples and frozensets the C unpickler may get as keys or beside keys: a sender can
#: make any number of those with the same hash.  Numbers count as well, in containers with more
#: than a few: they may all probe the same places of the hash table.
_MAX_HASHED, _FEW_NUMBERS = 2000, 100
#: How many marks may be open at once.
_MAX_MARKS = 10_000
#: How many containers the C unpickler may make: no other thread runs meanwhile.
_MAX_CONTAINERS = 500_000
#: How many bytes of the pickle may be what large dicts and sets contain, for the same reason:
#: each key of a large one takes longer.  One is small if it gets a few bytes, and those at once.
_MAX_IN_LARGE, _FEW_BYTES, _BYTES_OF_PAIR = 2**22, 2**16, 8


def _with_length(opcode: str, size_of_length: int) -> bytes:
    """Return a pattern of *opcode* with a text of the length that it states, up to 255 bytes."""
    texts = (
        re.escape(length.to_bytes(size_of_length, "little")) + b".{%d}" % length
        for length in range(256)
    )
    return re.escape(CODES[opcode].to_bytes()) + b"(?:" + b"|".join(texts) + b")"


# Matches most messages: small values in lists, tuples and dicts, each used once, and no names.
# The first byte of each alternative identifies it, so the match never backtracks.  The most
# frequent opcodes come first.
_SIMPLE = re.compile(
    rb"(?:\x80[\x02-\x05])(?:\x95.{8})?(?:[})\]N\x88\x89\x85-\x87tusae\x94]++|\((?![eu])|"
    + _with_length("SHORT_BINUNICODE", 1)
    + rb"\x94?+|[Kq].|M..|J.{4}|G.{8}|\x8a(?:"
    + b"|".join(re.escape(bytes((length,))) + b".{%d}" % length for length in range(_WIDE))
    + b")|"
    + b"|".join(map(_with_length, ("SHORT_BINSTRING", "SHORT_BINBYTES"), [1] * 2))
    + b"|"
    + _with_length("BINUNICODE", 4)
    + rb")*+\.",
    re.DOTALL,
)
# Keys that are texts, each with a value that is no container.
_TEXT = _with_length("SHORT_BINUNICODE", 1) + rb"(?:\x94|q.)?"
_TEXT_KEYS = re.compile(
    rb"(?:(?:%b|h.|j.{4})(?:[N\x88\x89]|[Kh].|M..|[Jj].{4}|G.{8}|%b))*+" % (_TEXT, _TEXT), re.DOTALL
)
# Bytes.  A shorter body can't be nested too deeply; for a longer one a scan pays.
_SIMPLE_SIZE = 1024
_FRAME_SIZE = Struct("<Q")
# How picklers write numbers as text.  Unpicklers differ in how they read other forms.  No digit
# is tried twice, as other threads do not run meanwhile.
_NUMBER = rb"0|-?[1-9][0-9]*+"
_FORMS = {
    CODES[name]: re.compile(form)
    for name, form in {
        "INT": rb"0[01]|" + _NUMBER,
        "LONG": rb"(?:" + _NUMBER + rb")L?",
        "FLOAT": rb"-?(?:nan|inf|[0-9]++(?:\.[0-9]++)?(?:e[-+]?[0-9]++)?)",
        "PUT": _NUMBER,
        "GET": _NUMBER,
    }.items()
}


def _is_simple(body: bytes) -> bool:
    """Return True if one match shows that *body* is plain, and its frame has the right size."""
    if len(body) > _SIMPLE_SIZE or _SIMPLE.fullmatch(body) is None:
        return False
    return body[2] != _FRAME or _FRAME_SIZE.unpack_from(body, 3)[0] == len(body) - 11


def is_plain(body: bytes) -> bool:
    """Refuse *body* unless its opcodes are complete and the sizes in them are correct.

    :returns: True if it consists of plain values alone, which the C unpickler can build at a
        cost in proportion to its size; it names nothing, so nothing in it can be called.
    :raises pickle.UnpicklingError: an opcode or a size is wrong; the text says which.
    """
    if _is_simple(body):
        return True
    scan = _Scan(body)
    scan.run()
    return scan.is_plain() and memory_bounds.check(body, scan.in_texts)[0] <= _MAX_CONTAINERS


class _Scan:
    """One pass over the opcodes of a pickle."""

    __slots__ = (
        *("_body", "_composed", "_depths", "_has_put", "_hashed", "_is_new", "_limit", "_marks"),
        *("_in_frame", "_in_large", "_inner", "_memoized", "_numbers", "_unshareable", "_wide"),
        *("in_texts", "plain"),
    )

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.plain = True
        # The end of the current frame; outside of frames, the end of the body.
        self._limit, self._in_frame = len(body), False
        # For each open mark: an upper bound of the depth of the tuples above it;
        self._depths = [0]
        # how many tuples and frozensets, and how many numbers are above it;
        self._composed, self._numbers = [0], [0]
        # its position, and whether the container below it was empty;
        self._marks, self._is_new = [0], [False]
        # and how many bytes above it are inner containers and long texts.
        self._inner = [0]
        self._hashed = 0  # how many keys may be costly
        self._in_large = 0  # bytes of what containers hold that may be large
        self._memoized, self._has_put = 0, False
        self._unshareable: set[int] = set()
        self._wide = 0
        #: Bytes of long texts and byte strings.
        self.in_texts = 0

    def is_plain(self) -> bool:
        """Return True if the scan, which is over, found plain values only."""
        mixed = self._has_put and self._memoized  # no pickler mixes them; _memoized would be wrong
        costly = self._wide > _MAX_WIDE or self._hashed > _MAX_HASHED
        large = self._in_large > _MAX_IN_LARGE
        return self.plain and not mixed and not costly and not large

    def run(self) -> None:
        """Scan the body to its end, one frame after the other."""
        position, end = 0, len(self._body)
        while (position := self._scan_frame(position)) >= 0:
            if position != self._limit or position == end:
                raise pickle.UnpicklingError(
                    "the pickle is cut off, or an opcode extends beyond its frame"
                )
            self._limit, self._in_frame = end, False

    def _scan_frame(self, position: int) -> int:
        """Scan to the end of the frame, and return its position; -1 after the last opcode."""
        body, sizes, tracked, shareable = self._body, SIZES, _TRACKED, _SHAREABLE
        numbers, limit, opcode, memoized = self._numbers, self._limit, 0, self._memoized
        while position < limit:
            before, opcode = opcode, body[position]
            size = sizes[opcode]
            position += 1
            if opcode == _MEMOIZE:
                if before not in shareable:
                    self._unshareable.add(memoized)
                memoized += 1
                opcode = before
            elif opcode == _BINPUT and before in shareable:
                self._has_put = True
                position += 1
                opcode = before
            elif size >= 0:
                if opcode in tracked:
                    if opcode == _STOP:
                        self._memoized = memoized
                        return -1
                    opcode = self._track(opcode, before, position)
                    position += size
                    limit = self._limit
                else:
                    start = position
                    position += size
                    while position < limit and body[position] == opcode:  # a list of numbers
                        position += 1 + size
                    numbers[-1] += 1 + (position - start) // (1 + size)
            elif size == LENGTH_1:
                length = body[position] if position < limit else 0
                if opcode == _LONG1:
                    numbers[-1] += 1
                    self._wide += length >= _WIDE
                position += 1 + length
                if position < limit and body[position] == _MEMOIZE and opcode != _LONG1:
                    position += 1  # most texts are memoized, so do that here
                    memoized += 1
            elif size == LENGTH_4:
                length = int.from_bytes(body[position : position + 4], "little")
                position += 4 + length
                self.in_texts += length
                self._inner[-1] += length
                self.plain = self.plain and opcode != _LONG4
            else:
                position = self._after_rare(opcode, size, position)
        self._memoized = memoized
        return position

    def _track(self, opcode: int, before: int, position: int) -> int:
        """Track the effect of *opcode*; return the opcode that made the top of the stack."""
        depths = self._depths
        if opcode == _MARK:
            self._begin_mark(before, position)
        elif opcode in _PUTS:
            self._put(opcode, before, position)
            return before
        elif opcode in _SMALL_TUPLES:
            depths[-1] += 1
            self._composed[-1] += 1
            self._check_depth(depths[-1])
        elif opcode == _TUPLE or opcode in _FILLING:
            self._end_mark(opcode, position)
        elif opcode == _SETITEM:  # any tuple, frozenset or number above the mark may be the key
            self._hashed += self._composed[-1] > 0 or self._numbers[-1] > 0
            self._in_large += _BYTES_OF_PAIR
        elif opcode in (_BINGET, _LONG_BINGET):
            size = 1 if opcode == _BINGET else 4
            index = int.from_bytes(self._body[position : position + size], "little")
            self.plain = self.plain and index not in self._unshareable
        elif opcode == _FRAME:
            self._begin_frame(position)
        else:
            self.plain = self.plain and opcode not in _NOT_PLAIN
        return opcode

    def _begin_frame(self, position: int) -> None:
        if self._in_frame:
            raise pickle.UnpicklingError("a frame of the pickle begins inside another one")
        self._in_frame = True
        self._limit = position + 8 + int.from_bytes(self._body[position : position + 8], "little")
        if self._limit > len(self._body):
            raise pickle.UnpicklingError("a frame of the pickle is longer than the rest of it")

    def _begin_mark(self, before: int, position: int) -> None:
        self._depths.append(0)
        self._composed.append(0)
        self._numbers.append(0)
        self._marks.append(position)
        self._is_new.append(before in _EMPTY)
        self._inner.append(0)
        if len(self._marks) > _MAX_MARKS:
            raise pickle.UnpicklingError("too many marks of the pickle are open")

    def _end_mark(self, opcode: int, position: int) -> None:
        depths, composed = self._depths, self._composed
        depth, above, numbers = depths.pop() + 1, composed.pop(), self._numbers.pop()
        mark, is_new, inner = self._marks.pop(), self._is_new.pop(), self._inner.pop()
        if not depths:
            raise pickle.UnpicklingError("a mark is missing")
        self._inner[-1] += position - mark
        if opcode == _TUPLE:
            depths[-1] = max(depths[-1], depth)
            self._check_depth(depth)
        if opcode in _ADDING and _NO_ITEMS.fullmatch(self._body, mark, position - 1):
            self.plain = False
        if opcode in _HASHING:
            self._hashed += above
            is_new = is_new or opcode == _FROZENSET
            own = position - mark - inner
            self._in_large += 0 if is_new and own <= _FEW_BYTES else own
            few = numbers <= _FEW_NUMBERS and is_new
            if not few and not _TEXT_KEYS.fullmatch(self._body, mark, position - 1):
                self._hashed += numbers
        composed[-1] += opcode in (_TUPLE, _FROZENSET)

    def _check_depth(self, depth: int) -> None:
        if depth > _MAX_DEPTH:
            self.plain = False

    def _put(self, opcode: int, before: int, position: int) -> None:
        size = 1 if opcode == _BINPUT else 4
        index = int.from_bytes(self._body[position : position + size], "little")
        _check_memo(index, len(self._body))
        self._has_put = True
        if before not in _SHAREABLE:
            self._unshareable.add(index)

    def _after_rare(self, opcode: int, size: int, position: int) -> int:
        body = self._body
        if size == LENGTH_8:
            self.plain = self.plain and opcode not in _NOT_PLAIN
            length = int.from_bytes(body[position : position + 8], "little")
            self.in_texts += length
            self._inner[-1] += length
            return position + 8 + length
        if size == REFUSED:
            raise pickle.UnpicklingError(f"the opcode {opcode:#04x} is not allowed in a message")
        after = after_line(body, position)
        if opcode in _FORMS and _FORMS[opcode].fullmatch(body, position, after - 1) is None:
            raise pickle.UnpicklingError("a number is not in the form that picklers write")
        if opcode == _PUT:
            _check_memo(int(body[position : after - 1]), len(body))
        self.plain = self.plain and opcode not in _NOT_PLAIN
        return _after_name(body, position, after) if size == TWO_LINES else after


def _after_name(body: bytes, start: int, middle: int) -> int:
    """Return the position after the two lines of a name: module at *start*, name at *middle*."""
    end = after_line(body, middle)
    if middle - start < 2 or end - middle < 2:
        raise pickle.UnpicklingError("a name is empty")  # the C unpickler refuses it, too
    return end


def _check_memo(index: int, size: int) -> None:
    # A pickler counts from 0, and to fill a place takes at least a byte.
    if not 0 <= index < size:
        raise pickle.UnpicklingError(f"the memo index {index} is larger than the message")
