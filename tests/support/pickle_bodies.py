"""Pickles of many kinds, honest ones and such as no pickler writes, for property-based tests."""

import array
import datetime
import io
import pathlib
import pickle
import pickletools
import struct
import types
import uuid
from collections import (
    ChainMap,
    Counter,
    OrderedDict,
    UserDict,
    UserList,
    UserString,
    defaultdict,
    deque,
)
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from qam._serialization.opcodes import (
    LENGTH_1,
    LENGTH_4,
    LENGTH_8,
    SIZES,
    TWO_LINES,
    after_line,
)

CODES = {opcode.name: opcode.code.encode("latin1") for opcode in pickletools.opcodes}
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


# --- values ----------------------------------------------------------------------------------

plain_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(max_size=12)
    | st.text("ab\u00e9\ud800\n\\'\"\0", max_size=8)
    | st.binary(max_size=12)
)


def _without_fold(time: Any) -> Any:
    return time.replace(fold=0)  # protocols below 4 lose it


_named_scalars = st.one_of(
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(datetime.UTC)).map(_without_fold),
    st.times().map(_without_fold),
    st.timedeltas(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.complex_numbers(),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9)),
    st.sampled_from([Ellipsis, NotImplemented, slice(1, None, 2), uuid.SafeUUID.unknown]),
    st.sampled_from([int, list, ValueError, datetime.date]),
    st.ip_addresses(),
    st.sampled_from(["a/b", "", "/x"]).map(pathlib.PurePosixPath),
    st.lists(st.integers(-9, 9), max_size=3).map(lambda items: array.array("i", items)),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text(max_size=3) | st.integers(-3, 3) | st.tuples(st.integers(0, 3), st.booleans())
    return st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.lists(inner, min_size=1, max_size=5).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
        inner.map(lambda item: [item, item, (item,)]),  # the same one again
        st.lists(inner, max_size=2).map(_with_itself),
        st.binary(max_size=4).map(bytearray),
    )


def _with_itself(items: list[Any]) -> list[Any]:
    items.append((items, {"itself": items}))
    return items


def _named_containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    texts = st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=2)
    items = st.lists(inner, max_size=3)
    return _containers(inner) | st.one_of(
        items.map(deque),
        texts.map(OrderedDict),
        texts.map(lambda found: defaultdict(list, found)),
        st.text("ab", max_size=4).map(Counter),
        texts.map(lambda found: types.SimpleNamespace(**found)),
        texts.map(UserDict),
        items.map(UserList),
        st.text(max_size=4).map(UserString),
        texts.map(lambda found: ChainMap(found, found)),
        st.text(max_size=4).map(lambda text: ValueError(text, 1)),
    )


plain_values = st.recursive(plain_scalars, _containers, max_leaves=6)
values = plain_values | st.recursive(
    plain_scalars | _named_scalars, _named_containers, max_leaves=6
)


# --- how a value is written --------------------------------------------------------------------


def pieces_of(body: bytes) -> list[bytes]:
    """Return the opcodes of *body*, each with its argument, without the frames."""
    found, position = list[bytes](), 0
    while position < len(body):
        after = _after(body, position)
        found.append(body[position:after])
        position = after
    return [piece for piece in found if piece[:1] != CODES["FRAME"]]


def _after(body: bytes, position: int) -> int:
    size, after = SIZES[body[position]], position + 1
    if size >= 0:
        return after + size
    if size in _WIDTHS:
        content = after + _WIDTHS[size]
        return content + int.from_bytes(body[after:content], "little")
    after = after_line(body, after)
    return after_line(body, after) if size == TWO_LINES else after


_WIDTHS = {LENGTH_1: 1, LENGTH_4: 4, LENGTH_8: 8}


def _by_python(value: Any, protocol: int) -> bytes:
    stream = io.BytesIO()
    pickle._Pickler(stream, protocol).dump(value)  # type: ignore
    return stream.getvalue()


def _unframed(value: Any, protocol: int) -> bytes:
    return b"".join(pieces_of(pickle.dumps(value, protocol)))


def _in_small_frames(value: Any, protocol: int) -> bytes:
    proto, *pieces = pieces_of(pickle.dumps(value, protocol))
    return proto + b"".join(map(framed, pieces))


def framed(content: bytes, size: int | None = None) -> bytes:
    """Return *content* in a frame, which says that it is of *size* bytes."""
    return CODES["FRAME"] + struct.pack("<Q", len(content) if size is None else size) + content


def _optimized(value: Any, protocol: int) -> bytes:
    return pickletools.optimize(pickle.dumps(value, protocol))


def _with_puts(put: Callable[[int], bytes]) -> Callable[[Any, int], bytes]:
    """Return what writes a pickle in which *put* writes the places in the memo."""

    def write(value: Any, protocol: int) -> bytes:
        pieces, place = pieces_of(_by_python(value, protocol)), 0
        for index, piece in enumerate(pieces):
            if piece[:1] in _PUTS:
                pieces[index] = put(place)
                place += 1
        return b"".join(pieces)

    return write


_PUTS = [CODES[name] for name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")]


def number(name: str, value: int) -> bytes:
    """Return the opcode *name* with a place in the memo of one byte, four, or text."""
    form = {"BINPUT": "<B", "BINGET": "<B", "LONG_BINPUT": "<I", "LONG_BINGET": "<I"}.get(name)
    text = b"%d\n" % value
    return CODES[name] + (text if form is None else struct.pack(form, value))


def _as_python_2(value: Any, protocol: int) -> bytes:
    """As Python 2 writes texts, which it has as bytes; with a piece of text that is no UTF-8."""
    pieces = pieces_of(pickle.dumps(value, min(protocol, 2)))
    for index, piece in enumerate(pieces):
        if piece[:1] == CODES["BINUNICODE"]:
            text = piece[5:]
            short = CODES["SHORT_BINSTRING"] + bytes([len(text) % 256]) + text
            pieces[index] = short if len(text) < 256 else CODES["BINSTRING"] + piece[1:]
        elif piece[:1] == CODES["UNICODE"]:
            pieces[index] = CODES["STRING"] + repr(piece[1:-1])[1:].encode() + b"\n"
    return b"".join(pieces)


#: By name, the ways in which a value is written.
WRITERS: dict[str, Callable[[Any, int], bytes]] = {
    "C": pickle.dumps,
    "Python": _by_python,
    "without frames": _unframed,
    "in small frames": _in_small_frames,
    "optimized": _optimized,
    "PUT": _with_puts(lambda place: number("PUT", place)),
    "LONG_BINPUT": _with_puts(lambda place: number("LONG_BINPUT", place)),
    "MEMOIZE": _with_puts(lambda place: CODES["MEMOIZE"]),
}
writers = st.sampled_from(sorted(WRITERS))
protocols = st.sampled_from(PROTOCOLS)


def _written(value: Any, writer: str, protocol: int) -> bytes:
    return WRITERS[writer](value, protocol)


#: Picklings of whatever a pickler writes, and as Python 2 would have written them.
picklings = st.builds(_written, values, writers, protocols)
old_picklings = st.builds(_as_python_2, values, protocols)


# --- pieces: opcodes with arguments, likely ones and odd ones ------------------------------------

_NUMBERS = [
    *("00", "01", "0", "1", "-0", "+1", " 0", "0 ", "\t1", "1\r", "000", "010", "-1", "-01", "--1"),
    *("0x10", "0o7", "0b1", "1_0", "_1", "1_", "", " ", "L", "1L", "0L", "1LL", "1l", "1.0", "1e1"),
    *(
        "9" * 25,
        "-" + "9" * 25,
        "9" * 18,
        "0" * 30 + "1",
        "1\0",
        "1\0x",
        "\u0661",
        "True",
        "4294967297",
    ),
]
_FLOATS = [
    *("1.5", "nan", "-nan", "inf", "-inf", "infinity", "-0.0", "1e400", "1e-400", "1", ".5", "5."),
    *(
        " 1.5",
        "1.5 ",
        "1_0.5",
        "0x1p3",
        "",
        "1.5f",
        "1.5\0",
        "1.5\0x",
        "1,5",
        "NaN",
        "1E5",
        "\u0661.5",
    ),
]
_STRINGS = [
    *("'a'", '"a"', "'a", "a'", "a", "''", "'", "", "'a' ", " 'a'", r"'\x41'", r"'\x4'", r"'\101'"),
    *(
        r"'\777'",
        r"'\q'",
        r"'\''",
        r"'\\'",
        "'\\'",
        r"'\n'",
        "'a\0b'",
        "'\xe9'",
        r"'\xff'",
        "'a'\r",
    ),
]
_UNICODES = [
    *(
        "a",
        "",
        " ",
        r"\u0041",
        r"\u41",
        r"\U0001F600",
        r"\U00110000",
        r"\ud800",
        r"\x41",
        "\\",
        "a\r",
    ),
    *(r"\\u0041", r"\\\u0041", "\xe9", "a\0b", r"\N{DASH}", r"\u000a"),
]


def _lines(name: str, texts: list[str]) -> list[bytes]:
    return [
        CODES[name] + text.encode("latin1" if text.isascii() else "utf-8") + b"\n" for text in texts
    ]


#: Opcodes with a text behind them, as it may be read in more than one way.
TEXTS = [
    *(piece for name in ("INT", "LONG", "PUT", "GET") for piece in _lines(name, _NUMBERS)),
    *_lines("FLOAT", _FLOATS),
    *_lines("STRING", _STRINGS),
    *_lines("UNICODE", _UNICODES),
    *(CODES[name] + b"'\xe9'\n" for name in ("STRING", "UNICODE", "INT")),
]


def _sized(name: str, form: str, content: bytes, size: int | None = None) -> bytes:
    return CODES[name] + struct.pack(form, len(content) if size is None else size) + content


_FORMS = {
    **dict.fromkeys(("SHORT_BINSTRING", "SHORT_BINBYTES", "SHORT_BINUNICODE", "LONG1"), "<B"),
    **dict.fromkeys(("BINSTRING", "LONG4"), "<i"),
    **dict.fromkeys(("BINBYTES", "BINUNICODE"), "<I"),
    **dict.fromkeys(("BINBYTES8", "BINUNICODE8", "BYTEARRAY8"), "<Q"),
}
_CONTENTS = [b"", b"a", b"\xe9", b"\xed\xa0\x80", b"\xff\x00", b"\x80", b"N.", b"\0\0", b"ab\n"]
#: And with a length before it.
SIZED = [_sized(name, form, each) for name, form in _FORMS.items() for each in _CONTENTS]
#: And with a length that is not that of what is behind it.
WRONG_SIZES = [
    CODES[name] + size.to_bytes(struct.calcsize(form), "little") + b"abc"
    for name, form in _FORMS.items()
    for size in (0, 1, 4, 127, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
    if size < 256 ** struct.calcsize(form)
]
_SINGLE = [CODES[opcode.name] for opcode in pickletools.opcodes if opcode.arg is None]
_LIKELY = [CODES[name] for name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "MARK", "NONE")]
_PLACES = [
    number(name, place)
    for name in ("PUT", "GET", "BINPUT", "BINGET", "LONG_BINPUT", "LONG_BINGET")
    for place in (0, 1, 2, 7, 255, 256, 2**31 - 1, 2**31, 2**32 - 1)
    if place < 256 or name not in ("BINPUT", "BINGET")
]
_SMALL_PLACES = [piece for piece in _PLACES if piece[1:3] in (b"\0", b"\1", b"\2", b"0\n", b"1\n")]
_FIXED = [
    *(CODES["PROTO"] + bytes([protocol]) for protocol in (0, 2, 4, 5, 6, 255)),
    *(CODES["BININT1"] + bytes([each]) for each in (0, 1, 255)),
    CODES["BININT2"] + b"\0\1",
    *(CODES["BININT"] + struct.pack("<i", each) for each in (0, -1, -(2**31))),
    *(CODES["BINFLOAT"] + struct.pack(">d", each) for each in (0.0, -0.0, float("nan"), 1e300)),
    CODES["BINFLOAT"] + b"\x7f\xf0\0\0\0\0\0\1",  # a NaN that signals
    *(CODES[name] + b"\1" for name in ("EXT1", "BINGET")),
    CODES["EXT2"] + b"\1\0",
    CODES["EXT4"] + b"\1\0\0\0",
    CODES["PERSID"] + b"a\n",
]
_FRAMES = [
    framed(b"", size) for size in (0, 1, 2, 3, 9, 10, 255, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
]
NAMES = [
    *(("datetime", name) for name in ("date", "timedelta", "timezone")),
    *(
        ("collections", name)
        for name in ("OrderedDict", "Counter", "deque", "UserDict", "defaultdict")
    ),
    *(("builtins", name) for name in ("set", "bytearray", "complex", "list", "slice", "getattr")),
    *(("__builtin__", name) for name in ("set", "range", "object", "bytes")),
    *(("copy_reg", name) for name in ("_reconstructor", "__newobj__")),
    *(("exceptions", name) for name in ("UnicodeDecodeError", "OSError")),
    *(("builtins", name) for name in ("ValueError", "KeyError", "StopIteration", "ImportError")),
    *(("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"), ("uuid", "SafeUUID")),
    *(
        ("types", "SimpleNamespace"),
        ("array", "array"),
        ("_codecs", "encode"),
        ("string", "Template"),
    ),
    *(("pathlib", "PurePath"), ("zoneinfo", "ZoneInfo"), ("time", "struct_time")),
    ("ipaddress", "IPv4Address"),
]
_NAMES = [f"c{module}\n{name}\n".encode() for module, name in NAMES]
_NAMES += [f"i{module}\n{name}\n".encode() for module, name in NAMES]
_NAMES += [
    b"".join(_sized("SHORT_BINUNICODE", "<B", text.encode()) for text in name)
    + CODES["STACK_GLOBAL"]
    for name in NAMES
]
_CALLS = [
    CODES[name] for name in ("REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "OBJ", "TUPLE1", "TUPLE2")
]

pieces = st.one_of(
    *map(st.sampled_from, (_SINGLE, _LIKELY, TEXTS, SIZED, WRONG_SIZES, _PLACES, _SMALL_PLACES)),
    *map(st.sampled_from, (_FIXED, _FRAMES, _NAMES, _CALLS)),
)
_ordinary = st.one_of(
    *map(st.sampled_from, (_SINGLE, _LIKELY, SIZED, _SMALL_PLACES, _CALLS, _NAMES))
)


# --- what no pickler writes ----------------------------------------------------------------------


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """Opcodes in any order, of which the last one ends the pickle."""
    start = draw(st.sampled_from([b"", b"\x80\x02", b"\x80\x04"]))
    found = draw(st.lists(_ordinary | pieces, max_size=12))
    return start + b"".join(found) + CODES["STOP"]


@st.composite
def rearranged(draw: st.DrawFn) -> bytes:
    """A pickling, of whose opcodes some are left out, put in, swapped, repeated or replaced."""
    body = pieces_of(draw(picklings | old_picklings))
    for _ in range(draw(st.integers(1, 3))):
        at, other = draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))
        match draw(st.sampled_from(["in", "out", "swap", "repeat", "other", "framed"])):
            case "in":
                body.insert(at, draw(pieces))
            case "out":
                del body[at : at + 1]
            case "swap" if max(at, other) < len(body):
                body[at], body[other] = body[other], body[at]
            case "repeat":
                body[at:at] = body[min(at, other) : max(at, other)]
            case "other":
                body[at : at + 1] = [draw(pieces)]
            case "framed":
                start, end = sorted((at, other))
                body[start:end] = [framed(b"".join(body[start:end]))]
    return b"".join(body)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A pickling with other bytes in some places, cut off, or with a frame that ends anywhere."""
    body = bytearray(draw(picklings | old_picklings | rearranged()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        match draw(st.sampled_from(["byte", "bit", "cut", "out", "in", "frame"])):
            case "byte":
                body[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "bit" if at < len(body):
                body[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del body[at:]
            case "out":
                del body[at : at + draw(st.integers(1, 8))]
            case "in":
                body[at:at] = draw(st.binary(max_size=8))
            case "frame":
                size = draw(st.integers(0, len(body) - at))
                body[at:at] = framed(b"", size)
    return bytes(body)


# --- all that is near to some short ones -------------------------------------------------------

_TWICE = ["a", (1.5, b"b")]
#: Short pickles, by what they consist of.
SHORT = {
    "places of a byte": pickle.dumps([1, _TWICE, _TWICE, {"k": None}], 2),
    "frame": pickle.dumps([1, _TWICE, {2, -3}, bytearray(b"c"), _TWICE], 5),
    "text": pickle.dumps([1, True, 2**40, _TWICE[0], -0.0], 0),
    "name": pickle.dumps([types.SimpleNamespace(a=_TWICE)], 4),
    "Python 2": _as_python_2({"a": [Counter("b")]}, 1),
}


_NEAR_PIECES = sorted({*_SINGLE, *_LIKELY, *_SMALL_PLACES, *_FIXED[:7], *_FRAMES[:3], *_NAMES[:2]})


def near(body: bytes) -> Iterator[bytes]:
    """Yield *body* itself, and with every single change: a byte, an opcode, a frame, an end."""
    yield body
    yield from changed_bytes(body)
    yield from changed_pieces(body)
    yield from in_frames(body)
    yield from (body[:end] for end in range(len(body)))


def changed_bytes(body: bytes) -> Iterator[bytes]:
    """Yield *body* with each bit of each byte turned over, and each byte a likely opcode."""
    for at, octet in enumerate(body):
        for other in {*(octet ^ 1 << bit for bit in range(8)), *b"(.0N]}\x94ehqt"} - {octet}:
            yield body[:at] + bytes([other]) + body[at + 1 :]


def changed_pieces(body: bytes) -> Iterator[bytes]:
    """Yield *body* with each opcode left out, repeated or swapped, and others put in anywhere."""
    found = pieces_of(body)
    for at, piece in enumerate(found):
        before, after = b"".join(found[:at]), b"".join(found[at + 1 :])
        yield before + after
        yield before + piece + piece + after
        yield before + b"".join(found[at + 1 : at + 2]) + piece + b"".join(found[at + 2 :])
        yield from (before + other + piece + after for other in _NEAR_PIECES)


def in_frames(body: bytes) -> Iterator[bytes]:
    """Yield *body* with one frame, from each opcode to each byte."""
    found = pieces_of(body)
    for at in range(len(found)):
        before, after = b"".join(found[:at]), b"".join(found[at:])
        for size in range(len(after) + 2):
            yield before + framed(after, size)


#: A byte string in a frame that ends in it: what follows is no opcode.
HIDDEN = [
    b"\x80\x04" + framed(CODES["SHORT_BINBYTES"] + bytes([40]) + content, size)
    for octets in (b"K\x01K\x02.", b"N.", b"(" * 9 + b".", b"]]a.")
    for content in [(b"x" * 30 + octets).ljust(40, b"N") + CODES["STOP"]]
    for size in range(45)
]
#: Every opcode with an odd argument: alone, in a list, as a key, with something in the memo before
#: it and after it, and with a state.
ODD = [
    pattern.replace(b"?", piece)
    for piece in (*TEXTS, *SIZED, *WRONG_SIZES, *_FIXED, *_PLACES)
    for pattern in (
        *(b"?.", b"]q\x00?a.", b"}?Ns.", b"K\x01q\x000?.", b"K\x01\x940?."),
        *(b"K\x01?0K\x02\x94h\x01.", b"]?}b."),
    )
]

#: Whatever may come.
bodies = st.one_of(programs(), rearranged(), damaged(), picklings, old_picklings)
