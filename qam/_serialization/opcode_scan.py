"""A look at a pickle's opcodes before any of them is obeyed.

The C unpickler believes what an opcode says of sizes: ten bytes that name a huge
place in its memo, or a huge byte string, cost gigabytes before anything else is
asked.  The codes of the extension registry go around ``find_class``.  And the hash
of a tuple costs what is in it, as often as it is in there: a hundred bytes that put
a pair of the same pair into a pair, and so on, take for ever as a key of a dict.
"""

import pickle  # for its errors only  # nosec B403
import pickletools  # a list of opcodes  # nosec B403
import re
from enum import IntEnum
from struct import Struct

# They have no place in a message: persistent ids, out-of-band buffers, and the
# extension registry.
_REFUSED_NAMES = {
    *("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
    *("EXT1", "EXT2", "EXT4"),
}
# Of these alone consists a pickle that the C unpickler may build: what they make and
# change are containers and unchangeable values.
_PLAIN_NAMES = {
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BYTEARRAY8"),
    *("SHORT_BINUNICODE", "BINUNICODE"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_SET", "ADDITEMS", "FROZENSET"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE"),
    *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
}

# What an opcode has behind it: so many bytes; or, below zero, one of these.
_LENGTH_1, _LENGTH_4, _LENGTH_8, _LINE, _TWO_LINES, _REFUSED = range(-1, -7, -1)

_ARGUMENTS = {
    pickletools.TAKEN_FROM_ARGUMENT1: _LENGTH_1,
    pickletools.TAKEN_FROM_ARGUMENT4: _LENGTH_4,
    pickletools.TAKEN_FROM_ARGUMENT4U: _LENGTH_4,
    pickletools.TAKEN_FROM_ARGUMENT8U: _LENGTH_8,
    pickletools.UP_TO_NEWLINE: _LINE,
}


def _size_of(opcode: pickletools.OpcodeInfo) -> int:
    if opcode.name in _REFUSED_NAMES:
        return _REFUSED
    if opcode.arg is None:
        return 0
    if opcode.name in ("GLOBAL", "INST"):
        return _TWO_LINES
    return _ARGUMENTS.get(opcode.arg.n, opcode.arg.n)


_CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
_SIZES = [_REFUSED] * 256
for _opcode in pickletools.opcodes:
    _SIZES[ord(_opcode.code)] = _size_of(_opcode)


def _codes(*names: str) -> frozenset[int]:
    return frozenset(_CODES[name] for name in names)


_STOP, _MARK, _FRAME, _PUT = map(_CODES.get, ("STOP", "MARK", "FRAME", "PUT"))
_LONG1, _LONG4 = map(_CODES.get, ("LONG1", "LONG4"))
_MEMOIZE, _BINPUT = map(_CODES.get, ("MEMOIZE", "BINPUT"))
_BINGET, _LONG_BINGET = map(_CODES.get, ("BINGET", "LONG_BINGET"))
_TUPLE, _REDUCE, _STACK_GLOBAL = map(_CODES.get, ("TUPLE", "REDUCE", "STACK_GLOBAL"))
_SETITEM, _FROZENSET = map(_CODES.get, ("SETITEM", "FROZENSET"))
_SMALL_TUPLES = _codes("TUPLE1", "TUPLE2", "TUPLE3")
_PUTS = _codes("BINPUT", "LONG_BINPUT")
# They end a mark, and what they make has a hash of its own, or none.
_FILLING = _codes("APPENDS", "SETITEMS", "ADDITEMS", "FROZENSET")
# Those of them that hash what lies above the mark.
_HASHING = _codes("SETITEMS", "ADDITEMS", "FROZENSET")
_NOT_PLAIN = frozenset(_CODES.values()) - _codes(*_PLAIN_NAMES)
# The others are passed by with no more than a look at their size.
_MINDED = _NOT_PLAIN | _PUTS | _FILLING | _SMALL_TUPLES
_MINDED |= _codes("MARK", "TUPLE", "REDUCE", "BINGET", "LONG_BINGET", "FRAME", "STOP")
_MINDED |= _codes("STACK_GLOBAL", "SETITEM")
# Their product may be got from the memo again, since it costs nothing to hash.
_SHAREABLE = _codes(
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BYTEARRAY8"),
    *("SHORT_BINUNICODE", "BINUNICODE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE"),
)

#: How deep tuples may lie in tuples for the C unpickler; their hash takes stack for each.
_MAX_DEPTH = 2000
#: How many integers of more than 8 bytes it gets: any number of those has the same hash.
_MAX_WIDE = 2000
_WIDE = 9
#: How many tuples and frozensets may be among keys, and what lies beside keys: any number of
#: those can be made that have the same hash.
_MAX_HASHED = 2000

# What the containers that one byte makes take, and how much of that is allowed.
_BYTES_OF = {"]": 64, "}": 72, "\x8f": 224, "\x91": 216}
_FREE_BYTES, _BYTES_PER_BYTE = 64 * 2**20, 40
_FREE_SIZE = _FREE_BYTES // max(_BYTES_OF.values())


class Plainness(IntEnum):
    """What a pickle consists of."""

    #: What has to be looked at while it is built.
    NOT_PLAIN = 0
    #: Values that the C unpickler can build at no more cost than their size, and names.
    WITH_NAMES = 1
    #: Such values alone: there is nothing in it that could be called.
    VALUES = 2


# What nearly all are; to look a member up at its class takes as long as two calls.
VALUES = Plainness.VALUES


def _with_length(opcode: str, size_of_length: int) -> bytes:
    """Return a pattern of *opcode* with a text that is as long as it says, up to 255 bytes."""
    texts = (
        re.escape(length.to_bytes(size_of_length, "little")) + b".{%d}" % length
        for length in range(256)
    )
    return re.escape(_CODES[opcode].to_bytes()) + b"(?:" + b"|".join(texts) + b")"


# What most messages consist of: small values in lists, tuples and dicts, of which each is
# used once, and nothing that a name stands for.  Every opcode is told by its first byte,
# so the pattern looks at each byte once.  What is most frequent comes first.
_SIMPLE = re.compile(
    rb"(?:\x80[\x02-\x05])(?:\x95.{8})?(?:[})\](N\x88\x89\x85-\x87tusae\x94]++|"
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
# Less than what could be too deep; a longer one is worth a walk.
_SIMPLE_SIZE = 1024
_FRAME_SIZE = Struct("<Q")


def _is_simple(body: bytes) -> bool:
    """Return True if a glance at *body* shows that it is plain, and of the size it says."""
    if len(body) > _SIMPLE_SIZE or _SIMPLE.fullmatch(body) is None:
        return False
    return body[2] != _FRAME or _FRAME_SIZE.unpack_from(body, 3)[0] <= len(body) - 11


def check(body: bytes) -> Plainness:
    """Refuse *body* unless its opcodes are whole, and all that they say of sizes is true.

    :returns: how it may be built.
    :raises pickle.UnpicklingError: says what is wrong, and where.
    """
    if _is_simple(body):
        return VALUES
    look = _Look(body)
    look.through()
    if len(body) - look.long_texts > _FREE_SIZE:
        _check_containers(body)
    return look.plainness()


class _Look:
    """One walk over the opcodes of a pickle."""

    __slots__ = (
        *("_body", "_composed", "_depths", "_has_put", "_hashed", "_memoized", "_names"),
        *("_unshareable", "_wide", "long_texts", "plain"),
    )

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.plain = True
        #: Bytes of long texts, in which there are no opcodes.
        self.long_texts = 0
        # For each mark that is open, an upper bound of how deep its tuples are.
        self._depths = [0]
        # And how many tuples and frozensets lie above it; and how many may have been hashed.
        self._composed, self._hashed = [0], 0
        self._memoized, self._has_put = 0, False
        self._unshareable: set[int] = set()
        self._wide = 0
        self._names = False

    def plainness(self) -> Plainness:
        """Tell after the walk whether only what is plain was met."""
        mixed = self._has_put and self._memoized  # no pickler does that, and the count would be off
        costly = self._wide > _MAX_WIDE or self._hashed > _MAX_HASHED
        if mixed or costly or not self.plain:
            return Plainness.NOT_PLAIN
        return Plainness.WITH_NAMES if self._names else Plainness.VALUES

    def through(self) -> None:
        """Walk to the end."""
        body, sizes, minded, shareable = self._body, _SIZES, _MINDED, _SHAREABLE
        position, end, opcode, memoized = 0, len(body), 0, 0
        while position < end:
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
                if opcode in minded:
                    if opcode == _STOP:
                        self._memoized = memoized
                        return
                    opcode = self._mind(opcode, before, position)
                    position += size
                else:
                    position += size
                    while position < end and body[position] == opcode:  # as in a list of numbers
                        position += 1 + size
            elif size == _LENGTH_1:
                length = body[position] if position < end else 0
                if length >= _WIDE and opcode == _LONG1:
                    self._wide += 1
                position += 1 + length
                if position < end and body[position] == _MEMOIZE and opcode != _LONG1:
                    position += 1  # as most texts are, at once
                    memoized += 1
            elif size == _LENGTH_4:
                length = int.from_bytes(body[position : position + 4], "little")
                position += 4 + length
                self.long_texts += length
                self.plain = self.plain and opcode != _LONG4
            else:
                position = self._after_rare(opcode, size, position)
        raise pickle.UnpicklingError("the pickle is cut off, or names more bytes than it has")

    def _mind(self, opcode: int, before: int, position: int) -> int:
        """Note what *opcode* does; return it, or the one that made what is on the stack now."""
        depths = self._depths
        if opcode == _MARK:
            depths.append(0)
            self._composed.append(0)
        elif opcode in _PUTS:
            self._put(opcode, before, position)
            return before
        elif opcode in _SMALL_TUPLES:
            depths[-1] += 1
            self._composed[-1] += 1
            self._check_depth(depths[-1])
        elif opcode == _TUPLE or opcode in _FILLING:
            self._end_mark(opcode)
        elif opcode == _SETITEM:
            self._hashed += self._composed[-1] > 0  # the key may be one
        elif opcode == _REDUCE:
            if before in _SMALL_TUPLES:  # what it makes takes the place of the tuple
                depths[-1] -= 1
        elif opcode in (_BINGET, _LONG_BINGET):
            size = 1 if opcode == _BINGET else 4
            index = int.from_bytes(self._body[position : position + size], "little")
            self.plain = self.plain and index not in self._unshareable
        elif opcode == _FRAME:  # which is read ahead in one piece
            length = int.from_bytes(self._body[position : position + 8], "little")
            if length > len(self._body) - position - 8:
                raise pickle.UnpicklingError("a frame of the pickle is longer than the rest of it")
        else:
            self._names = self._names or opcode == _STACK_GLOBAL
            self.plain = self.plain and opcode not in _NOT_PLAIN
        return opcode

    def _end_mark(self, opcode: int) -> None:
        depths, composed = self._depths, self._composed
        depth, above = depths.pop() + 1, composed.pop()
        if not depths:
            raise pickle.UnpicklingError("a mark is missing")
        if opcode == _TUPLE:
            depths[-1] = max(depths[-1], depth)
            self._check_depth(depth)
        if opcode in _HASHING:
            self._hashed += above
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
        if size == _LENGTH_8:
            self.plain = self.plain and opcode not in _NOT_PLAIN
            return position + 8 + int.from_bytes(body[position : position + 8], "little")
        if size == _REFUSED:
            raise pickle.UnpicklingError(f"the opcode {opcode:#04x} has no place in a message")
        self._names = self._names or size == _TWO_LINES
        after = _after_line(body, position)
        if opcode == _PUT:
            _check_memo(int(body[position : after - 1]), len(body))
        self.plain = self.plain and opcode not in _NOT_PLAIN
        return _after_line(body, after) if size == _TWO_LINES else after


def _after_line(body: bytes, position: int) -> int:
    return (body.find(b"\n", position) + 1) or len(body)


def _check_memo(index: int, size: int) -> None:
    # A pickler counts from 0, and every place takes more than a byte to fill.
    if not 0 <= index < size:
        raise pickle.UnpicklingError(f"the place {index} in the memo is beyond the message")


def _check_containers(body: bytes) -> None:
    """Refuse a body that consists of empty containers: each byte would take a hundred."""
    allowed = _FREE_BYTES + _BYTES_PER_BYTE * len(body)
    most = sum(body.count(code.encode("latin1")) * size for code, size in _BYTES_OF.items())
    if most <= allowed:
        return
    # Such bytes may be part of a text as well.
    taken = sum(_BYTES_OF.get(opcode.code, 0) for opcode, _, _ in pickletools.genops(body))
    if taken > allowed:
        raise pickle.UnpicklingError("the message would make more containers than its size allows")
