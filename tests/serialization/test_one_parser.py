"""What the look at the opcodes saw is what is built, wherever the frames of a pickle end."""

import array
import datetime
import decimal
import pickle
import pickletools
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qam._serialization.opcode_scan import is_plain
from qam._serialization.trust import Trusted
from qam._serialization.unpickler import loads
from tests.support.examples import examples

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | st.dates()
    | st.decimals(allow_nan=False)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(st.integers() | st.text(max_size=3), max_size=4)
    ),
    max_leaves=8,
)


def opcodes_of(body: bytes) -> list[tuple[str, Any]]:
    """What the body says, without its frames."""
    found = pickletools.genops(body)
    return [(opcode.name, value) for opcode, value, _ in found if opcode.name != "FRAME"]


def without_frames(value: Any, protocol: int) -> bytes:
    body = pickle.dumps(value, protocol)
    starts = [at for opcode, _, at in pickletools.genops(body) if opcode.name == "FRAME"]
    for at in reversed(starts):
        body = body[:at] + body[at + 9 :]
    return body


def framed(body: bytes, start: int, end: int) -> bytes:
    """*body*, in which a frame begins at *start* and says that it ends at *end*."""
    return body[:start] + b"\x95" + struct.pack("<Q", end - start) + body[start:]


def build(body: bytes) -> Any:
    return loads(body, Trusted())


@given(values, st.sampled_from(PROTOCOLS), st.data())
@examples(60)
def test_a_frame_that_ends_anywhere_changes_nothing_or_is_refused(
    value: Any, protocol: int, data: st.DataObject
) -> None:
    plain = without_frames(value, protocol)
    boundaries = {at for _, _, at in pickletools.genops(plain)} | {len(plain)}
    start = data.draw(st.sampled_from(sorted(boundaries - {0, len(plain)})))

    for end in range(start, len(plain) + 1):
        body = framed(plain, start, end)
        if end in boundaries:
            assert opcodes_of(body) == opcodes_of(plain)
            assert build(body) == value
        else:
            with pytest.raises(pickle.UnpicklingError, match="cut off"):
                build(body)


@given(values, st.sampled_from(PROTOCOLS))
@examples(60)
def test_what_is_cut_off_anywhere_is_refused(value: Any, protocol: int) -> None:
    body = pickle.dumps(value, protocol)

    for end in range(len(body)):
        with pytest.raises((pickle.UnpicklingError, ValueError)):
            build(body[:end])


@pytest.mark.parametrize("inner", [0, 1, 2])
def test_a_frame_in_a_frame_is_refused(inner: int) -> None:
    body = b"\x80\x04" + framed(framed(b"NNN\x87.", 2, 2 + inner), 0, 12)

    with pytest.raises(pickle.UnpicklingError, match="begins inside another one"):
        build(body)


@pytest.mark.parametrize("hidden", [b"cos\nsystem\n.", b"B\xff\xff\xff\x3f", b"K\x01K\x02."])
@pytest.mark.parametrize("names", [b"", b"cdatetime\ndate\n0"])
def test_what_lies_in_a_byte_string_is_never_obeyed(names: bytes, hidden: bytes) -> None:
    octets = b"x" * 30 + hidden
    plain = names + b"C" + bytes([len(octets)]) + octets + b"."

    for end in range(len(plain) + 1):
        body = b"\x80\x04" + framed(plain, 0, end)
        try:
            built = build(body)
        except pickle.UnpicklingError:
            continue
        assert built == octets


NAMING: list[Any] = [
    datetime.date(2026, 1, 2),
    decimal.Decimal("1.50"),
    array.array("i", [1]),
    ValueError("x"),
    ValueError,
    complex(1, 2),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", NAMING, ids=repr)
def test_the_unpickler_in_c_gets_nothing_that_has_a_name(
    value: Any, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = pickle.dumps([value], protocol)
    assert not is_plain(body)

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the C unpickler was asked")

    monkeypatch.setattr(pickle, "loads", never)
    assert repr(build(body)) == repr([value])


@given(st.integers(1, 300), st.integers(0, 400))
@examples(100)
def test_the_memo_has_what_was_put_there(place: int, other: int) -> None:
    put = b"r" + struct.pack("<I", place)
    padding = b"C\xff" + b"x" * 255 + b"0C\xff" + b"x" * 255 + b"0"
    body = b"\x80\x04cdatetime\ndate\n0" + padding + b"K\x07" + put + b"0"
    body += b"j" + struct.pack("<I", other) + b"."

    if other == place:
        assert build(body) == 7
    else:
        with pytest.raises(pickle.UnpicklingError, match="memo"):
            build(body)
