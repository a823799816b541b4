"""What a server may do after what: it serves once, and may be closed at any time."""

from collections.abc import Callable
from functools import partial

import pytest

from qam._common.deadline import Deadline
from qam._server.life import Life
from qam.exceptions import QAMClosedException
from tests.support.interrupts import interrupted_at

Deed = Callable[[Life], object]
BEGIN, CLOSE, END, FORK = Life.begin, Life.close, Life.end, Life.after_fork


def life_after(*deeds: Deed) -> Life:
    life = Life()
    for deed in deeds:
        deed(life)
    return life


@pytest.mark.parametrize(
    ("deeds", "shown"),
    [
        ((), "new"),
        ((BEGIN,), "serving"),
        ((BEGIN, CLOSE), "closing"),
        ((BEGIN, CLOSE, END), "closed"),
        ((BEGIN, END), "closed"),
        ((CLOSE,), "closed"),
        ((FORK,), "closed"),
    ],
)
def test_it_is_shown_as_what_can_be_done_with_it(deeds: tuple[Deed, ...], shown: str) -> None:
    assert str(life_after(*deeds)) == shown


def test_it_begins_once() -> None:
    life = Life()
    assert life.begin() is True
    with pytest.raises(RuntimeError, match="make a new one"):
        life.begin()


def test_it_is_known_who_has_begun_also_after_ctrl_c() -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        life, someone = Life(), object()
        begin = partial(life.begin, someone)
        struck.append(interrupted_at(len(struck) + 1, begin, "/life.py"))
        assert life.has_threads == (life.begun_by is someone)
    with pytest.raises(RuntimeError):
        life.begin(object())
    assert life.begun_by is someone


@pytest.mark.parametrize(
    "deeds", [(CLOSE,), (BEGIN, CLOSE), (BEGIN, CLOSE, END), (BEGIN, END, CLOSE)]
)
def test_it_does_not_begin_once_it_is_closed(deeds: tuple[Deed, ...]) -> None:
    assert life_after(*deeds).begin() is False


@pytest.mark.parametrize("deeds", [(BEGIN, END), (BEGIN, END, END)])
def test_one_that_ended_by_itself_does_not_begin_again(deeds: tuple[Deed, ...]) -> None:
    with pytest.raises(RuntimeError, match="has served"):
        life_after(*deeds).begin()


def test_one_that_was_closed_stays_so_however_often_its_end_is_told() -> None:
    life = life_after(BEGIN, CLOSE, END, END)
    assert life.begin() is False


@pytest.mark.parametrize(
    ("deeds", "has_threads"),
    [
        ((), False),
        ((BEGIN,), True),
        ((BEGIN, CLOSE), True),
        ((BEGIN, CLOSE, END), False),
        ((BEGIN, END), False),
        ((BEGIN, FORK), False),
    ],
)
def test_there_is_something_to_end_while_it_has_threads(
    deeds: tuple[Deed, ...], has_threads: bool
) -> None:
    assert life_after(*deeds).close() is has_threads


@pytest.mark.parametrize("deeds", [(FORK,), (BEGIN, FORK), (CLOSE, FORK), (BEGIN, FORK, END)])
def test_in_a_forked_child_it_does_not_begin(deeds: tuple[Deed, ...]) -> None:
    with pytest.raises(QAMClosedException, match="before this process was forked"):
        life_after(*deeds).begin()


@pytest.mark.parametrize("deeds", [(BEGIN, END), (BEGIN, FORK)])
def test_nobody_waits_for_one_that_is_over(deeds: tuple[Deed, ...]) -> None:
    life_after(*deeds).wait()  # without a timeout


def test_a_signal_that_comes_as_a_wait_begins_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a server that serves, and a signal that does not end the wait that has begun
    life, waits = life_after(BEGIN), list[float | None]()

    def wait(timeout: float | None) -> bool:
        waits.append(timeout)
        if len(waits) == 3:  # when that one is over, Python handles it
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(life._over, "wait", wait)
    # when
    with pytest.raises(KeyboardInterrupt):
        life.wait()
    # then
    assert waits == [1.0] * 3


def test_a_wait_with_a_timeout_ends_with_it() -> None:
    life, deadline = life_after(BEGIN), Deadline(0.05)
    life.wait(0.05)
    assert deadline.expired


def test_the_first_error_is_what_it_died_of() -> None:
    life, first = Life(), ValueError("the first")
    for error in (None, first, KeyError("another"), None):
        life.fail(error)
    assert life.failure is first
