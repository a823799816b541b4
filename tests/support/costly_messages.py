"""Messages that are made to cost much for their size, and honest ones beside them."""

import datetime
import decimal
import json
import pickle
import pickletools
import random
import struct
import uuid
from collections.abc import Callable
from itertools import chain, islice, product
from pathlib import PurePosixPath
from typing import Any

import msgpack


def _filled(head: bytes, part: bytes, tail: bytes, size: int) -> bytes:
    return head + part * ((size - len(head) - len(tail)) // len(part)) + tail


def _list_of(part: bytes, head: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: _filled(b"\x80\x04" + head + b"](", part, b"e.", size)


def _value(value: Any) -> bytes:
    return pickletools.optimize(pickle.dumps(value, 2))[2:-1]  # without places in the memo


def _named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\nq\x000".encode()


def _long(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def numbers_of_one_walk(size: int) -> list[int]:
    """Numbers of different hashes whose walks through a table of *size* places become one.

    When nothing of a hash is left to shift, the place alone says what follows; so the lowest
    digits of each are chosen such that this place is the same for all.
    """
    bits, source, chosen = size.bit_length() - 1, random.Random(1), set[int]()
    # What lies above the lowest digits, and they themselves, add up to the place.
    lowest = {(_last_place(low, size) - _last_place(0, size)) % size: low for low in range(size)}
    while len(chosen) < size * 3 // 5:
        upper = source.getrandbits(60 - bits) << bits
        low = lowest.get(-_last_place(upper, size) % size)
        if low is not None:
            chosen.add(upper | low)
    return list(chosen)


def _last_place(number: int, size: int) -> int:
    place = number % size
    for _ in range(13):
        number >>= 5
        place = (place * 5 + number + 1) % size
    return place


def _dicts_of_one_walk(size: int) -> bytes:
    keys = b"".join(_long(number) + b"N" for number in numbers_of_one_walk(2**14))
    return _filled(b"\x80\x04](", b"}(" + keys + b"u", b"e.", max(size, len(keys) + 20))


_LETTERS = bytes(range(0x20, 0x7F)).translate(None, b'"\\')
# A text of JSON that makes each letter of the message take four bytes.
_WIDE = '"\U0001f600"'.encode()


def _short_keys(number: int) -> list[bytes]:
    """Return different texts of three letters, then of four: the shortest that take memory."""
    keys = chain.from_iterable(product(_LETTERS, repeat=length) for length in (3, 4))
    return list(map(bytes, islice(keys, number)))


def _pairs(value: bytes, size: int) -> list[bytes]:
    """Return pairs of JSON with different keys, and one with the wide text."""
    return [b'"":' + _WIDE, *(b'"%b":%b' % (key, value) for key in _short_keys(size // 10))]


def _dicts_of(number: int, pairs: list[bytes]) -> bytes:
    return b"[{" + b"},{".join(map(b",".join, _batches(pairs, number))) + b"}]"


def _batches(items: list[bytes], number: int) -> list[list[bytes]]:
    return [items[start : start + number] for start in range(0, len(items), number)]


def _rows(size: int) -> list[dict[str, Any]]:
    return [
        {"id": n, "name": f"name {n}", "price": n * 0.5, "sold": False} for n in range(size // 40)
    ]


def _pickled(rows: Callable[[int], Any]) -> Callable[[int], bytes]:
    return lambda size: pickle.dumps(rows(size))


_DATE = b"C\x04\x07\xea\x01\x01"

#: By serializer and name: honest ones, of about the size that is asked for.
HONEST: dict[tuple[str, str], Callable[[int], bytes]] = {
    ("pickle", "rows of dicts"): _pickled(_rows),
    ("pickle", "rows of tuples"): _pickled(
        lambda size: [(n, f"name {n}", n * 0.5, None) for n in range(size // 30)]
    ),
    ("pickle", "small dicts"): _pickled(lambda size: [{"a": n % 9} for n in range(size // 7)]),
    ("pickle", "dates"): _pickled(
        lambda size: [datetime.date.fromordinal(n % 3_000_000 + 1) for n in range(size // 16)]
    ),
    ("pickle", "texts as keys"): _pickled(lambda size: {f"{n:06x}": 0 for n in range(size // 11)}),
    ("pickle", "UUIDs"): _pickled(lambda size: [uuid.UUID(int=n) for n in range(size // 16)]),
    ("pickle", "Decimals"): _pickled(
        lambda size: [decimal.Decimal(n) / 7 for n in range(size // 45)]
    ),
    ("pickle", "paths"): _pickled(
        lambda size: [PurePosixPath(f"a/b{n}") for n in range(size // 26)]
    ),
    ("json", "rows of dicts"): lambda size: json.dumps(_rows(size // 2)).encode(),
    ("json", "small dicts"): lambda size: json.dumps([{"a": 1}] * (size // 10)).encode(),
    ("json", "small lists"): lambda size: json.dumps(
        [[1]] * (size // 4), separators=(",", ":")
    ).encode(),
    ("json", "texts as keys"): lambda size: json.dumps(
        {f"{n:06x}": 0 for n in range(size // 13)}
    ).encode(),
    ("json", "texts"): lambda size: json.dumps(["text"] * (size // 8)).encode(),
    ("msgpack", "rows of dicts"): lambda size: msgpack.packb(_rows(size)),
    ("msgpack", "small dicts"): lambda size: msgpack.packb([{"a": 1}] * (size // 4)),
    ("msgpack", "small lists"): lambda size: msgpack.packb([[1]] * (size // 2)),
    ("msgpack", "texts as keys"): lambda size: msgpack.packb(
        {f"{n:06x}": 0 for n in range(min(size // 8, 1_000_000))}
    ),
    ("msgpack", "numbers as keys"): lambda size: msgpack.packb(
        [dict.fromkeys(range(n, n + 100), 1) for n in range(size // 400)]
    ),
}
#: And what nobody honest sends.
HOSTILE: dict[tuple[str, str], Callable[[int], bytes]] = {
    ("pickle", "Nones"): _list_of(b"N"),
    ("pickle", "memo"): _list_of(b"N\x94"),
    ("pickle", "memo with a name"): _list_of(b"N\x94", _named("datetime", "date")),
    ("pickle", "empty lists"): _list_of(b"]"),
    ("pickle", "empty dicts"): _list_of(b"}"),
    ("pickle", "dicts of one"): _list_of(b"}NNs"),
    ("pickle", "sets of one"): _list_of(b"\x8f(N\x90"),
    ("pickle", "frozensets"): _list_of(b"(\x91"),
    ("pickle", "frozensets with a name"): _list_of(b"(\x91", _named("datetime", "date")),
    ("pickle", "tuples"): _list_of(b"N\x85"),
    ("pickle", "tuples with a name"): _list_of(b"N\x85", _named("datetime", "date")),
    ("pickle", "marks"): lambda size: _filled(b"\x80\x04", b"(", b".", size),
    ("pickle", "marks with a name"): lambda size: _filled(
        b"\x80\x04" + _named("datetime", "date"), b"(", b".", size
    ),
    ("pickle", "short texts"): _list_of(b"\x8c\x02ab"),
    ("pickle", "texts as keys, at once"): lambda size: (
        b"\x80\x04}(" + b"".join(b"\x8c\x06%06xN" % n for n in range(size // 9)) + b"u."
    ),
    ("pickle", "texts as keys with a name"): lambda size: (
        b"\x80\x04"
        + _named("datetime", "date")
        + b"}("
        + b"".join(b"\x8c\x06%06xN" % n for n in range(size // 9))
        + b"u."
    ),
    ("pickle", "dates of one state"): _list_of(
        b"h\x00h\x01R", _named("datetime", "date") + _DATE + b"\x85q\x010"
    ),
    ("pickle", "short keys"): lambda size: (
        b"\x80\x04}("
        + b"".join(b"\x8c%c%bN" % (len(key), key) for key in _short_keys(size // 7))
        + b"u."
    ),
    ("pickle", "opcodes without an effect"): lambda size: _filled(
        b"\x80\x04](", b"\x80\x04", b"e.", size
    ),
    ("pickle", "digits that are no number"): lambda size: _filled(b"F", b"1", b"x\n.", size),
    **{
        ("pickle", f"empty {name}s"): _list_of(b"h\x00)R", _named("collections", name))
        for name in ("deque", "defaultdict", "OrderedDict", "Counter", "UserDict", "ChainMap")
    },
    ("pickle", "namespaces"): _list_of(b"h\x00)R", _named("types", "SimpleNamespace")),
    ("pickle", "exceptions"): _list_of(b"h\x00)R", _named("builtins", "ValueError")),
    ("pickle", "paths of one text"): _list_of(
        b"h\x00h\x01R",
        _named("pathlib", "PurePosixPath") + b"X\xff\x0f\x00\x00" + b"a/" * 2047 + b"a\x85q\x010",
    ),
    ("pickle", "Fractions of one number"): _list_of(
        b"h\x00h\x01h\x02\x86R0N",
        _named("fractions", "Fraction") + _value(3**9000) + b"q\x010" + _value(7**5000) + b"q\x020",
    ),
    ("pickle", "one state for many"): _list_of(
        b"h\x00)Rh\x01b",
        _named("types", "SimpleNamespace")
        + _value({f"name {n}": n for n in range(1000)})
        + b"q\x010",
    ),
    ("pickle", "sets of one list"): _list_of(
        b"h\x00h\x01\x85R",
        _named("builtins", "set") + _value(list(range(10_000))) + b"q\x010",
    ),
    ("pickle", "numbers whose walks meet"): _dicts_of_one_walk,
    ("pickle", "numbers whose walks meet with a name"): lambda size: (
        b"\x80\x04" + _named("datetime", "date") + _dicts_of_one_walk(size)[2:]
    ),
    ("json", "empty lists"): lambda size: _filled(b"[", b"[],", b"0]", size),
    ("json", "empty dicts"): lambda size: _filled(b"[", b"{},", b"0]", size),
    ("json", "dicts of one"): lambda size: _filled(b"[", b'{"":0},', b"0]", size),
    ("json", "lists of one"): lambda size: _filled(b"[", b"[0],", b"0]", size),
    ("json", "texts as keys beside empty dicts"): lambda size: (
        b"["
        + json.dumps({f"{n:04x}": 0 for n in range((size - size // 99) // 11)}).encode()
        + b",{}" * (size // 300)
        + b"]"
    ),
    ("json", "ends of dicts as keys"): lambda size: (
        b"{" + b",".join(b'"}%05x":0' % n for n in range(size // 11 - 1)) + b"}"
    ),
    ("json", "a text without an end"): lambda size: _filled(
        b":" * (size // 3) + b'"', b'\\"', b"", size
    ),
    ("json", "brackets and a text without an end"): lambda size: _filled(
        b"{" * (size // 2) + b'"', b'\\"', b"", size
    ),
    ("json", "texts between colons"): lambda size: _filled(
        b":" * min(size // 4, 500_001), b'""1', b"", size
    ),
    ("json", "one key again and again"): lambda size: _filled(b"{", b'"":0,', b'"":0}', size),
    ("json", "short keys"): lambda size: b"{" + b",".join(_pairs(b"-9", size)) + b"}",
    ("json", "short keys of lists"): lambda size: b"{" + b",".join(_pairs(b"[]", size)) + b"}",
    ("json", "short keys in dicts of many"): lambda size: _dicts_of(87_400, _pairs(b"-9", size)),
    ("json", "short keys in dicts of a few"): lambda size: _dicts_of(6, _pairs(b"-9", size)),
    ("json", "short texts"): lambda size: _filled(
        b"[" + _WIDE + b",", '"\u0100",'.encode(), b"0]", size
    ),
    ("json", "short numbers"): lambda size: _filled(b"[" + _WIDE + b",", b"-9,", b"0]", size),
    ("json", "numbers"): lambda size: _filled(b"[", b"9" * 4300 + b",", b"0]", size),
    ("json", "long number"): lambda size: b"1" * size,
    ("json", "long fraction"): lambda size: b"0." + b"1" * (size - 2),
    ("json", "deep"): lambda size: b"[" * size,
    ("json", "brackets in a text"): lambda size: b'"' + b"[{" * (size // 2 - 1) + b'"',
    ("msgpack", "empty dicts"): lambda size: (
        b"\xdd" + struct.pack(">I", size - 5) + b"\x80" * (size - 5)
    ),
    ("msgpack", "empty lists"): lambda size: (
        b"\xdd" + struct.pack(">I", size - 5) + b"\x90" * (size - 5)
    ),
    ("msgpack", "dicts of one"): lambda size: (
        b"\xdd" + struct.pack(">I", size // 3 - 2) + b"\x81\xa0\x01" * (size // 3 - 2)
    ),
    ("msgpack", "texts as keys in a list"): lambda size: (
        b"\x92\xdf"
        + struct.pack(">I", size // 8)
        + b"".join(b"\xa6%06x\xc0" % n for n in range(size // 8))
        + b"\x90"
    ),
    ("msgpack", "short keys in dicts of many"): lambda size: msgpack.packb(
        [
            dict.fromkeys(map(bytes.decode, keys))
            for keys in _batches(_short_keys(size // 6), 900_000)
        ]
    ),
    ("msgpack", "short keys in dicts of a few"): lambda size: msgpack.packb(
        [dict.fromkeys(map(bytes.decode, keys)) for keys in _batches(_short_keys(size // 6), 6)]
    ),
    ("msgpack", "lists that say they are long"): lambda size: (
        (b"\xdd" + struct.pack(">I", size - 6000)) * 1000 + b"\x01" * (size - 6000)
    ),
    ("msgpack", "numbers whose walks meet"): lambda size: msgpack.packb(
        [dict.fromkeys(numbers_of_one_walk(2**14))] * (size // 100_000)
    ),
}
