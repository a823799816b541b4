"""What is built of a body is what CPython's own unpicklers build of it, or the body is refused."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import pickle_bodies
from tests.support.cpython_reader import CPythonReader
from tests.support.described import describe
from tests.support.differential import compare
from tests.support.examples import examples

# CPython warns of escapes in a text that it does not know.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def cpython() -> Iterator[CPythonReader]:
    """How CPython reads, in a process that lives as long as no body ends it."""
    with CPythonReader() as reader:
        yield reader


@given(pickle_bodies.values, pickle_bodies.writers, pickle_bodies.protocols)
@examples(80)
def test_what_picklers_write_is_built_as_it_was(
    cpython: CPythonReader, value: Any, writer: str, protocol: int
) -> None:
    body = pickle_bodies.WRITERS[writer](value, protocol)

    assert compare(cpython, body) == describe(value)


@given(pickle_bodies.old_picklings)
@examples(50)
def test_byte_strings_of_python_2_are_the_same_to_all(cpython: CPythonReader, body: bytes) -> None:
    compare(cpython, body)


@given(pickle_bodies.rearranged())
@examples(150)
def test_opcodes_in_another_order_are_read_by_all_alike(
    cpython: CPythonReader, body: bytes
) -> None:
    compare(cpython, body)


@given(pickle_bodies.damaged())
@examples(150)
def test_damaged_bodies_are_read_by_all_alike(cpython: CPythonReader, body: bytes) -> None:
    compare(cpython, body)


@given(pickle_bodies.programs())
@examples(150)
def test_opcodes_in_any_order_are_read_by_all_alike(cpython: CPythonReader, body: bytes) -> None:
    compare(cpython, body)


@given(st.binary(max_size=40).map(lambda octets: octets + b"."))
@examples(30)
def test_any_bytes_are_read_by_all_alike(cpython: CPythonReader, body: bytes) -> None:
    compare(cpython, body)


@pytest.mark.parametrize("body", pickle_bodies.SHORT.values(), ids=pickle_bodies.SHORT)
def test_each_single_change_is_read_by_all_alike(cpython: CPythonReader, body: bytes) -> None:
    assert compare(cpython, body) is not None

    outcomes = [compare(cpython, changed) for changed in pickle_bodies.near(body)]

    assert None in outcomes  # and others are built
    assert len(set(outcomes)) > 10


def test_odd_arguments_of_opcodes_are_read_by_all_alike(cpython: CPythonReader) -> None:
    assert len({compare(cpython, body) for body in pickle_bodies.ODD}) > 100


def test_what_a_byte_string_hides_behind_its_frame_is_read_by_nobody(
    cpython: CPythonReader,
) -> None:
    built = {compare(cpython, body) for body in pickle_bodies.HIDDEN}

    # A frame that ends before the byte string or behind it says nothing.
    assert all(each is None or each.startswith("b'") for each in built)
    assert len(built) == 5


@pytest.mark.parametrize(
    "body",
    [
        *(b"I-0\n.", b"I+1\n.", b"I 0\n.", b"I\t1\n."),  # truth values to C alone
        *(b"F 1.5\n.", b"F1_0.5\n.", b"F1e400\n."),  # floats to Python alone
        b"I1\x00\n.",  # a number to C alone
        b"ctypes\nSimpleNamespace\n)R)b.",  # states to Python alone
        b"ctypes\nSimpleNamespace\n)R]b.",
        b"ctypes\nSimpleNamespace\n)R}N\x86b.",
        b"]}b.",
        b"ccollections\nUserDict\n)ccollections\nUserDict\n)R\x92.",  # arguments that are no dict
    ],
)
def test_what_the_unpicklers_of_cpython_differ_in_is_refused(
    cpython: CPythonReader, body: bytes
) -> None:
    theirs = cpython.read(body)
    assert theirs is not None
    assert theirs["stream"] == theirs["whole"] != theirs["python"]

    assert compare(cpython, body) is None


def test_a_number_that_only_some_versions_of_cpython_take_for_octal_is_refused(
    cpython: CPythonReader,
) -> None:
    assert compare(cpython, b"I010\n.") is None


@pytest.mark.parametrize("between", [b"", b"\x80\x04", b"\x95" + b"\x02" + b"\0" * 7])
@pytest.mark.parametrize("adding", [b"e", b"\x90"])
@pytest.mark.parametrize("added_to", [b"N", b")", b"C\x01a", b"(\x91"])
def test_what_is_no_container_gets_no_items_not_even_none(
    cpython: CPythonReader, added_to: bytes, adding: bytes, between: bytes
) -> None:
    body = b"\x80\x04" + added_to + b"(" + between + adding + b"."
    theirs = cpython.read(body)
    assert theirs is not None
    assert theirs["whole"] != theirs["python"]  # C does not look at what would get them

    assert compare(cpython, body) is None


@pytest.mark.parametrize(
    "body",
    [
        b"NN\x85R.",  # a call of what is not named
        b"cos\nname\nNR.",  # with arguments that are no tuple
        b"N)\x81.",
        b"(No.",
        b"N)}\x92.",
        b"]}K\x01K\x02sb.",  # a state of what is not named
    ],
)
def test_what_no_unpickler_of_cpython_reads_is_refused(cpython: CPythonReader, body: bytes) -> None:
    theirs = cpython.read(body)
    assert theirs is not None
    for name in ("python", "whole", "stream", "naming nothing", "stream naming nothing"):
        assert theirs[name].startswith(("refused", "not asked"))

    assert compare(cpython, body) is None
