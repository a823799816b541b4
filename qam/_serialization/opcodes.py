"""What each opcode of a pickle has behind it."""

import pickletools  # a list of opcodes  # nosec B403

# They have no place in a message: persistent ids, out-of-band buffers, and the
# extension registry.
_REFUSED_NAMES = {
    *("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
    *("EXT1", "EXT2", "EXT4"),
}
#: What an opcode has behind it: so many bytes; or, below zero, one of these.
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
#: By code; what is no opcode is refused as well.
SIZES = [REFUSED] * 256
for _opcode in pickletools.opcodes:
    SIZES[ord(_opcode.code)] = _size_of(_opcode)


def after_line(body: bytes, position: int) -> int:
    """Return where the line ends that is at *position*, which is the end if it does not."""
    return (body.find(b"\n", position) + 1) or len(body)
