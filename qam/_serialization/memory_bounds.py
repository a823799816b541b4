"""Limits the memory of a pickle's containers: an opcode of one byte can take over a hundred."""

import pickle  # for its errors only  # nosec B403
from collections import Counter

from qam._serialization.opcodes import (
    CODES,
    LENGTH_1,
    LENGTH_4,
    LENGTH_8,
    SIZES,
    TWO_LINES,
    after_line,
)

#: Bytes of memory that the containers of any message may take; and in addition for each byte of
#: the message, without dicts and with dicts.
FREE, PER_BYTE, PER_BYTE_WITH_DICTS = 40 * 2**20, 20, 60

# Bytes of memory that each opcode takes; opcodes that fill a container take more in addition.
_DICTS = {"EMPTY_DICT": 72, "DICT": 240, "SETITEM": 168, "SETITEMS": 168}
_LISTS = {"EMPTY_LIST": 72, "LIST": 72, "APPEND": 32, "APPENDS": 32}
_TUPLES = {"TUPLE": 64, "TUPLE1": 64, "TUPLE2": 64, "TUPLE3": 72}
_OTHERS = {**_LISTS, **_TUPLES, "EMPTY_SET": 232, "FROZENSET": 232}
_BYTES_OF_OTHERS = {CODES[name]: size for name, size in _OTHERS.items()}
_BYTES_OF = _BYTES_OF_OTHERS | {CODES[name]: size for name, size in _DICTS.items()}
_MAKING_NOTHING = bytes(set(range(256)) - _BYTES_OF.keys())
_FILLING = frozenset(CODES[name] for name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"))
# A body up to this length can't make too many containers, nor too much of them.
_SHORT = 2**17


def check(body: bytes, in_texts: int = 0) -> tuple[int, int]:
    """Refuse a *body* whose containers would take more memory than its size allows.

    :param in_texts: how many bytes of *body* are known to belong to texts and byte strings.
    :returns: upper bounds of the number of containers, and of the bytes of memory that they take
        without dicts; 0, 0 for a short body.
    :raises pickle.UnpicklingError: they would take too much memory.
    """
    if len(body) - in_texts <= _SHORT:
        return 0, 0
    # This counts bytes inside texts, too, but takes a hundredth of the time of a real scan.
    making = body.translate(None, _MAKING_NOTHING)
    found = {code: making.count(code) for code in _BYTES_OF}
    if _number(found) > _SHORT or _is_too_much(found, len(body)):
        found = _opcodes_of(body)
        if _is_too_much(found, len(body)):
            raise pickle.UnpicklingError(
                "the message would make more containers than its size allows"
            )
    return _number(found), _taken(found, _BYTES_OF_OTHERS)


def _number(found: dict[int, int]) -> int:
    return sum(found[code] for code in _BYTES_OF if code not in _FILLING)


def _taken(found: dict[int, int], sizes: dict[int, int]) -> int:
    return sum(found[code] * size for code, size in sizes.items())


def _is_too_much(found: dict[int, int], size: int) -> bool:
    return (
        _taken(found, _BYTES_OF_OTHERS) > FREE + PER_BYTE * size
        or _taken(found, _BYTES_OF) > FREE + PER_BYTE_WITH_DICTS * size
    )


def _opcodes_of(body: bytes) -> Counter[int]:
    """Count the opcodes of *body*; they were scanned before, so each is complete."""
    sizes, position, opcode, stop = SIZES, 0, 0, CODES["STOP"]
    counts = [0] * 256
    while opcode != stop:
        opcode = body[position]
        counts[opcode] += 1
        size = sizes[opcode]
        position += 1
        if size >= 0:
            position += size
        elif size == LENGTH_1:
            position += 1 + body[position]
        else:
            position = _after_long(body, position, size)
    return Counter(dict(enumerate(counts)))


def _after_long(body: bytes, position: int, size: int) -> int:
    if size in (LENGTH_4, LENGTH_8):
        width = 4 if size == LENGTH_4 else 8
        return position + width + int.from_bytes(body[position : position + width], "little")
    position = after_line(body, position)
    return after_line(body, position) if size == TWO_LINES else position
