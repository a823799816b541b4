"""The glance at simple pickles sees nothing otherwise than the walk through all opcodes."""

import pickle
import pickletools
import re
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qam._serialization.opcode_scan import _is_simple, _Scan, is_plain
from qam._serialization.trust import Trusted
from qam._serialization.unpickler import loads
from tests.support.examples import examples

CODES = {opcode.name: opcode.code.encode("latin1") for opcode in pickletools.opcodes}
START = CODES["PROTO"] + b"\x04"

REQUEST = {
    "id": 2**51 + 12345,
    "method_name": "instance.method",
    "routing_key": "client.0123456789abcdef0123456789abcdef_client_routing_key",
    "params": (2, -3, 1.5, None, True, "text", b"bytes", [1, 2], {"key": ("value",)}),
}

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
values = st.recursive(
    scalars | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.tuples(inner, inner)
        | st.sets(scalars)
    ),
)
# Opcodes with arguments of about their size, in any order: a few of them make a valid pickle.
opcodes = st.sampled_from(sorted(CODES.values()))
pieces = st.builds(lambda code, argument: code + argument, opcodes, st.binary(max_size=9))
likely = st.sampled_from([b"}", b"]", b")", b"(", b"N", b"\x94", b"K\x01", b"q\x00", b"\x8c\x01a"])
streams = st.lists(likely | pieces, max_size=30).map(lambda parts: START + b"".join(parts) + b".")


def walk(body: bytes) -> bool:
    scan = _Scan(body)
    scan.run()
    return scan.is_plain()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_glance_is_enough_for_a_request(protocol: int) -> None:
    request = dict(REQUEST)
    if protocol == 2:  # which writes bytes as a call
        request["params"] = (2, -3, 1.5, None, True, "text", [1, 2])
    body = pickle.dumps(request, protocol)

    assert _is_simple(body)
    assert is_plain(body) is walk(body) is True


@given(values, st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_what_a_glance_lets_through_the_walk_would_too(value: Any, protocol: int) -> None:
    body = pickle.dumps(value, protocol)

    if _is_simple(body):
        assert walk(body)


@given(streams | st.binary().map(lambda drawn: START + drawn))
@examples(200)
def test_no_stream_of_opcodes_gets_past_the_walk_by_a_glance(body: bytes) -> None:
    if not _is_simple(body):
        return
    scan = _Scan(body)
    try:
        scan.run()
    except pickle.UnpicklingError as error:
        if "a mark is missing" in str(error):
            # The C unpickler finds that out by itself, at no cost.
            with pytest.raises(Exception, match=r"MARK|mark|stack|pop"):
                pickle.loads(body)
        else:
            # A place in the memo that is one byte is one of 256: they cost nothing.
            assert re.search(r"the place \d{1,3} in the memo is beyond", str(error))  # noqa: PT017
    else:
        # Whether things are memoized in two ways at once matters where they are got again.
        assert scan.plain


def test_a_place_in_the_memo_that_takes_more_than_a_byte_is_walked_to() -> None:
    body = START + CODES["NONE"] + CODES["LONG_BINPUT"] + (2**31 - 1).to_bytes(4, "little") + b"."

    assert not _is_simple(body)
    with pytest.raises(pickle.UnpicklingError, match="larger than the message"):
        is_plain(body)


@pytest.mark.parametrize(
    "name",
    sorted(
        CODES.keys()
        - {"PROTO", "FRAME", "STOP", "MEMOIZE", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BINPUT"}
        - {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "APPEND", "APPENDS", "TUPLE"}
        - {"SHORT_BINSTRING", "SHORT_BINBYTES", "SHORT_BINUNICODE", "BINUNICODE", "TUPLE1"}
        - {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "SETITEM", "SETITEMS", "TUPLE2", "TUPLE3"}
    ),
)
@given(argument=st.binary(max_size=12))
@examples(30)
def test_a_glance_lets_no_other_opcode_through(name: str, argument: bytes) -> None:
    # At the start its first byte can be part of nothing else.
    assert not _is_simple(START + CODES[name] + argument + b".")


def test_a_long_pickle_is_walked_through() -> None:
    assert not _is_simple(pickle.dumps(["x" * 200] * 6 + [str(n) * 50 for n in range(20)]))


def test_a_frame_that_is_longer_than_the_rest_is_no_simple_one() -> None:
    body = START + CODES["FRAME"] + (100).to_bytes(8, "little") + b"N."

    assert not _is_simple(body)
    with pytest.raises(pickle.UnpicklingError, match="longer than the rest"):
        is_plain(body)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_has_names_is_told_from_what_has_none(protocol: int) -> None:
    assert not is_plain(pickle.dumps([ValueError], protocol))
    assert is_plain(pickle.dumps(["x" * 2000], protocol))
    assert is_plain(pickle.dumps([b"c\x93" * 2000], 4))


@pytest.mark.parametrize(
    "body",
    [b"c\n\n.", b"cm\n\n.", b"c\nn\n.", b"cm\n.", b"(i\n\n.", b"(im\n\n.", b"(i\nn\n."],
)
def test_an_empty_name_is_refused_as_c_does(body: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, EOFError, UnicodeError)):
        pickle.loads(body)
    with pytest.raises(pickle.UnpicklingError):
        is_plain(START + body)


ROWS = [(n, str(n), None, 1.5) for n in range(5000)]


@pytest.mark.parametrize("value", [ROWS, {"params": ROWS}, {(n, 0): n for n in range(500)}])
@pytest.mark.parametrize("protocol", [2, 4])
def test_tuples_that_are_no_keys_and_a_few_that_are_cost_nothing(value: Any, protocol: int) -> None:
    assert is_plain(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "value",
    [
        dict.fromkeys(ROWS, 1),
        set(ROWS),
        frozenset(ROWS),
        {frozenset([n]) for n in range(5000)},
        [{(n, n, n, n): 1} for n in range(5000)],
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_many_tuples_as_keys_are_looked_at_one_by_one(value: Any, protocol: int) -> None:
    body = pickle.dumps(value, protocol)
    assert not is_plain(body)  # protocols below 4 name what a set is
    assert loads(body, Trusted()) == value


def texts(number: int, between: bytes = b"") -> bytes:
    return b"".join(b"\x8c\x06%06x" % n + between for n in range(number))


NUMBER, VALUE = 600_000, b"\x8c\x01a"


@pytest.mark.parametrize(
    "body",
    [
        b"}(" + texts(NUMBER, VALUE) + b"u",
        b"\x8f(" + texts(NUMBER) + b"\x90",
        b"(" + texts(NUMBER) + b"\x91",
        b"(}\x94(h\x00" + texts(NUMBER, VALUE + b"s") + b"tt",
        b"(}\x94" + (b"h\x00(" + texts(5000, VALUE) + b"u") * (NUMBER // 5000) + b"t",
        b"}(" + texts(1, b"](NNe") + texts(NUMBER, VALUE) + b"u",
    ],
    ids=["dict", "set", "frozenset", "by pairs", "in parts, by the memo", "beside a list"],
)
def test_a_container_of_many_texts_is_built_in_python(body: bytes) -> None:
    assert not is_plain(START + body + b".")


@pytest.mark.parametrize(
    "value",
    [
        [{f"{n:06x}": "a" for n in range(900)} for _ in range(600)],
        {"rows": [{"id": n, "name": f"name {n}"} for n in range(200_000)]},
        {"texts": [f"{n:06x}" for n in range(NUMBER)]},
        {"a text": "x" * 2**23, "bytes": b"x" * 2**23},
    ],
    ids=["small dicts", "rows", "texts", "long texts"],
)
def test_as_much_in_small_containers_or_in_lists_is_built_in_c(value: Any) -> None:
    assert is_plain(pickle.dumps(value))


def test_opcodes_without_an_effect_are_passed_without_memory_for_each() -> None:
    body = START + b"](" + START * 100_000 + b"e."
    tracemalloc.start()
    try:
        is_plain(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < len(body)
