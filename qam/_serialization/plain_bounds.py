"""Limits the cost of messages in JSON and msgpack, before or while they are built."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from kombu.utils import json as kombu_json

from qam._serialization.hash_bounds import HashBounds

_FREE = 40 * 2**20
# Bytes of memory that a container takes; how many the containers of a message may take in any
# case (_FREE), and in addition for each byte of JSON and of msgpack.
_BYTES_OF_LIST, _BYTES_OF_DICT = 88, 240
_PER_BYTE_OF_JSON, _PER_BYTE_OF_MSGPACK = 12, 76
# How many containers, or pairs of a dict, may be built before other threads can run.
_MAX_AT_ONCE = 500_000
# A text; one that does not end goes to the end of the body, so that no byte is read twice.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
# A part of a body, with whole texts; other threads can run between two parts.
_PART = re.compile(rb'(?:[^"]{1,100}+|%b){1,1000}+' % _TEXT.pattern, re.DOTALL)
_MAX_DIGITS = 4_300  # of a Decimal; Python's own limit for an int


class TooCostlyError(ValueError):
    """A message would cost more than its size allows."""


# --- JSON -------------------------------------------------------------------------------


def loads_json(body: bytes) -> Any:
    """Return the value that the JSON in *body* encodes, in kombu's dialect.

    :raises ValueError: *body* is no JSON, or its value would cost more than its size allows.
    """
    return _load(body, _json_object)


def loads_plain_json(body: bytes) -> Any:
    """Return the value that the JSON in *body* encodes, without the types of kombu's dialect.

    :raises ValueError: *body* is no JSON, or its value would cost more than its size allows.
    """
    return _load(body, _as_it_is)


def _load(body: bytes, make_object: Callable[[dict[str, Any]], Any]) -> Any:
    """Build the JSON in *body*; other threads can run in each call of *make_object*."""
    _check_json(body)
    loads = _load_in_python if _has_long_stretch(body) else json.loads
    return kombu_json.loads(body, loads, object_hook=make_object)


def _as_it_is(made: dict[str, Any]) -> dict[str, Any]:
    return made


def _has_long_stretch(body: bytes) -> bool:
    """Return True if there are too many lists, or pairs of one object, to build them at once."""
    if body.count(b"[") > _MAX_AT_ONCE:
        return True
    if body.count(b":") <= _MAX_AT_ONCE:
        return False
    pairs = 0
    for part in _without_texts(body):
        between_ends = [stretch.count(b":") for stretch in part.split(b"}")]
        between_ends[0] += pairs
        if max(between_ends) > _MAX_AT_ONCE:
            return True
        pairs = between_ends[-1]
    return False


def _without_texts(body: bytes) -> Iterator[bytes]:
    """Yield *body* without its texts, part by part: at once, each text would take memory."""
    view = memoryview(body)
    for part in _PART.finditer(body):
        yield _TEXT.sub(b"", view[slice(*part.span())])


class _PythonDecoder(json.JSONDecoder):
    """Makes lists and objects in Python, so that other threads can run meanwhile."""

    def __init__(self, object_hook: Callable[[dict[str, Any]], Any]) -> None:
        super().__init__(object_pairs_hook=lambda pairs: object_hook(_as_dict(pairs)))
        self.parse_array = json.decoder.JSONArray  # type: ignore[attr-defined]
        self.parse_object = json.decoder.JSONObject  # type: ignore[attr-defined]
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


def _as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # In dict(pairs) no other thread would run.
    return {key: value for key, value in pairs}  # noqa: C416


_load_in_python = partial(json.loads, cls=_PythonDecoder)


def _check_json(body: bytes) -> None:
    allowed = _FREE + _PER_BYTE_OF_JSON * len(body)
    if _bytes_of_json(body) <= allowed:
        return
    if sum(map(_bytes_of_json, _without_texts(body))) > allowed:
        raise TooCostlyError("the message would make more containers than its size allows")


def _bytes_of_json(body: bytes) -> int:
    return body.count(b"[") * _BYTES_OF_LIST + body.count(b"{") * _BYTES_OF_DICT


def _json_object(made: dict[str, Any]) -> Any:
    kind = made.get("__type__") if len(made) == 2 else None
    is_plain = _PLAIN_FORMS.get(kind) if type(kind) is str else None
    if is_plain is not None and not is_plain(made.get("__value__")):
        raise TooCostlyError(f"a {kind} is not in its plain form")
    return kombu_json.object_hook(made)


def _is_decimal(value: Any) -> bool:
    return type(value) is str and len(value) <= _MAX_DIGITS


def _is_uuid(value: Any) -> bool:
    """Return True if kombu's encoder writes *value* for a UUID.

    Of other values the constructor could make a UUID that has no text.
    """
    return type(value) is dict and value.keys() == {"hex"} and type(value["hex"]) is str


_PLAIN_FORMS = {"decimal": _is_decimal, "uuid": _is_uuid}


# --- msgpack ----------------------------------------------------------------------------

# The first bytes of lists and dicts: short ones, and those with a length of 2 or 4 bytes.
_SHORT_LISTS, _SHORT_DICTS = bytes(range(0x90, 0xA0)), bytes(range(0x80, 0x90))
_LONG_LISTS, _LONG_DICTS = b"\xdc\xdd", b"\xde\xdf"
# The first bytes of texts and of byte strings.
_TEXTS = bytes(range(0xA0, 0xC0)) + b"\xd9\xda\xdb\xc4\xc5\xc6"
# Pairs of one dict, and of all that are built at once: no other thread runs meanwhile.
_MAX_PAIRS = 1_000_000


def loads_msgpack(msgpack: Any, body: bytes) -> Any:
    """Return the value that the msgpack in *body* encodes; a tuple has become a list.

    Keys are texts, bytes and numbers, a million at most in a dict.  A Timestamp becomes its
    seconds, and can't be a key.

    :raises ValueError: *body* is no msgpack, or its value would cost more than its size allows.
    """
    _check_lengths(msgpack, body)
    if _may_be_built_at_once(body):
        # If a number is a key, or the message is broken, the hooks below decide.
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
    """Skip over the message without building it, to check its lengths.

    Otherwise a list would be allocated in its stated length before its items are read.
    """
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


def _may_be_built_at_once(body: bytes) -> bool:
    """Return True if *body* can't have too many containers, or keys that are texts.

    Bytes inside texts count, too.
    """
    if len(body) * _BYTES_OF_DICT <= _FREE:
        return True
    lists = _number(body, _SHORT_LISTS + _LONG_LISTS)
    dicts = _number(body, _SHORT_DICTS + _LONG_DICTS)
    allowed = _FREE + _PER_BYTE_OF_MSGPACK * len(body)
    taken = lists * _BYTES_OF_LIST + dicts * _BYTES_OF_DICT
    if taken > allowed or lists + dicts > _MAX_AT_ONCE:
        return False
    return _number(body, _TEXTS) <= _MAX_PAIRS


class _Hooks:
    """Checks each container while it is built."""

    def __init__(self, msgpack: Any, size: int) -> None:
        self._left = _FREE + _PER_BYTE_OF_MSGPACK * size
        self._keys = HashBounds()
        self._timestamp: Callable[..., Any] = msgpack.Timestamp

    def make_dict(self, came: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        """Return the dict of the pairs *came*."""
        self._take(_BYTES_OF_DICT)
        pairs = list(came)  # msgpack without its C extension passes an iterator
        keys = [key for key, _ in pairs]
        if not _KEYS.issuperset(map(type, keys)):
            raise TooCostlyError("a key of the message is neither text, bytes nor a number")
        self._keys.check(keys, None, is_set=False)
        return {key: self._seconds(value) for key, value in pairs}

    def check_list(self, made: list[Any]) -> list[Any]:
        """Return *made* with the seconds of each Timestamp in its place."""
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
