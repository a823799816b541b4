"""A message sets plain attributes of what it makes, and nothing else."""

import datetime
import enum
import pickle
import types
import uuid
import zoneinfo
from collections import deque
from typing import Any

import pytest

from qam._serialization.instance_states import may_be_shared, set_state


class Point:
    """An application's value."""

    shade = "grey"


class Slotted:
    """A value with a slot."""

    __slots__ = ("x",)


class WithSetstate:
    """Sets its state itself."""

    def __setstate__(self, state: Any) -> None:
        self.was_given = state


class OwnError(OSError):
    """A trusted exception of an application."""

    code = 0


class Role(enum.Enum):
    """Its members are one for the whole process."""

    USER = 1


def refused(words: str) -> Any:
    return pytest.raises(pickle.UnpicklingError, match=words)


# --- instances of classes -----------------------------------------------------------------


@pytest.mark.parametrize("state", [{"shade": "red", "x": 1}, ({"shade": "red", "x": 1}, {})])
def test_attributes_are_set_on_the_instance_alone(state: Any) -> None:
    point = Point()

    set_state(point, state)

    assert vars(point) == {"shade": "red", "x": 1}
    assert Point.shade == "grey"


def test_slots_are_set_and_what_is_none_is_an_attribute() -> None:
    slotted, point = Slotted(), Point()

    set_state(slotted, (None, {"x": 1}))
    set_state(point, (None, {"y": 2, "shade": "red"}))

    assert slotted.x == 1
    assert vars(point) == {"y": 2, "shade": "red"}


def test_a_field_of_c_is_not_set() -> None:
    with refused("may not set 'maxlen'"):
        set_state(deque(), (None, {"maxlen": 3}))


@pytest.mark.parametrize("make", [Point, OwnError])
@pytest.mark.parametrize("state", [[], "x", {1: 2}, {b"x": 1}, (1, 2, 3)], ids=str)
def test_a_state_is_a_dict_of_attributes(make: Any, state: Any) -> None:
    with refused("no dict of attributes"):
        set_state(make(), state)


@pytest.mark.parametrize("make", [Point, OwnError])
@pytest.mark.parametrize("name", ["__class__", "__dict__", "__cause__", "__anything__"])
def test_no_special_attribute_is_set(make: Any, name: str) -> None:
    with refused("special attributes"):
        set_state(make(), {name: None})


def test_a_class_that_sets_its_state_itself_is_given_what_came() -> None:
    made = WithSetstate()

    set_state(made, ["anything"])

    assert made.was_given == ["anything"]


@pytest.mark.parametrize("number", [-1, 2**128, "1", True, None])
def test_a_uuid_is_a_number_of_128_bits(number: Any) -> None:
    with refused("128 bits"):
        set_state(uuid.UUID.__new__(uuid.UUID), {"int": number})


def test_a_uuid_is_what_its_number_says() -> None:
    made = uuid.UUID.__new__(uuid.UUID)

    set_state(made, {"int": 5})

    assert made == uuid.UUID(int=5)


# --- exceptions that are trusted ----------------------------------------------------------


def test_a_trusted_exception_gets_its_attributes_and_notes() -> None:
    error = OwnError("why")

    set_state(error, {"code": 3, "details": {"a": [1]}, "__notes__": ["a note"]})

    assert vars(error) == {"code": 3, "details": {"a": [1]}, "__notes__": ["a note"]}
    assert OwnError.code == 0


def test_its_fields_in_c_are_set_to_plain_values() -> None:
    error = OwnError(2, "none", "name")

    set_state(error, {"filename": "other"})

    assert error.filename == "other"
    assert "filename" not in vars(error)


@pytest.mark.parametrize("value", [[1], Point(), ("a",), ValueError()], ids=type)
def test_its_fields_in_c_are_set_to_nothing_else(value: Any) -> None:
    error = OwnError(2, "none", "name")

    with refused("may not set 'filename' of an exception to such a value"):
        set_state(error, {"filename": value})

    assert error.filename == "name"


@pytest.mark.parametrize("notes", [5, "text", ("a",), ["a", 1], {"a": 1}], ids=repr)
def test_its_notes_are_a_list_of_texts(notes: Any) -> None:
    error = OwnError()

    with refused("notes of an exception are no texts"):
        set_state(error, {"__notes__": notes})

    assert not hasattr(error, "__notes__")


# --- what is one for the whole process ----------------------------------------------------


@pytest.mark.parametrize(
    "instance",
    [Role.USER, types, datetime.UTC, zoneinfo.ZoneInfo("UTC"), uuid.SafeUUID.safe, 1.5, ()],
    ids=repr,
)
def test_what_the_process_may_share_is_known(instance: Any) -> None:
    assert may_be_shared(instance)


@pytest.mark.parametrize("instance", [Point(), OwnError(), uuid.UUID(int=1), deque()], ids=type)
def test_what_belongs_to_one_message_is_not_shared(instance: Any) -> None:
    assert not may_be_shared(instance)
