"""The words that the servers of one server_id say to each other, as they travel.  No I/O here.

Each is a JSON object with a protocol number::

    protocol  1
    kind      hello, here, bye, ask or answer
    from      the instance that says it
    consumes  whether that takes requests
    number    hello: how many connections that instance has opened
    calls     ask:    [reply_to, correlation_id, runs, whether it was sent again] …
              answer: [reply_to, correlation_id, runs, mine, lost, vouch or never] …
    to        answer: the instance that asked
    knows     answer: the instances that are known, and whether each is there; the first of
              several answers names them for all

Kinds and fields that are not known are ignored, so that servers of two versions can
serve side by side.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from qam._protocol.correlation import CallKey

Value = TypeVar("Value")

_PROTOCOL = 1
#: Bytes of the longest word that is taken in.
MAX_BYTES = 128 * 1024
#: How many siblings one knows, at most.
MAX_SIBLINGS = 1000
# How many calls a word is about, and how many characters of them it has, at most, if it is
# one of ours; with that it stays far below what is taken in.
_CALLS, _CHARACTERS = 500, 16 * 1024
_MAX_CALLS = 2 * _CALLS
# What is larger is no text of AMQP, and no count.
_MAX_TEXT, _MAX_COUNT = 255, 2**53
# Nothing that JSON writes as several characters: a word may name all siblings that one knows.
_NAME = re.compile(r"[0-9A-Za-z _.:-]{1,64}")

_KINDS = frozenset(("hello", "here", "bye", "ask", "answer"))
_ANSWERS = frozenset(("mine", "lost", "vouch", "never"))


class NoWordError(Exception):
    """What came was not said by a sibling, or by one of another protocol."""


@dataclass(slots=True)
class Word:
    """What one of them says."""

    kind: str
    sender: str
    consumes: bool = False
    number: int = 0
    calls: dict[CallKey, Any] = field(default_factory=dict)
    to: str = ""
    knows: dict[str, bool] = field(default_factory=dict)


def encode(word: Word) -> bytes:
    """Return *word* as it travels."""
    said: dict[str, Any] = {"protocol": _PROTOCOL, "kind": word.kind, "from": word.sender}
    said["consumes"] = word.consumes
    if word.kind == "hello":
        said["number"] = word.number
    elif word.kind in ("ask", "answer"):
        said["calls"] = [(*key, value) for key, value in word.calls.items()]
    if word.kind == "answer":
        said |= {"to": word.to, "knows": word.knows}
    # As it is: of the halves of a character that a key may have, escapes make one.
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")


def encode_in_portions(word: Word) -> Iterator[bytes]:
    """Yield *word* as it travels, in parts of so many calls; the first part says who is known."""
    for calls in in_portions(word.calls):
        yield encode(replace(word, calls=calls))
        word.knows = {}


def in_portions(calls: Mapping[CallKey, Value]) -> Iterator[dict[CallKey, Value]]:
    """Part *calls* into as many as one word can be about; an empty one if there are none."""
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
    """Return the word that *body* stands for; None if it is of a kind that is not known here.

    Takes time in proportion to the size of *body*.

    :raises NoWordError: it is none; says why in few words.
    """
    if len(body) > MAX_BYTES:
        raise NoWordError(f"it has {len(body)} bytes")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoWordError(f"it is no JSON: {type(error).__name__}") from error
    if type(said) is not dict or type(said.get("protocol")) is not int:
        raise NoWordError("it has no protocol number")
    if said["protocol"] != _PROTOCOL:
        raise NoWordError(f"its protocol is not {_PROTOCOL}")
    kind, sender = said.get("kind"), said.get("from")
    if type(kind) is not str or not _is_name(sender):
        raise NoWordError("it does not say what it is, or whose")
    return _word(kind, sender, said) if kind in _KINDS else None


def _word(kind: str, sender: Any, said: dict[str, Any]) -> Word:
    word = Word(kind, sender, said.get("consumes") is True)
    if kind == "hello":
        word.number = said["number"] if _is_count(said.get("number")) else 0
    elif kind == "ask":
        word.calls = {key: value is True for key, value in _calls(said)}
    elif kind == "answer":
        # Whoever says what is not understood has not answered yet.
        word.calls = {
            key: value for key, value in _calls(said) if type(value) is str and value in _ANSWERS
        }
        word.to, word.knows = _to(said), _knows(said)
    return word


def _calls(said: dict[str, Any]) -> list[tuple[CallKey, Any]]:
    calls = said.get("calls")
    if type(calls) is not list or len(calls) > _MAX_CALLS:
        raise NoWordError("it is about no calls, or too many")
    return [_call(each) for each in calls]


def _call(said: Any) -> tuple[CallKey, Any]:
    if type(said) is list and len(said) >= 4:  # more may come in a later version
        reply_to, correlation_id, runs, value = said[:4]
        if _is_text(reply_to) and _is_text(correlation_id) and _is_count(runs):
            return CallKey(reply_to, correlation_id, runs), value
    raise NoWordError("it is about something that is no call")


def _to(said: dict[str, Any]) -> str:
    to = said.get("to")
    if not _is_name(to):
        raise NoWordError("it is an answer to nobody")
    return str(to)


def _knows(said: dict[str, Any]) -> dict[str, bool]:
    knows = said.get("knows")
    if type(knows) is not dict or not all(map(_is_name, knows)):
        raise NoWordError("it does not say who is known")
    return {instance: there is True for instance, there in knows.items()}


def _is_text(value: object) -> bool:
    return type(value) is str and len(value) <= _MAX_TEXT


def _is_name(value: object) -> bool:
    return type(value) is str and _NAME.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= _MAX_COUNT
