"""The words between the servers of one server_id, as they are sent.  No I/O here.

Each is a JSON object with a protocol number::

    protocol  1
    kind      hello, here, bye, ask, answer, done or repeat
    from      the instance that sends it
    consumes  whether that instance takes requests
    number    hello: how many connections that instance has opened
    calls     ask:    [reply_to, correlation_id, runs, whether it was sent again] …
              answer: [reply_to, correlation_id, runs, mine, done, again, lost, vouch or
              never] …
              done, repeat: [reply_to, correlation_id, runs, true] …
    to        answer: the instance that asked
    knows     answer: the known instances, and whether each is there; if an answer is sent in
              several parts, the first part names them

Unknown kinds and fields are ignored, so that servers of two versions can serve side by side.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from qam._protocol.correlation import CallKey

Value = TypeVar("Value")

_PROTOCOL = 1
#: Bytes of the longest word that is accepted.
MAX_BYTES = 128 * 1024
#: How many siblings a server knows, at most.
MAX_SIBLINGS = 1000
# How many calls one word of this version has, at most, and how many characters of them.  So
# it stays far below the limits for words that are accepted.
_CALLS, _CHARACTERS = 500, 16 * 1024
_MAX_CALLS = 2 * _CALLS
# The longest text of AMQP, and the largest number that is accepted.
_MAX_TEXT, _MAX_COUNT = 255, 2**53
# No character that JSON escapes, since a word may name all known siblings and has to stay short.
_NAME = re.compile(r"[0-9A-Za-z _.:-]{1,64}")

_OF_CALLS = frozenset(("ask", "answer", "done", "repeat"))
_KINDS = _OF_CALLS | {"hello", "here", "bye"}
_ANSWERS = frozenset(("mine", "done", "again", "lost", "vouch", "never"))


class NoWordError(Exception):
    """A message is no word of a sibling, or is one of another protocol."""


@dataclass(slots=True)
class Word:
    """A word of one server to its siblings."""

    kind: str
    sender: str
    consumes: bool = False
    number: int = 0
    calls: dict[CallKey, Any] = field(default_factory=dict)
    to: str = ""
    knows: dict[str, bool] = field(default_factory=dict)


def encode(word: Word) -> bytes:
    """Return *word* as it is sent."""
    said: dict[str, Any] = {"protocol": _PROTOCOL, "kind": word.kind, "from": word.sender}
    said["consumes"] = word.consumes
    if word.kind == "hello":
        said["number"] = word.number
    elif word.kind in _OF_CALLS:
        said["calls"] = [(*key, value) for key, value in word.calls.items()]
    if word.kind == "answer":
        said |= {"to": word.to, "knows": word.knows}
    # Not escaped: if a key has both halves of a surrogate pair, escapes would join them.
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")


def encode_in_portions(word: Word) -> Iterator[bytes]:
    """Yield *word* as it is sent, in parts of limited size; the first part has ``knows``."""
    for calls in in_portions(word.calls):
        yield encode(replace(word, calls=calls))
        word.knows = {}


def in_portions(calls: Mapping[CallKey, Value]) -> Iterator[dict[CallKey, Value]]:
    """Yield *calls* in portions that fit into one word; one empty portion if there are none."""
    portion: dict[CallKey, Value] = {}
    room = _CHARACTERS
    for key, value in calls.items():
        portion[key] = value
        room -= len(json.dumps(key, ensure_ascii=False))
        if room <= 0 or len(portion) >= _CALLS:
            yield portion
            portion, room = {}, _CHARACTERS
    if portion or not calls:
        yield portion


def decode(body: bytes) -> Word | None:
    """Return the word in *body*; None if its kind is unknown.

    Takes time in proportion to the size of *body*.

    :raises NoWordError: *body* is no word; the error says why.
    """
    if len(body) > MAX_BYTES:
        raise NoWordError(f"it has {len(body)} bytes")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoWordError(f"it is not JSON: {type(error).__name__}") from error
    if type(said) is not dict or type(said.get("protocol")) is not int:
        raise NoWordError("it has no protocol number")
    if said["protocol"] != _PROTOCOL:
        raise NoWordError(f"its protocol is not {_PROTOCOL}")
    kind, sender = said.get("kind"), said.get("from")
    if type(kind) is not str or not _is_name(sender):
        raise NoWordError("its kind or its sender is missing")
    return _word(kind, sender, said) if kind in _KINDS else None


def _word(kind: str, sender: Any, said: dict[str, Any]) -> Word:
    word = Word(kind, sender, said.get("consumes") is True)
    if kind == "hello":
        word.number = said["number"] if _is_count(said.get("number")) else 0
    elif kind == "answer":
        # An answer that is not understood counts as none.
        word.calls = {
            key: value for key, value in _calls(said) if type(value) is str and value in _ANSWERS
        }
        word.to, word.knows = _to(said), _knows(said)
    elif kind in _OF_CALLS:
        word.calls = {key: value is True for key, value in _calls(said)}
    return word


def _calls(said: dict[str, Any]) -> list[tuple[CallKey, Any]]:
    calls = said.get("calls")
    if type(calls) is not list or len(calls) > _MAX_CALLS:
        raise NoWordError("its calls are missing, or too many")
    return [_call(each) for each in calls]


def _call(said: Any) -> tuple[CallKey, Any]:
    if type(said) is list and len(said) >= 4:  # more may come in a later version
        reply_to, correlation_id, runs, value = said[:4]
        if _is_text(reply_to) and _is_text(correlation_id) and _is_count(runs):
            return CallKey(reply_to, correlation_id, runs), value
    raise NoWordError("one of its calls is malformed")


def _to(said: dict[str, Any]) -> str:
    to = said.get("to")
    if not _is_name(to):
        raise NoWordError("its receiver is missing")
    return str(to)


def _knows(said: dict[str, Any]) -> dict[str, bool]:
    knows = said.get("knows")
    if type(knows) is not dict or not all(map(_is_name, knows)):
        raise NoWordError("the instances that it knows are missing")
    return {instance: there is True for instance, there in knows.items()}


def _is_text(value: object) -> bool:
    return type(value) is str and len(value) <= _MAX_TEXT


def _is_name(value: object) -> bool:
    return type(value) is str and _NAME.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= _MAX_COUNT
