"""What a message in JSON or msgpack may cost: known before it is built, or counted meanwhile."""

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from kombu.utils import json as kombu_json

from qam._serialization.hash_bounds import HashBounds

_FREE = 40 * 2**20
# What a container takes, and of a byte of JSON and msgpack how much of that is allowed.
_BYTES_OF_LIST, _BYTES_OF_DICT = 88, 240
_PER_BYTE_OF_JSON, _PER_BYTE_OF_MSGPACK = 12, 76
# So many containers, or pairs of a dict, are built without another thread running meanwhile.
_MAX_AT_ONCE = 500_000
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_MAX_DIGITS = 4_300  # of a Decimal; what Python reads in a whole number


class TooCostlyError(ValueError):
    """A message would cost more than its size allows."""


# --- JSON -------------------------------------------------------------------------------


def loads_json(body: bytes) -> Any:
    """Return what the JSON in *body* stands for, in kombu's dialect.

    :raises ValueError: it is none, or would cost more than its size allows.
    """
    return _load(body, _json_object)


def loads_plain_json(body: bytes) -> Any:
    """Return what the JSON in *body* stands for, without what kombu's dialect makes of it.

    :raises ValueError: it is none, or would cost more than its size allows.
    """
    return _load(body, _as_it_is)


def _load(body: bytes, make_object: Callable[[dict[str, Any]], Any]) -> Any:
    """Build the JSON in *body*; *make_object* is in Python: other threads run where it does."""
    _check_json(body)
    loads = _load_by_and_by if _has_a_long_stretch(body) else json.loads
    return kombu_json.loads(body, loads, object_hook=make_object)


def _as_it_is(made: dict[str, Any]) -> dict[str, Any]:
    return made


def _has_a_long_stretch(body: bytes) -> bool:
    """Return True if lists, or the pairs of one object, are too many to be built at once."""
    if body.count(b"[") > _MAX_AT_ONCE:
        return True
    if body.count(b":") <= _MAX_AT_ONCE:
        return False
    between_ends = _TEXT.sub(b"", body).split(b"}")
    return any(pairs.count(b":") > _MAX_AT_ONCE for pairs in between_ends)


class _PatientDecoder(json.JSONDecoder):
    """Makes lists and objects in Python, so that other threads run meanwhile."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parse_array = json.decoder.JSONArray  # type: ignore[attr-defined]
        self.parse_object = json.decoder.JSONObject  # type: ignore[attr-defined]
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


_load_by_and_by = partial(json.loads, cls=_PatientDecoder)


def _check_json(body: bytes) -> None:
    allowed = _FREE + _PER_BYTE_OF_JSON * len(body)
    taken = _bytes_of_json(body, 0, len(body))
    if taken > allowed:  # unless they are in texts
        taken -= sum(_bytes_of_json(body, *text.span()) for text in _TEXT.finditer(body))
        if taken > allowed:
            raise TooCostlyError("the message would make more containers than its size allows")


def _bytes_of_json(body: bytes, start: int, end: int) -> int:
    lists, dicts = body.count(b"[", start, end), body.count(b"{", start, end)
    return lists * _BYTES_OF_LIST + dicts * _BYTES_OF_DICT


def _json_object(made: dict[str, Any]) -> Any:
    kind = made.get("__type__") if len(made) == 2 else None
    is_plain = _PLAIN_FORMS.get(kind) if type(kind) is str else None
    if is_plain is not None and not is_plain(made.get("__value__")):
        raise TooCostlyError(f"a {kind} is not in its plain form")
    return kombu_json.object_hook(made)


def _is_decimal(value: Any) -> bool:
    return type(value) is str and len(value) <= _MAX_DIGITS


def _is_uuid(value: Any) -> bool:
    """Return True for what an encoder writes; of others its constructor makes what has no text."""
    return type(value) is dict and value.keys() == {"hex"} and type(value["hex"]) is str


_PLAIN_FORMS = {"decimal": _is_decimal, "uuid": _is_uuid}


# --- msgpack ----------------------------------------------------------------------------

# The first bytes of lists and dicts: short ones, and those with a length of 2 or 4 bytes.
_SHORT_LISTS, _SHORT_DICTS = bytes(range(0x90, 0xA0)), bytes(range(0x80, 0x90))
_LONG_LISTS, _LONG_DICTS = b"\xdc\xdd", b"\xde\xdf"
# msgpack builds a dict at once: no other thread runs meanwhile.
_MAX_PAIRS = 1_000_000


def loads_msgpack(msgpack: Any, body: bytes) -> Any:
    """Return what the msgpack in *body* stands for; a tuple has become a list.

    Keys are texts, bytes and numbers, a million at most in a dict; a Timestamp becomes its
    seconds, and is no key.

    :raises ValueError: it is none, or would cost more than its size allows.
    """
    _check_lengths(msgpack, body)
    if _are_few(body):
        # Where a number is a key, or something is wrong, the hooks tell.
        with suppress(ValueError):
            return msgpack.unpackb(
                body, raw=False, strict_map_key=True, timestamp=1, max_map_len=_MAX_PAIRS
            )
    hooks = _Hooks(msgpack, len(body))
    return msgpack.unpackb(
        body,
        raw=False,
        strict_map_key=False,
        timestamp=0,
        max_map_len=_MAX_PAIRS,
        object_pairs_hook=hooks.make_dict,
        list_hook=hooks.check_list,
    )


def _check_lengths(msgpack: Any, body: bytes) -> None:
    """Pass over the whole, which makes nothing: a list has its room before it has its items."""
    if _number(body, _LONG_LISTS + _LONG_DICTS) > 1:
        unpacker = msgpack.Unpacker(
            max_buffer_size=len(body),
            read_size=len(body),
            strict_map_key=False,
            max_map_len=_MAX_PAIRS,
        )
        unpacker.feed(body)
        unpacker.skip()


def _number(body: bytes, codes: bytes) -> int:
    return len(body) - len(body.translate(None, codes))


def _are_few(body: bytes) -> bool:
    """Return True if *body* can't have too many containers; such bytes may be of a text as well."""
    if len(body) * _BYTES_OF_DICT <= _FREE:
        return True
    lists = _number(body, _SHORT_LISTS + _LONG_LISTS)
    dicts = _number(body, _SHORT_DICTS + _LONG_DICTS)
    allowed = _FREE + _PER_BYTE_OF_MSGPACK * len(body)
    taken = lists * _BYTES_OF_LIST + dicts * _BYTES_OF_DICT
    return taken <= allowed and lists + dicts <= _MAX_AT_ONCE


class _Hooks:
    """Looks at each container while it is built."""

    def __init__(self, msgpack: Any, size: int) -> None:
        self._left = _FREE + _PER_BYTE_OF_MSGPACK * size
        self._keys = HashBounds()
        self._timestamp: Callable[..., Any] = msgpack.Timestamp

    def make_dict(self, came: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        """Return what a message has as a dict."""
        self._take(_BYTES_OF_DICT)
        pairs = list(came)  # without its part in C, msgpack hands out an iterator
        keys = [key for key, _ in pairs]
        if not _KEYS.issuperset(map(type, keys)):
            raise TooCostlyError("a key of the message is neither text, bytes nor a number")
        self._keys.check(keys, None, is_set=False)
        return {key: self._seconds(value) for key, value in pairs}

    def check_list(self, made: list[Any]) -> list[Any]:
        """Return what a message has as a list."""
        self._take(_BYTES_OF_LIST)
        for index, value in enumerate(made):
            if type(value) is self._timestamp:
                made[index] = value.to_unix()
        return made

    def _seconds(self, value: Any) -> Any:
        return value.to_unix() if type(value) is self._timestamp else value

    def _take(self, octets: int) -> None:
        self._left -= octets
        if self._left < 0:
            raise TooCostlyError("the message would make more containers than its size allows")


_KEYS = frozenset({str, bytes, int, float, bool, type(None)})
