"""What one message may cost is counted before it is built."""

import functools
import pickle
from collections import Counter, UserList, defaultdict, deque
from pathlib import PurePath
from typing import Any

import numpy
import pytest

from qam._serialization.cost_bounds import Bounds
from qam._serialization.memory_bounds import FREE, PER_BYTE

SIZE = 1_000  # bytes of the message
BUDGET = 100_000 + 3 * SIZE


class Keyed(Exception):
    """Has a hash of its own."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        raise AssertionError("its hash was asked for")


@pytest.fixture
def bounds() -> Bounds:
    return Bounds(SIZE)


def nested(depth: int) -> Any:
    """A tuple in a tuple, and so on."""
    return functools.reduce(lambda inner, _: (inner,), range(depth), ())


def refused(words: str) -> Any:
    return pytest.raises(pickle.UnpicklingError, match=words)


# --- calls and memory ---------------------------------------------------------------------


def test_a_message_costs_what_its_size_allows_and_no_more(bounds: Bounds) -> None:
    bounds.spend(BUDGET)

    with refused("would build more than its size allows"):
        bounds.spend(1)


def test_a_message_takes_the_memory_that_its_size_allows_and_no_more() -> None:
    # given one whose other values take some
    bounds = Bounds(SIZE, taken=500)
    bounds.take(FREE + PER_BYTE * SIZE - 500)

    with refused("would take more memory than its size allows"):
        bounds.take(1)


def test_an_object_costs_as_often_as_it_occurs(bounds: Bounds) -> None:
    shared = ["x" * 97]  # costs 100: one for each object, and one for each item and letter
    bounds.spend_on([shared] * (BUDGET // 100))

    with refused("build more"):
        bounds.spend_on([shared] * (BUDGET // 100))


def test_a_number_costs_what_its_length_is(bounds: Bounds) -> None:
    long = 1 << 64 * 1_000
    bounds.spend_on([long] * 100)

    with refused("build more"):
        bounds.spend_on([long] * 100)


def test_what_is_no_container_is_shown_to_who_looks_for_that(bounds: Bounds) -> None:
    leaves: list[Any] = []

    bounds.spend_on([1, ["a", {"b": None}], (2.5,)], leaves.append)

    assert leaves == [1, "a", "b", None, 2.5]


MEMORY = FREE + PER_BYTE * SIZE


def taken(bounds: Bounds) -> int:
    """How much of the memory of the message is taken; then nothing is left of it."""
    left, step = 0, 2**40
    while step:
        try:
            bounds.take(step)
            left += step
        except pickle.UnpicklingError:
            bounds.take(-step)
        step //= 2
    return MEMORY - left


@pytest.mark.parametrize(
    ("called", "octets"),
    [(str, 200), (complex, 200), (dict, 400), (Counter, 400), (UserList, 400), (deque, 800)],
)
def test_a_call_takes_memory_for_its_result(bounds: Bounds, called: Any, octets: int) -> None:
    bounds.call(called)

    assert taken(bounds) == octets


def test_calls_cost_more_than_what_they_are_given(bounds: Bounds) -> None:
    for _ in range(BUDGET // 10):
        bounds.call(complex)

    with refused("build more"):
        bounds.call(complex)


@pytest.mark.parametrize(
    ("called", "args", "octets"),
    [
        (tuple, ([1, 2, 3],), 3 * 16),
        (set, ([1, 2, 3],), 3 * 160),
        (dict, ({1: 2},), 160),
        (bytearray, (b"abc", "latin1"), 3 + 6),
        (PurePath, ("abc", "d"), 4 * 8),
        (complex, (2**800,), 100),
        (complex, (1.5, None), 0),
    ],
)
def test_the_result_of_a_call_takes_what_its_items_take(
    bounds: Bounds, called: Any, args: tuple[Any, ...], octets: int
) -> None:
    bounds.take_items(called, args)

    assert taken(bounds) == octets


@pytest.mark.parametrize(
    ("state", "octets"),
    [
        ({"a": 1, "b": 2, "c": 3}, 2 * 160),  # the first is counted with the instance
        ([1, 2], 2 * 16),
        ("text", 4),
        (({"a": 1}, {"b": 2, "c": 3}), 160),
        (None, 0),
        ({"a": 2**800, "b": 2**800}, 160 + 2 * 100),
        ([2**800], 16 + 100),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_state_of_an_instance_takes_what_is_in_it(
    bounds: Bounds, state: Any, octets: int
) -> None:
    bounds.take_state(state)

    assert taken(bounds) == octets


def test_a_long_state_is_paid_for_each_time_that_it_is_given(bounds: Bounds) -> None:
    state = [None] * 1_000
    for _ in range(100):
        bounds.take_state(state)

    with refused("build more"):
        for _ in range(100):
            bounds.take_state(state)


# --- depth --------------------------------------------------------------------------------


def test_values_are_nested_a_thousand_deep_and_no_deeper(bounds: Bounds) -> None:
    bounds.spend_on([nested(1_000)])

    with refused("nested too deeply"):
        bounds.spend_on([nested(1_001)])


def test_so_are_the_results_of_calls(bounds: Bounds) -> None:
    made: Any = None
    for _ in range(1_001):
        made = bounds.deepen([made], [made])

    with refused("nested too deeply"):
        bounds.deepen([made], [made])


def test_a_result_that_has_no_parts_is_not_nested(bounds: Bounds) -> None:
    for _ in range(2_000):
        assert bounds.deepen(1.5, [nested(3)]) == 1.5


@pytest.mark.parametrize("make", [deque, defaultdict])
def test_containers_that_are_freed_by_recursion_are_counted(bounds: Bounds, make: Any) -> None:
    inner = [make() for _ in range(20_000)]
    bounds.check_nesting([], inner * 2)  # a list is not freed so
    bounds.check_nesting(make(), [1, "text", [2]] * 20_000)
    bounds.check_nesting(make(), inner)

    with refused("too many nested containers"):
        bounds.check_nesting(make(), inner[:1])


def test_what_is_nested_in_them_already_counts_with_its_depth(bounds: Bounds) -> None:
    deep: Any = deque()
    for _ in range(500):
        deep = bounds.deepen(deque(), [deep])
    bounds.check_nesting(deque(), [deep] * 39)

    with refused("too many nested containers"):
        bounds.check_nesting(deque(), [deep])


def test_an_array_of_numpy_is_not_used_before_it_has_its_data(bounds: Bounds) -> None:
    # given two arrays of objects that get their data later
    array, other = (numpy.zeros(1, dtype=object) for _ in range(2))
    for each in (array, other):
        bounds.begin_array(each)
    # then neither is put into the other one, nor into what is freed by recursion
    with refused("before it has its data"):
        bounds.finish_array(other, [array])
    with refused("before it has its data"):
        bounds.check_nesting(deque(), [array])
    # until it has them
    bounds.finish_array(array, [1])
    bounds.finish_array(other, [array])
    bounds.check_nesting(deque(), [array, other])


def test_the_args_of_an_exception_are_counted_when_they_have_grown(bounds: Bounds) -> None:
    args: list[Any] = []
    bounds.deepen(ValueError(args), [args])
    bounds.deepen([args], [args])  # which is none
    bounds.check_exceptions()

    args += [1] * BUDGET

    with refused("build more"):
        bounds.check_exceptions()


# --- keys ---------------------------------------------------------------------------------


def test_texts_cost_nothing_as_keys(bounds: Bounds) -> None:
    bounds.spend(BUDGET)

    bounds.check_keys(["a", b"b"] * 1_000, None)


def test_a_long_key_costs_its_length_each_time(bounds: Bounds) -> None:
    key = 1 << 64 * 1_000
    for _ in range(100):
        bounds.check_keys([key], None)

    with refused("build more"):
        for _ in range(100):
            bounds.check_keys([key], None)


@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: (1, (key,))], ids=["bare", "inside"])
def test_an_exception_with_a_hash_of_its_own_is_no_key(bounds: Bounds, wrap: Any) -> None:
    bounds.check_keys([wrap(ValueError())], None)

    with refused("can't be a key"):
        bounds.check_keys([wrap(Keyed())], None)


def test_a_few_containers_are_filled_in_any_number_of_steps(bounds: Bounds) -> None:
    containers = [dict.fromkeys(range(1_000)) for _ in range(64)]

    for key in range(1_000, 1_010):
        for container in containers:
            bounds.check_keys([key], container)
            container[key] = None


def test_the_keys_of_one_that_is_forgotten_meanwhile_cost_again(bounds: Bounds) -> None:
    containers = [dict.fromkeys(range(1_000)) for _ in range(65)]
    for container in containers:
        bounds.check_keys([1_000], container)

    with refused("build more"):
        for container in containers:
            bounds.check_keys([1_001], container)
