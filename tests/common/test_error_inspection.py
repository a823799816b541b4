"""Exceptions are looked at, and nothing of their classes runs."""

import json
import sys
from types import ModuleType
from typing import Any

import pytest

from qam._common.error_inspection import (
    args_and_state,
    args_of,
    find_class,
    frames_of,
    full_name,
    has_huge_position,
    has_own_hash,
    has_own_text,
    is_error_class,
    is_syntax_error,
    may_be_raised,
    notes_of,
    text_of_args,
)
from qam.exceptions import QAMTimeoutException, RemoteException


class Acting(Exception):
    """Acts whenever it is asked for something."""

    def _act(self, *args: Any) -> Any:
        raise AssertionError("it was asked")

    __str__ = __repr__ = __hash__ = __eq__ = __reduce__ = _act  # type: ignore[assignment]
    args = property(_act)


class Plain(ValueError):
    """Has nothing of its own."""

    class Inner(Exception):
        """Is inside."""


def acting(*args: Any) -> Acting:
    return Acting.__new__(Acting, *args)


# --- classes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "whether"),
    [(ValueError, True), (SystemExit, True), (Acting, True), (int, False), (ValueError(), False)],
)
def test_the_class_of_an_exception_is_known(thing: Any, whether: bool) -> None:
    assert is_error_class(thing) is whether


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (("builtins", "ValueError"), ValueError),
        ((__name__, "Plain"), Plain),
        ((__name__, "Plain.Inner"), Plain.Inner),
        ((__name__, "Missing"), None),
        ((__name__, "ModuleType"), None),  # of another module
        (("builtins", "int"), None),  # no exception
        (("no_such_module", "Error"), None),
    ],
)
def test_a_class_is_found_under_its_own_name(name: tuple[str, str], found: Any) -> None:
    assert find_class(name) is found


def test_nothing_is_imported_to_find_a_class() -> None:
    assert "this" not in sys.modules

    assert find_class(("this", "Error")) is None

    assert "this" not in sys.modules


def test_a_module_that_finds_its_names_by_code_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("it was asked")

    monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))

    assert find_class(("lazy", "Error")) is None


def test_the_full_name_of_a_class_has_its_module() -> None:
    assert full_name(Plain.Inner) == f"{__name__}.Plain.Inner"


@pytest.mark.parametrize("cls", [ValueError, Acting, RemoteException, ExceptionGroup])
def test_a_call_may_raise_what_a_method_raised(cls: type) -> None:
    assert may_be_raised(cls)


@pytest.mark.parametrize(
    "cls", [SystemExit, KeyboardInterrupt, StopIteration, StopAsyncIteration, QAMTimeoutException]
)
def test_a_call_does_not_raise_what_would_be_taken_for_something_else(cls: type) -> None:
    assert not may_be_raised(cls)


def test_it_is_known_whose_code_would_make_hash_and_text() -> None:
    assert has_own_hash(acting())
    assert not has_own_hash(Plain())
    assert not has_own_hash(1)
    assert has_own_text(Acting)
    assert not has_own_text(Plain)


# --- exceptions ---------------------------------------------------------------------------


def test_the_args_and_notes_are_those_of_the_exception_itself() -> None:
    error = acting("x", 1)
    BaseException.add_note(error, "a note")

    assert args_of(error) == ("x", 1)
    assert notes_of(error) == ["a note"]
    assert notes_of(acting()) is None


def test_the_frames_are_those_of_the_exception_itself() -> None:
    class Acting(Exception):
        __traceback__ = property(lambda self: "computed")  # type: ignore[assignment]

    with pytest.raises(Acting) as caught:
        raise Acting

    frames = frames_of(caught.value)
    assert frames is not None
    assert frames.tb_frame.f_code.co_name == "test_the_frames_are_those_of_the_exception_itself"
    assert frames_of(Acting()) is None


def with_attributes(error: BaseException, **attributes: Any) -> BaseException:
    vars(error).update(attributes)
    return error


@pytest.mark.parametrize(
    ("error", "args", "state"),
    [
        (Plain("x"), ("x",), None),
        (with_attributes(Plain("x"), a=1), ("x",), {"a": 1}),
        (with_attributes(acting("x"), a=1), ("x",), {"a": 1}),
        (FileNotFoundError(2, "no", "name"), (2, "no", "name"), None),
        (RemoteException("a.B", (1,), "why"), ("a.B", (1,), "why"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_pickle_would_hold_is_known_without_its_code(
    error: BaseException, args: tuple[Any, ...], state: Any
) -> None:
    found_args, found_state = args_and_state(error)

    assert (found_args, found_state or None) == (args, state)


def test_a_remote_exception_keeps_its_notes_and_no_other_attributes() -> None:
    error = RemoteException("a.B", (1,), "why")
    error.add_note("a note")

    assert args_and_state(error)[1] == {"__notes__": ["a note"]}


def test_an_error_of_the_json_module_is_made_of_other_args_than_it_has() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("[1")

    args, state = args_and_state(caught.value)

    assert args == ("Expecting ',' delimiter", "[1", 2)
    assert state == vars(caught.value)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), ""),
        (("why",), "why"),
        (("why", 3), "('why', 3)"),
        ((acting("x"),), ""),
        (("why", acting("x")), ""),
        (("x" * 100_000,), ""),
    ],
    ids=["none", "a text", "several", "an exception", "one among others", "too long"],
)
def test_args_have_a_text_if_they_are_plain_values(args: tuple[Any, ...], text: str) -> None:
    assert text_of_args(args) == text


PLACE = ("file", 1, 2, "text")


@pytest.mark.parametrize(
    "args",
    [
        ("why",),
        ("why", PLACE),
        ("why", (*PLACE, 3, 4)),
        (None, (None, None, None, None)),
        ("why", ("file", 2**31, 10_000, "text", 2**31, 10_000)),
    ],
    ids=str,
)
def test_the_place_of_a_syntax_error_may_be_in_a_source(args: tuple[Any, ...]) -> None:
    assert not has_huge_position(SyntaxError(*args))


@pytest.mark.parametrize(
    ("args", "is_one"),
    [
        ((), True),
        (("why",), True),
        (("why", PLACE), True),
        (("why", "file"), False),
        (("why", PLACE[:3]), False),
        (("why", (*PLACE, 3)), False),
        (("why", PLACE, 5), False),
        ((5, PLACE), False),
    ],
    ids=str,
)
def test_args_are_those_of_a_syntax_error_if_a_place_is_complete(
    args: tuple[Any, ...], is_one: bool
) -> None:
    assert is_syntax_error(args) is is_one


@pytest.mark.parametrize(
    "place",
    [
        ("file", 2**31 + 1, 2, "text"),
        ("file", 1, 10_001, "text"),
        ("file", 1, -2, "text"),
        ("file", 1, 2, "text", 2**31 + 1, 1),
        ("file", 1, 2, "text", 1, 10_001),
        ("file", 1.5, 2, "text"),
        ("file", 1, 2, ["text"]),
        (["file"], 1, 2, "text"),
    ],
    ids=str,
)
def test_a_place_that_no_source_has_is_huge(place: tuple[Any, ...]) -> None:
    assert has_huge_position(SyntaxError("why", place))
    assert not has_huge_position(ValueError("why", place))
