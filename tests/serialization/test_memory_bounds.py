"""The memory of a pickle's containers is counted before any of them is made."""

import pickle
import pickletools
from typing import Any

import pytest

from qam._serialization.memory_bounds import FREE, PER_BYTE, PER_BYTE_WITH_DICTS, check

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
MAKING = {
    *("EMPTY_DICT", "DICT", "EMPTY_LIST", "LIST", "EMPTY_SET", "FROZENSET"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
}
#: Each letter would make a list, if it did not stand in a text.
LIKE_LISTS = "]" * 2**18


def containers_in(body: bytes) -> int:
    """How many containers are made, as Python's own reader of opcodes sees it."""
    return sum(opcode.name in MAKING for opcode, _, _ in pickletools.genops(body))


def test_a_short_message_is_not_looked_at() -> None:
    assert check(b"]" * 2**17) == (0, 0)


def test_nor_is_one_that_is_short_but_for_its_texts() -> None:
    body = pickle.dumps([LIKE_LISTS])

    assert check(body, in_texts=len(LIKE_LISTS)) == (0, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "like_lists", [LIKE_LISTS, LIKE_LISTS.encode(), [LIKE_LISTS[:200]] * 2, bytearray(300)]
)
def test_what_stands_in_a_text_is_no_container(like_lists: Any, protocol: int) -> None:
    parts = [(n, {n: [1.5, None]}, {str(n)}, f"{n}", 2 ** (8 * n)) for n in range(9)]
    body = pickle.dumps([parts, pickle.UnpicklingError, LIKE_LISTS, like_lists], protocol)

    assert check(body)[0] == containers_in(body)


@pytest.mark.parametrize("opcode", [b"\x8d", b"\x8e", b"\x96"], ids=["text", "bytes", "bytearray"])
def test_nor_is_what_stands_in_one_with_a_length_of_eight_bytes(opcode: bytes) -> None:
    text = opcode + len(LIKE_LISTS).to_bytes(8, "little") + LIKE_LISTS.encode()

    assert check(b"\x80\x05" + text + b"]\x86.") == (2, 72 + 64)


def test_what_follows_the_end_is_not_counted() -> None:
    assert check(b"]." + LIKE_LISTS.encode()) == (1, 72)


def test_the_bytes_of_a_longer_message_are_an_upper_bound() -> None:
    body = pickle.dumps(["x" * 2**18, [1, 2], (3,), {4: 5}])

    number, taken = check(body)

    assert containers_in(body) <= number < 10
    assert 200 < taken < 1000


@pytest.mark.parametrize(
    ("opcode", "size", "per_byte"),
    [
        (b"]", 72, PER_BYTE),
        (b"\x85", 64, PER_BYTE),
        (b"\x8f", 232, PER_BYTE),
        (b"}", 72, PER_BYTE_WITH_DICTS),
        (b"s", 168, PER_BYTE_WITH_DICTS),
    ],
    ids=["lists", "tuples", "sets", "dicts", "items of dicts"],
)
def test_containers_take_what_the_size_of_their_message_allows(
    opcode: bytes, size: int, per_byte: int
) -> None:
    most = (FREE + per_byte) // (size - per_byte)  # the end of the message is one byte, too
    check(opcode * most + b".")

    with pytest.raises(pickle.UnpicklingError, match="more containers than its size allows"):
        check(opcode * (most + 1) + b".")


def test_the_memory_of_dicts_is_not_told_with_that_of_the_others() -> None:
    number, taken = check(b"}" * 2**19 + b"]" * 2**10 + b".")

    assert (number, taken) == (2**19 + 2**10, 72 * 2**10)
