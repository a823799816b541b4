"""The size of the argument that follows each opcode of a pickle."""

import pickletools  # a list of opcodes  # nosec B403

# Opcodes that a message may not use: persistent ids, out-of-band buffers, and the
# extension registry.
_REFUSED_NAMES = {
    *("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
    *("EXT1", "EXT2", "EXT4"),
}
#: The argument of an opcode: its number of bytes; or, below zero, one of these.
LENGTH_1, LENGTH_4, LENGTH_8, LINE, TWO_LINES, REFUSED = range(-1, -7, -1)

_ARGUMENTS = {
    pickletools.TAKEN_FROM_ARGUMENT1: LENGTH_1,
    pickletools.TAKEN_FROM_ARGUMENT4: LENGTH_4,
    pickletools.TAKEN_FROM_ARGUMENT4U: LENGTH_4,
    pickletools.TAKEN_FROM_ARGUMENT8U: LENGTH_8,
    pickletools.UP_TO_NEWLINE: LINE,
}


def _size_of(opcode: pickletools.OpcodeInfo) -> int:
    if opcode.name in _REFUSED_NAMES:
        return REFUSED
    if opcode.arg is None:
        return 0
    if opcode.name in ("GLOBAL", "INST"):
        return TWO_LINES
    return _ARGUMENTS.get(opcode.arg.n, opcode.arg.n)


CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
#: Sizes by opcode; bytes that are no opcode are refused, too.
SIZES = [REFUSED] * 256
for _opcode in pickletools.opcodes:
    SIZES[ord(_opcode.code)] = _size_of(_opcode)


def after_line(body: bytes, position: int) -> int:
    """Return the position after the line at *position*; the end of *body* if it is the last."""
    return (body.find(b"\n", position) + 1) or len(body)
