"""A message costs what its size allows, whatever it is made of; and honest ones are built."""

import functools
import itertools
import json
import pickle
import random
import subprocess
import sys
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qam._serialization import hash_bounds, plain_bounds
from qam._serialization.hash_bounds import MAX_NUMBERS, MAX_OTHERS, MAX_SAME_HASH
from qam._serialization.serializers import get_serializer
from qam._serialization.trust import Trusted
from qam._serialization.unpickler import loads
from tests.support.costly_messages import HONEST, HOSTILE
from tests.support.costs import MIB, Cost, allowed_memory
from tests.support.hostile_pickles import pairs_of_one_hash

SIZE = 2  # MiB: more than what is free for any message makes up for
# MiB, of JSON, which takes less.  Only of a larger message is much built in Python.
SIZE_OF_JSON = 8


@functools.cache
def cost_of(serializer: str, name: str, size: int = SIZE) -> Cost:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.costs", str(size), "--of", serializer, name],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    return Cost(**json.loads(done.stdout))


# The slowest honest ones of each.
SLOW = {
    "pickle": [("pickle", "UUIDs"), ("pickle", "small dicts")],
    "json": [("json", "small dicts"), ("json", "small lists")],
    "msgpack": [("msgpack", "numbers as keys"), ("msgpack", "small lists")],
}


@pytest.mark.costly
@pytest.mark.parametrize(("serializer", "name"), HOSTILE)
def test_no_message_costs_more_than_its_size_allows(serializer: str, name: str) -> None:
    cost = cost_of(serializer, name)
    slowest = max(cost_of(*honest).cpu for honest in SLOW[serializer])

    assert cost.memory <= allowed_memory(serializer, SIZE * MIB)
    assert cost.cpu <= 3 * slowest + 0.5
    assert cost.stall <= 1


@pytest.mark.costly
@pytest.mark.parametrize("name", [name for serializer, name in HOSTILE if serializer == "json"])
def test_no_long_json_costs_more_than_its_size_allows(name: str) -> None:
    cost = cost_of("json", name, SIZE_OF_JSON)
    slowest = cost_of("json", "texts as keys", SIZE_OF_JSON)

    assert cost.memory <= allowed_memory("json", SIZE_OF_JSON * MIB)
    assert cost.cpu <= 3 * slowest.cpu + 0.5
    assert cost.stall <= 1


@pytest.mark.costly
@pytest.mark.parametrize(("serializer", "name"), HONEST)
def test_honest_messages_are_built(serializer: str, name: str) -> None:
    cost = cost_of(serializer, name)

    assert cost.outcome == "built"
    assert cost.memory <= allowed_memory(serializer, SIZE * MIB)
    assert cost.stall <= 1


# --- keys ---------------------------------------------------------------------------------


def build(value: Any, serializer: str = "pickle", protocol: int = 4) -> Any:
    if serializer == "pickle":
        return loads(pickle.dumps(value, protocol), Trusted())
    return get_serializer(serializer).decode(msgpack.packb(value))


def of_one_hash(number: int) -> list[Any]:
    return [pickle.loads(b"\x80\x04" + pair + b"\x86.") for pair in pairs_of_one_hash(number)]


source = random.Random(1)
AT_THE_BOUNDS: dict[str, list[Any]] = {
    "numbers from zero": list(range(MAX_NUMBERS)),
    "numbers below zero": [-n for n in range(MAX_NUMBERS)],
    "ids of 64 bits": [source.getrandbits(63) for _ in range(MAX_NUMBERS)],
    "nanoseconds": [n * 10**9 for n in range(MAX_NUMBERS // 4)],
    "multiples of 2**32": [n << 32 for n in range(MAX_NUMBERS)],
    "multiples of 2**50": [n << 50 for n in range(2**10)],
    "floats": [source.random() for _ in range(MAX_OTHERS)],
    "fractions of 1024": [n / 1024 for n in range(MAX_OTHERS)],
}
TUPLES: dict[str, list[Any]] = {
    "pairs": list(itertools.product(range(100), repeat=2)),
    "pairs of one hash": of_one_hash(MAX_SAME_HASH),
    "names and numbers": [("name", n) for n in range(MAX_OTHERS)],
}


# Whose walks are long: to look at them takes seconds.
LONG_WALKS = ["multiples of 2**32", "nanoseconds"]
SHORT_WALKS = [name for name in AT_THE_BOUNDS if name not in LONG_WALKS]


@pytest.mark.parametrize(
    ("name", "make", "protocol"),
    [
        *((name, dict.fromkeys, 4) for name in [*SHORT_WALKS, *LONG_WALKS, *TUPLES]),
        *((name, set, 4) for name in [*SHORT_WALKS, *TUPLES]),
        # protocols before 4 make sets by a call
        *((name, make, 2) for name in ("floats", "pairs") for make in (dict.fromkeys, set)),
        *((name, frozenset, 4) for name in ("ids of 64 bits", "floats", *TUPLES)),
        ("pairs of one hash", frozenset, 2),
    ],
)
def test_keys_at_the_bounds_are_built(name: str, make: Any, protocol: int) -> None:
    value = make((AT_THE_BOUNDS | TUPLES)[name])

    assert build(value, protocol=protocol) == value


@pytest.mark.parametrize("name", SHORT_WALKS)
def test_keys_at_the_bounds_are_built_from_msgpack(name: str) -> None:
    value = dict.fromkeys(AT_THE_BOUNDS[name])

    assert build(value, "msgpack") == value


@pytest.mark.parametrize("serializer", ["pickle", "msgpack"])
@pytest.mark.parametrize(
    "keys",
    [range(MAX_NUMBERS + 1), [n + 0.5 for n in range(MAX_OTHERS + 1)]],
    ids=["numbers", "floats"],
)
def test_more_keys_than_that_are_refused(serializer: str, keys: Any) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError), match="that are no texts"):
        build(dict.fromkeys(keys), serializer)


@pytest.mark.parametrize("make", [dict.fromkeys, set, frozenset])
@pytest.mark.parametrize("protocol", [2, 4])
def test_more_keys_of_one_hash_than_that_are_refused(make: Any, protocol: int) -> None:
    value = make(of_one_hash(MAX_SAME_HASH + 1))
    # The C unpickler takes a few of them: what that costs is bounded by their number in all.
    body = pickle.dumps([value, [(n,) for n in range(5000)], {(n,) for n in range(5000)}], protocol)

    with pytest.raises(pickle.UnpicklingError, match="have the same hash"):
        loads(body, Trusted())


def test_walks_are_counted_where_hashes_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    # given that there may be fewer steps than multiples of a power of two take
    monkeypatch.setattr(hash_bounds, "_MEAN_STEPS", 3)
    monkeypatch.setattr(hash_bounds, "_FREE_STEPS", 100)
    build({n + 2**20: None for n in range(5000)})

    with pytest.raises(pickle.UnpicklingError, match="collide in a hash table"):
        build({n << 40: None for n in range(5000)})


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.integers(-(2**61), 2**61) | st.floats() | st.tuples(st.integers()), unique=True),
    st.booleans(),
)
def test_honest_keys_are_never_in_each_others_way(keys: list[Any], is_set: bool) -> None:
    bounds = hash_bounds.HashBounds()
    container: Any = set() if is_set else {}
    for key in keys:
        bounds.check([key], container, is_set)
        container.add(key) if is_set else container.setdefault(key)


EXTENSIONS = [msgpack.Timestamp(1, 0), msgpack.ExtType(5, b"x")]


@pytest.mark.parametrize("key", EXTENSIONS, ids=repr)
@pytest.mark.parametrize("others", [{}, {1: 1}, {"a": 1}])
def test_an_extension_type_is_no_key(key: Any, others: dict[Any, Any]) -> None:
    for value in ({key: 1, **others}, [{**others, key: 1}], {"a": {"b": [{key: 1}]}}):
        with pytest.raises(ValueError, match="neither text, bytes nor a number"):
            build(value, "msgpack")


@pytest.mark.parametrize("wrap", [lambda x: {"a": x}, lambda x: {1: x}, lambda x: {1: [x, [x]]}])
def test_a_timestamp_is_its_seconds_wherever_it_stands(wrap: Any) -> None:
    assert build(wrap(msgpack.Timestamp(5, 0)), "msgpack") == wrap(5.0)


def test_many_lists_of_json_are_built_alike() -> None:
    value = [[n] for n in range(501_000)]

    assert get_serializer("json").decode(json.dumps(value).encode()) == value


@pytest.mark.parametrize("value", [[0, [1], 2], 1, None, "1" * 4301], ids=str)
def test_a_decimal_of_json_is_in_its_plain_form(value: Any) -> None:
    body = json.dumps({"__type__": "decimal", "__value__": value}).encode()
    with pytest.raises(ValueError, match="plain form"):
        get_serializer("json").decode(body)


@pytest.mark.parametrize(
    "value",
    [
        *({"int": 1.5}, {"int": True}, {"int": {"__type__": "decimal", "__value__": "1"}}),
        *({"hex": "0" * 32, "is_safe": []}, {"fields": [1, 2, 3, 4, 5, 6]}, {"hex": 1}, "x", None),
    ],
    ids=str,
)
def test_a_uuid_of_json_is_in_its_plain_form(value: Any) -> None:
    """Else it is one of which nobody can make a text, or a pickle."""
    body = json.dumps({"__type__": "uuid", "__value__": value}).encode()
    with pytest.raises(ValueError, match="plain form"):
        get_serializer("json").decode(body)


def test_what_looks_like_a_type_of_json_beside_other_things_is_a_dict() -> None:
    value = {"a": {"__type__": ["uuid"], "__value__": 1, "more": 2}, "b": {"__type__": "uuid"}}
    assert get_serializer("json").decode(json.dumps(value).encode()) == value


# --- other threads ------------------------------------------------------------------------


LISTS = ",".join(["[]"] * 12)
PAIRS = ",".join(f'"{n}": "1"' for n in range(12))
ENDS = PAIRS.replace(': "', ': "}')  # of objects, but within texts


@pytest.mark.parametrize(
    "body", [f"[{LISTS}]", f"{{{PAIRS}}}", f"{{{ENDS}}}", f'[{{}}, {{{PAIRS}}}, {{"a": 1}}]']
)
def test_much_json_between_two_runs_of_python_is_built_in_python(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr(plain_bounds, "_MAX_AT_ONCE", 10)
    monkeypatch.setattr(
        plain_bounds, "_load_in_python", lambda *a, **k: built.append(a) or json.loads(*a, **k)
    )

    assert get_serializer("json").decode(body.encode()) == json.loads(body)
    assert len(built) == 1


@pytest.mark.parametrize("end", [b"", b'"', b"\\", b'\\"', b"\\\\"])
def test_no_byte_of_a_text_is_read_twice_whether_it_ends_or_not(end: bytes) -> None:
    body = b'{"a": "' + b'\\"' * 1000 + end

    last = [text.span() for text in plain_bounds._TEXT.finditer(body)][1:]

    assert last == [(6, len(body))]


@settings(derandomize=True, deadline=None)
@given(st.text('"\\\\:}[a').map(str.encode), st.integers(1, 3000))
def test_texts_are_taken_out_of_a_body_in_parts_as_well_as_at_once(body: bytes, times: int) -> None:
    at_once = plain_bounds._TEXT.sub(b"", body * times)

    parts = list(plain_bounds._without_texts(body * times))

    assert b"".join(parts) == at_once
    assert max(map(len, parts), default=0) <= 100_000


@pytest.mark.parametrize("body", [b":" * 500_001 + b'""1' * 100_000, b'{"":0},' * 500_001])
def test_looking_for_long_stretches_takes_little_memory(body: bytes) -> None:
    tracemalloc.start()
    try:
        plain_bounds._has_long_stretch(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < MIB


def test_json_with_many_small_objects_is_built_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_bounds, "_MAX_AT_ONCE", 10)
    monkeypatch.setattr(plain_bounds, "_load_in_python", None)
    rows = [{"id": n, "name": "a: b"} for n in range(100)]

    assert get_serializer("json").decode(json.dumps(rows).encode()) == rows


def test_json_that_is_built_in_python_is_the_same() -> None:
    texts_as_keys = {f"name {n}": n for n in range(plain_bounds._MAX_AT_ONCE + 1)}

    assert get_serializer("json").decode(json.dumps(texts_as_keys).encode()) == texts_as_keys


def test_of_a_key_that_json_has_twice_the_last_value_counts_also_in_python() -> None:
    body = b'{"b":1,' + b'"a":1,' * plain_bounds._MAX_AT_ONCE + b'"b":2,"a":3}'

    assert list(get_serializer("json").decode(body).items()) == [("b", 2), ("a", 3)]


@pytest.mark.parametrize("head", [b"", b"\x91", b"\x82\xa1a\x01\xa1b"])
def test_msgpack_with_a_dict_of_more_than_a_million_pairs_is_refused(head: bytes) -> None:
    decode = get_serializer("msgpack").decode
    pairs = b"".join(b"\xa4" + n.to_bytes(4, "big").hex().encode()[:4] + b"\xc0" for n in range(3))

    with pytest.raises(ValueError, match="1000000"):
        decode(head + b"\xdf" + (1_000_001).to_bytes(4, "big") + pairs * 400_000)


@pytest.mark.parametrize(("dicts", "at_once"), [(400, True), (1000, False)])
def test_msgpack_with_many_keys_is_not_built_at_once(dicts: int, at_once: bool) -> None:
    keys = [f"key {n}" for n in range(1001)]

    body = msgpack.packb([dict.fromkeys(keys)] * dicts)

    assert plain_bounds._may_be_built_at_once(body) is at_once
