"""A look at a pickle's opcodes before any of them is obeyed.

The C unpickler believes what an opcode says of sizes: ten bytes that name a huge
place in its memo, or a huge byte string, cost gigabytes before anything else is
asked.  And the codes of the extension registry go around ``find_class``.
"""

import pickle  # nosec B403
import pickletools  # nosec B403

# What an opcode has behind it: this many bytes; or, below zero, one of these.
_LENGTH_1, _LENGTH_4, _LENGTH_8, _LINE, _TWO_LINES, _FRAME, _STOP, _REFUSED = range(-1, -9, -1)

_ARGUMENTS = {
    pickletools.TAKEN_FROM_ARGUMENT1: _LENGTH_1,
    pickletools.TAKEN_FROM_ARGUMENT4: _LENGTH_4,
    pickletools.TAKEN_FROM_ARGUMENT4U: _LENGTH_4,
    pickletools.TAKEN_FROM_ARGUMENT8U: _LENGTH_8,
    pickletools.UP_TO_NEWLINE: _LINE,
}
# They have no place in a message: persistent ids, out-of-band buffers, and the
# extension registry.
_NAMES_REFUSED = {
    *("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
    *("EXT1", "EXT2", "EXT4"),
}


def _size_of(opcode: pickletools.OpcodeInfo) -> int:
    if opcode.name in _NAMES_REFUSED:
        return _REFUSED
    if opcode.name == "STOP":
        return _STOP
    if opcode.name == "FRAME":
        return _FRAME
    if opcode.arg is None:
        return 0
    if opcode.name in ("GLOBAL", "INST"):
        return _TWO_LINES
    return _ARGUMENTS.get(opcode.arg.n, opcode.arg.n)


_SIZES = [_REFUSED] * 256
for _opcode in pickletools.opcodes:
    _SIZES[ord(_opcode.code)] = _size_of(_opcode)

_LONG_BINPUT, _PUT, _LONG4 = pickle.LONG_BINPUT[0], pickle.PUT[0], pickle.LONG4[0]


def check(body: bytes) -> None:
    """Refuse *body* unless its opcodes are whole, and all that they say of sizes is true.

    :raises pickle.UnpicklingError: says what is wrong, and where.
    """
    sizes, position, end = _SIZES, 0, len(body)
    while position < end:
        opcode = body[position]
        size = sizes[opcode]
        position += 1
        if size >= 0:
            if opcode == _LONG_BINPUT:
                _check_memo(int.from_bytes(body[position : position + 4], "little"), end)
            position += size
        elif size == _LENGTH_1:
            position += 1 + body[position] if position < end else 1
        elif size == _LENGTH_4:
            position += 4 + int.from_bytes(body[position : position + 4], "little")
        elif size == _STOP:
            return
        else:
            position = _after_rare(body, opcode, size, position)
    raise pickle.UnpicklingError("the pickle is cut off, or names more bytes than it has")


def _after_rare(body: bytes, opcode: int, size: int, position: int) -> int:
    if size == _LENGTH_8:
        return position + 8 + int.from_bytes(body[position : position + 8], "little")
    if size == _FRAME:  # read ahead in one piece, and then opcode by opcode
        length = int.from_bytes(body[position : position + 8], "little")
        return position + 8 if position + 8 + length <= len(body) else len(body)
    if size == _REFUSED:
        raise pickle.UnpicklingError(f"the opcode {opcode:#04x} has no place in a message")
    after = _after_line(body, position)
    if opcode == _PUT:
        _check_memo(int(body[position : after - 1]), len(body))
    return _after_line(body, after) if size == _TWO_LINES else after


def _after_line(body: bytes, position: int) -> int:
    return (body.find(b"\n", position) + 1) or len(body)


def _check_memo(index: int, size: int) -> None:
    # A pickler counts from 0, and every place takes more than a byte to fill.
    if not 0 <= index < size:
        raise pickle.UnpicklingError(f"the place {index} in the memo is beyond the message")
