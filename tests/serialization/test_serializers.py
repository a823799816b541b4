import datetime
import decimal
import json
import pickle
import pickletools
import subprocess
import sys
import textwrap
import types
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qam._serialization.serializers import (
    JSONSerializer,
    MsgpackSerializer,
    PickleSerializer,
    Serializer,
    get_serializer,
)
from qam._serialization.strangers import Stranger

# What Python 2.7.18 writes with pickle.dumps(value, 2), and what it is to be read as.
FROM_PYTHON_2 = {
    "a request": (
        b"\x80\x02}q\x00(U\x0bmethod_nameq\x01U\x03addq\x02U\x06paramsq\x03K\x02K\x03\x86q\x04"
        b"U\x02idq\x05K\x03U\x0brouting_keyq\x06U\x14c_client_routing_keyq\x07u.",
        {"id": 3, "method_name": "add", "routing_key": "c_client_routing_key", "params": (2, 3)},
    ),
    "a key that is UTF-8, a value that is none, and unicode": (
        b"\x80\x02}q\x00(U\x03rawq\x01U\x02\xff\xfeq\x02U\x05caf\xc3\xa9q\x03"
        b"X\x03\x00\x00\x00\xe2\x82\xacq\x04u.",
        {"café": "€", "raw": b"\xff\xfe"},
    ),
    "bytes that are no UTF-8 in every kind of container": (
        b"\x80\x02}q\x00(U\x02k\xe9q\x01U\x01\x80q\x02c__builtin__\nfrozenset\nq\x03]q\x04"
        b"U\x01\xffq\x05a\x85q\x06Rq\x07c__builtin__\nset\nq\x08]q\t(U\x01aq\nU\x01\xfeq\x0be"
        b"\x85q\x0cRq\r\x87q\x0eU\x06resultq\x0f]q\x10(U\x03\xe9t\xe9q\x11U\x02okq\x12"
        b"X\x02\x00\x00\x00\xc3\xa9q\x13eu.",
        {
            b"k\xe9": (b"\x80", frozenset([b"\xff"]), {b"\xfe", "a"}),
            "result": [b"\xe9t\xe9", "ok", "é"],
        },
    ),
    "a string that is no UTF-8": (b"\x80\x02U\x01\xe9q\x00.", b"\xe9"),
    "long ints": (
        b"\x80\x02]q\x00(\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@\x8a\x01\xff"
        b"I9223372036854775807\nK\x05e.",
        [2**70, -1, 2**63 - 1, 5],
    ),
    "None, booleans, a float, an empty text": (
        b"\x80\x02]q\x00(N\x88\x89G?\xf8\x00\x00\x00\x00\x00\x00X\x00\x00\x00\x00q\x01e.",
        [None, True, False, 1.5, ""],
    ),
    "protocol 0, a byte string that is no UTF-8": (
        b"(dp0\nS'a'\np1\nS'\\xe9'\np2\nsS'u'\np3\nV\xe9\np4\nsS'l'\np5\nL5L\ns.",
        {"a": b"\xe9", "u": "é", "l": 5},
    ),
    "protocol 1": (b"}q\x00(U\x01aq\x01U\x01xq\x02U\x01lq\x03L5L\nu.", {"a": "x", "l": 5}),
}
EXCEPTIONS_FROM_PYTHON_2 = {
    "KeyError": (b"\x80\x02cexceptions\nKeyError\nq\x00U\x01kq\x01\x85q\x02Rq\x03.", KeyError("k")),
    "ValueError with a str and a unicode": (
        b"\x80\x02cexceptions\nValueError\nq\x00U\x03badq\x01X\x02\x00\x00\x00\xc3\xbcq\x02"
        b"\x86q\x03Rq\x04.",
        ValueError("bad", "ü"),
    ),
    "IOError": (
        b"\x80\x02cexceptions\nIOError\nq\x00K\x02U\x07No suchq\x01U\x02/xq\x02\x87q\x03Rq\x04.",
        FileNotFoundError(2, "No such", "/x"),
    ),
    "StandardError": (
        b"\x80\x02cexceptions\nStandardError\nq\x00U\x01sq\x01\x85q\x02Rq\x03.",
        Exception("s"),
    ),
    "ValueError with a byte string that is no UTF-8": (
        b"\x80\x02cexceptions\nValueError\nq\x03U\x03\xe9t\xe9q\x04\x85q\x05Rq\x06.",
        ValueError(b"\xe9t\xe9"),
    ),
    "UnicodeDecodeError of what is UTF-8": (
        b"\x80\x02cexceptions\nUnicodeDecodeError\nq\x00(U\x05asciiq\x01U\x02\xc3\xa9q\x02K\x00"
        b"K\x01U\x02noq\x03tq\x04Rq\x05.",
        UnicodeDecodeError("ascii", b"\xc3\xa9", 0, 1, "no"),
    ),
    "UnicodeDecodeError": (
        b"\x80\x02cexceptions\nUnicodeDecodeError\nq\x00(U\x05asciiq\x01U\x01\xffq\x02K\x00K\x01"
        b"U\x02noq\x03tq\x04Rq\x05.",
        UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"),
    ),
}
# The first two bytes of what a peer writes, and what it is to be answered in.
PROTOCOLS = {
    0: b"(dp0\n.",
    1: b"}q\x00.",
    2: b"\x80\x02}q\x00.",
    3: b"\x80\x03}q\x00.",
    4: b"\x80\x04}\x94.",
    5: b"\x80\x05}\x94.",
}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
msgpack_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner),
    max_leaves=20,
)
pickle_values = st.recursive(
    scalars | st.binary() | st.frozensets(st.integers() | st.binary()),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.binary(), inner)
    ),
    max_leaves=20,
)


def read(body: bytes) -> Any:
    return get_serializer("pickle").decode(body)


def protocol_of(body: bytes) -> int:
    """The highest protocol that an opcode of *body* belongs to."""
    return max(opcode.proto for opcode, _, _ in pickletools.genops(body))


@pytest.mark.parametrize(("body", "value"), FROM_PYTHON_2.values(), ids=FROM_PYTHON_2)
def test_what_python_2_wrote_is_read(body: bytes, value: Any) -> None:
    assert read(body) == value


@pytest.mark.parametrize(
    ("body", "error"), EXCEPTIONS_FROM_PYTHON_2.values(), ids=EXCEPTIONS_FROM_PYTHON_2
)
def test_an_exception_that_python_2_wrote_is_read(body: bytes, error: Exception) -> None:
    read_error = read(body)

    assert type(read_error) is type(error)
    assert read_error.args == error.args
    assert str(read_error) == str(error)


@given(pickle_values)
def test_pickle_returns_what_it_was_given(value: Any) -> None:
    serializer = get_serializer("pickle")

    assert serializer.decode(serializer.encode(value)) == value


@given(pickle_values, st.sampled_from(sorted(PROTOCOLS)))
def test_pickle_returns_what_it_was_given_in_the_protocol_of_every_peer(
    value: Any, protocol: int
) -> None:
    serializer = get_serializer("pickle")

    body = serializer.encode(value, like=PROTOCOLS[protocol])

    assert serializer.decode(body) == value


@pytest.mark.parametrize(("protocol", "like"), PROTOCOLS.items())
def test_an_answer_is_in_the_protocol_of_the_request(protocol: int, like: bytes) -> None:
    body = get_serializer("pickle").encode({"a": [1, "x", b"y", (1, 2, 3)]}, like)

    assert protocol_of(body) <= protocol
    if protocol >= 2:
        assert body[:2] == bytes([0x80, protocol])


def test_an_answer_to_a_protocol_that_is_not_known_is_in_the_highest_that_is() -> None:
    body = get_serializer("pickle").encode("x", like=b"\x80\x7f.")

    assert body[:2] == bytes([0x80, pickle.HIGHEST_PROTOCOL])


@pytest.mark.parametrize("like", [b"", b"\x80"])
def test_an_answer_to_what_is_no_pickle_can_be_read_by_everybody(like: bytes) -> None:
    assert protocol_of(get_serializer("pickle").encode([1, "x"], like)) == 0


def test_an_exception_in_an_answer_to_python_2_has_its_name_there() -> None:
    body = get_serializer("pickle").encode(ValueError("bad"), like=PROTOCOLS[2])

    assert b"cexceptions\nValueError\n" in body


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (RecursionError("x"), "RuntimeError"),
        (StopAsyncIteration("x"), "Exception"),
        (FileNotFoundError(2, "x"), "OSError"),
        (ModuleNotFoundError("x"), "ImportError"),
    ],
    ids=repr,
)
def test_an_exception_that_python_2_does_not_have_is_written_as_what_it_is_derived_from(
    error: Exception, name: str
) -> None:
    body = get_serializer("pickle").encode([error], like=PROTOCOLS[2])

    assert b"cexceptions\n" + name.encode() + b"\n" in body
    assert type(error).__name__.encode() not in body
    assert read(body)[0].args == error.args


def test_an_exception_in_an_answer_to_python_3_is_written_as_it_is() -> None:
    body = get_serializer("pickle").encode(RecursionError("x"), like=PROTOCOLS[4])

    assert type(read(body)) is RecursionError


def pickled_stranger(protocol: int) -> bytes:
    """An instance with arguments, attributes and items of a class that is nowhere."""
    module = types.ModuleType("nowhere")

    class Unknown(dict[str, int]):
        def __reduce__(self) -> Any:
            return Unknown, (1,), {"attribute": 2}

    Unknown.__module__, Unknown.__qualname__, module.Unknown = "nowhere", "Unknown", Unknown
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "nowhere", module)
        return pickle.dumps(["before", Unknown(), "after"], protocol)


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_a_class_that_is_not_here_is_an_error_unless_a_stranger_may_stand_for_it(
    protocol: int,
) -> None:
    # given
    body = pickled_stranger(protocol)
    with pytest.raises(pickle.UnpicklingError, match=r"nowhere\.Unknown is not trusted"):
        read(body)

    # when
    strangers: list[tuple[str, str]] = []
    before, stranger, after = get_serializer("pickle").decode(body, strangers)

    # then
    assert (before, after) == ("before", "after")
    assert type(stranger) is Stranger
    assert strangers == [("nowhere", "Unknown")]


def test_where_all_is_known_there_is_no_stranger() -> None:
    strangers: list[tuple[str, str]] = []

    for name in ("pickle", "json"):
        serializer = get_serializer(name)
        assert serializer.decode(serializer.encode([1]), strangers) == [1]

    assert strangers == []


def test_a_request_is_in_the_default_protocol_or_the_one_that_was_asked_for() -> None:
    assert get_serializer("pickle").encode("x")[1] == pickle.DEFAULT_PROTOCOL
    assert get_serializer("pickle", 2).encode("x")[1] == 2
    assert protocol_of(get_serializer("pickle", 0).encode("x")) == 0


def test_text_of_python_3_stays_text_whatever_is_in_it() -> None:
    odd = "\udcff \ud800 \N{PILE OF POO}"

    assert read(pickle.dumps(odd, 2)) == odd


def test_text_with_a_surrogate_and_bytes_that_are_no_utf_8_can_come_together() -> None:
    # given: [u'\ud800', '\xff']
    body = b"\x80\x02]q\x00(X\x03\x00\x00\x00\xed\xa0\x80q\x01U\x01\xffq\x02e."

    # when
    value = read(body)

    # then
    assert value == ["\ud800", b"\xff"]


def test_a_large_body_of_python_2_is_read() -> None:
    # given: a byte string of 4 MiB, its length in four bytes
    size = 4 * 1024 * 1024
    body = b"\x80\x02T" + size.to_bytes(4, "little") + b"x" * size + b"q\x00."

    assert read(body) == "x" * size


def test_a_body_that_is_no_pickle_raises() -> None:
    with pytest.raises(pickle.UnpicklingError):
        read(b"\xff\xff")


@given(json_values)
def test_json_returns_what_it_was_given(value: Any) -> None:
    serializer = get_serializer("json")

    assert serializer.decode(serializer.encode(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
        decimal.Decimal("1.50"),
        uuid.UUID(int=7),
        b"\x00\xff",
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_carries_what_kombus_json_carries(value: Any) -> None:
    serializer = get_serializer("json")

    assert serializer.decode(serializer.encode({"value": value})) == {"value": value}


def test_json_is_what_every_peer_reads_and_writes() -> None:
    serializer = get_serializer("json")
    body = {"id": 3, "params": [1, "é", None, True, 1.5]}

    assert json.loads(serializer.encode(body, like=b"{}")) == body
    assert serializer.decode(json.dumps(body, ensure_ascii=False).encode()) == body


@given(msgpack_values)
def test_msgpack_returns_what_it_was_given(value: Any) -> None:
    serializer = get_serializer("msgpack")

    assert serializer.decode(serializer.encode(value)) == value


def test_msgpack_carries_bytes_and_dicts_with_numbers_as_keys() -> None:
    serializer = get_serializer("msgpack")
    value = {1: b"\x00\xff", "text": [2.5, None, True]}

    assert serializer.decode(serializer.encode(value)) == value


def test_msgpack_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)

    with pytest.raises(ImportError, match=r"pip install 'qam\[msgpack\]'"):
        get_serializer("msgpack")


@pytest.mark.parametrize("name", ["json", "msgpack"])
@pytest.mark.parametrize("body", [b"[" * 100_000, b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff"])
def test_what_is_nested_too_deeply_or_claims_too_much_is_an_ordinary_error(
    name: str, body: bytes
) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - each library has its own
        get_serializer(name).decode(body)


@pytest.mark.parametrize(
    ("name", "cls", "content_type", "content_encoding"),
    [
        ("pickle", PickleSerializer, "application/x-python-serialize", "binary"),
        ("json", JSONSerializer, "application/json", "utf-8"),
        ("msgpack", MsgpackSerializer, "application/x-msgpack", "binary"),
    ],
)
def test_a_serializer_is_found_by_its_name(
    name: str, cls: type[Serializer], content_type: str, content_encoding: str
) -> None:
    serializer = get_serializer(name)

    assert type(serializer) is cls
    assert serializer.name == name
    assert serializer.content_type == content_type
    assert serializer.content_encoding == content_encoding


def test_kombus_own_registry_stays_as_it_is() -> None:
    # In a process of its own, where it can be looked at before the package is imported.
    code = """
        from kombu.serialization import registry

        def look():
            parts = registry._encoders, registry._decoders, registry.type_to_name
            return [*map(dict, parts), set(registry._disabled_content_types)]

        before = look()
        import qam
        with qam.QAMServer("memory://x", server_id="s") as server:
            server.register_function(pow)
            server.start()
            with qam.QAMProxy("s", "memory://x") as proxy:
                assert proxy.pow(2, 3) == 8
        assert look() == before
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["yaml", "", "Pickle", "marshal"])
def test_a_serializer_that_does_not_exist_is_a_value_error_that_names_those_that_do(
    name: str,
) -> None:
    with pytest.raises(ValueError, match="serializer must be one of pickle, json, msgpack"):
        get_serializer(name)


@pytest.mark.parametrize("name", [None, 1, b"pickle", ["pickle"]])
def test_a_serializer_that_is_no_name_is_a_type_error(name: Any) -> None:
    with pytest.raises(TypeError, match="serializer must be a str"):
        get_serializer(name)


@pytest.mark.parametrize("protocol", ["2", 2.0, True])
def test_a_protocol_that_is_no_number_is_a_type_error(protocol: Any) -> None:
    with pytest.raises(TypeError, match="pickle_protocol must be a whole number"):
        get_serializer("pickle", protocol)


@pytest.mark.parametrize("protocol", [-1, pickle.HIGHEST_PROTOCOL + 1])
@pytest.mark.parametrize("name", ["pickle", "json"])
def test_a_protocol_that_does_not_exist_is_a_value_error(name: str, protocol: int) -> None:
    with pytest.raises(ValueError, match=r"pickle_protocol must be 0 to"):
        get_serializer(name, protocol)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("size", [65535, 65536, 3_000_000])
@pytest.mark.parametrize(
    "wrap", [lambda long: {"params": (1, long)}, lambda long: {"result": long}]
)
@pytest.mark.parametrize("long", [lambda size: bytes(size), lambda size: "ö" * size])
def test_what_is_long_is_pickled_as_pickle_would(
    protocol: int, size: int, wrap: Any, long: Any
) -> None:
    body = wrap(long(size))
    serializer = get_serializer("pickle", protocol)

    encoded = serializer.encode(body)

    assert serializer.decode(encoded) == body
    if protocol > 2:  # below, names of Python 2 are written
        assert encoded == pickle.dumps(body, protocol)
