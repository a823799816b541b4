"""The comparison with CPython finds what readers can differ in: mistakes are put in, and found."""

import collections
import io
import math
import pickle
import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from qam._serialization import envelope, opcode_scan, unpickler
from qam._serialization.unpickler import CarefulUnpickler
from tests.support import pickle_bodies
from tests.support.cpython_reader import CPythonReader
from tests.support.described import TOO_LARGE, describe
from tests.support.differential import DisagreementError, compare

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def cpython() -> Iterator[CPythonReader]:
    with CPythonReader(seconds=0) as reader:
        yield reader


# --- mistakes ------------------------------------------------------------------------------------

Patch = pytest.MonkeyPatch


def ignore_frames(patch: Patch) -> None:
    patch.setattr(opcode_scan._Scan, "_begin_frame", lambda scan, position: None)


def read_a_stream(patch: Patch) -> None:
    """In frames that end anywhere C then obeys what the scan took for the content of a text."""
    ignore_frames(patch)

    def load(body: bytes, encoding: str) -> Any:
        return pickle.load(io.BytesIO(body), encoding=encoding)

    patch.setattr(unpickler, "pickle", types.SimpleNamespace(**vars(pickle) | {"loads": load}))


def take_names_for_plain(patch: Patch) -> None:
    patch.setattr(opcode_scan, "_NOT_PLAIN", frozenset())


def take_nothing_for_plain_items(patch: Patch) -> None:
    patch.setattr(opcode_scan, "_ADDING", frozenset())
    patch.setattr(opcode_scan, "_is_simple", lambda body: False)


def take_numbers_in_any_form(patch: Patch) -> None:
    patch.setattr(opcode_scan, "_FORMS", {})


def take_floats_that_are_too_large(patch: Patch) -> None:
    def load(self: Any) -> None:
        self.append(float(self.readline()[:-1]))

    replace(patch, pickle.FLOAT, load)


def count_places_otherwise(patch: Patch) -> None:
    def load(self: Any) -> None:
        self.memo.append(self.stack[-1])

    replace(patch, pickle.MEMOIZE, load)


def keep_what_was_put_first(patch: Patch) -> None:
    put = CarefulUnpickler._put

    def put_once(self: Any, index: int) -> None:
        if index >= len(self.memo):
            put(self, index)

    patch.setattr(CarefulUnpickler, "_put", put_once)


def copy_what_is_got(patch: Patch) -> None:
    get = CarefulUnpickler._get

    def get_copy(self: Any, index: int) -> None:
        get(self, index)
        if type(self.stack[-1]) is list:
            self.stack[-1] = list(self.stack[-1])

    patch.setattr(CarefulUnpickler, "_get", get_copy)


def lose_the_sign_of_zero(patch: Patch) -> None:
    def load(self: Any) -> None:
        self.append(float(self.readline()[:-1]) or 0.0)

    replace(patch, pickle.FLOAT, load)


def read_text_of_python_2_as_latin_1(patch: Patch) -> None:
    patch.setattr(CarefulUnpickler, "_decode_string", lambda self, value: value.decode("latin1"))


def give_a_state_to_anything(patch: Patch) -> None:
    def load(self: Any) -> None:
        self.stack.pop()

    patch.setitem(envelope._EnvelopeUnpickler.dispatch, pickle.BUILD[0], load)


def replace(patch: Patch, opcode: bytes, load: Callable[[Any], None]) -> None:
    for each in (CarefulUnpickler, envelope._EnvelopeUnpickler):
        patch.setitem(each.dispatch, opcode[0], load)


def near(name: str) -> Iterable[bytes]:
    return pickle_bodies.near(pickle_bodies.SHORT[name])


#: Each with bodies that are compared every time, among which are some that show it.
MISTAKES: list[tuple[Callable[[Patch], None], Iterable[bytes]]] = [
    (ignore_frames, pickle_bodies.HIDDEN),
    (read_a_stream, pickle_bodies.HIDDEN),
    (take_names_for_plain, near("name")),
    (take_nothing_for_plain_items, near("frame")),
    (take_numbers_in_any_form, pickle_bodies.ODD),
    (take_floats_that_are_too_large, pickle_bodies.ODD),
    (count_places_otherwise, pickle_bodies.ODD),
    (keep_what_was_put_first, near("places of a byte")),
    (copy_what_is_got, near("places of a byte")),
    (lose_the_sign_of_zero, near("text")),
    (read_text_of_python_2_as_latin_1, pickle_bodies.ODD),
    (give_a_state_to_anything, pickle_bodies.ODD),
]


@pytest.mark.parametrize(
    ("mistake", "bodies"), MISTAKES, ids=[mistake.__name__ for mistake, _ in MISTAKES]
)
def test_a_mistake_is_found(
    cpython: CPythonReader,
    mistake: Callable[[Patch], None],
    bodies: Iterable[bytes],
    monkeypatch: Patch,
) -> None:
    mistake(monkeypatch)

    with pytest.raises(DisagreementError):
        collections.deque(map(partial(compare, cpython), bodies), 0)


# --- bodies that end CPython ----------------------------------------------------------------------

# A number of a thousand million digits.
TAKES_FOR_EVER = b"cfractions\nFraction\n(X\x0b\x00\x00\x001e999999999tR"


def test_what_is_plain_and_ends_cpython_is_a_disagreement(
    cpython: CPythonReader, monkeypatch: Patch
) -> None:
    assert compare(cpython, TAKES_FOR_EVER + b".") is None  # the library refuses it

    monkeypatch.setattr(opcode_scan, "is_plain", lambda body: True)

    with pytest.raises(DisagreementError, match="ends CPython, and is taken for plain"):
        compare(cpython, TAKES_FOR_EVER + b".")


def test_after_its_end_the_reader_reads_on() -> None:
    with CPythonReader(seconds=0) as cpython:
        assert cpython.read(TAKES_FOR_EVER + b".") is None
        theirs = cpython.read(b"N.")

        assert theirs is not None
        assert theirs["whole"] == "None"
        assert cpython.starts == 2


def test_no_name_acts_in_the_reader(cpython: CPythonReader) -> None:
    for name in (b"os\nsystem", b"posix\nsystem", b"builtins\nopen", b"builtins\n__import__"):
        theirs = cpython.read(b"c" + name + b"\n(X\x04\x00\x00\x00truetR.")
        assert theirs is not None
        for reader in ("python", "whole", "stream"):
            assert theirs[reader] == "not asked"


# --- descriptions ---------------------------------------------------------------------------------


def shared(value: Any) -> Any:
    return [value, value]


DIFFERENT: list[tuple[Any, Any]] = [
    (0.0, -0.0),
    (0, False),
    (1, 1.0),
    ("a", b"a"),
    (b"a", bytearray(b"a")),
    ([1], (1,)),
    (math.nan, -math.nan),
    (shared([1]), [[1], [1]]),
    (shared((1,)), [(1,), tuple(range(1, 2))]),
    ({1: 2, 3: 4}, {3: 4, 1: 2}),
    ({1}, frozenset({1})),
    (ValueError(), TypeError()),
    (ValueError, ValueError()),
    ("x" * 1000, "x" * 999 + "y"),
    (2**5000, 2**5000 + 1),
    (types.SimpleNamespace(a=1), types.SimpleNamespace(a=True)),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=repr)
def test_what_differs_is_described_otherwise(one: Any, other: Any) -> None:
    assert describe(one) != describe(other)


def test_a_description_is_the_same_for_a_copy() -> None:
    for value in (one for pair in DIFFERENT for one in pair):
        assert describe(pickle.loads(pickle.dumps(value))) == describe(value)


def test_a_description_is_bounded() -> None:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    itself: list[Any] = []
    itself.append(itself)

    assert describe(deep) == describe([0] * 10**6) == TOO_LARGE
    assert describe(itself) == "list[<0>]"


@pytest.mark.parametrize("text", [b"\xc3\xa9", b"\xff"])  # bytes of Python 2: text, and none
def test_what_ends_cpython_but_is_not_made_of_an_envelope_is_no_difference(
    cpython: CPythonReader, text: bytes
) -> None:
    starts = cpython.starts

    found = compare(cpython, b"\x80\x02(U" + bytes([len(text)]) + text + TAKES_FOR_EVER + b"t.")

    assert found is None
    assert cpython.starts > starts
