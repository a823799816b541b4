import errno
import gc
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from qam._broker import waker as waker_module
from qam._broker.waker import Waker
from tests.support.descriptors import open_descriptors

LONG = 30.0  # seconds; nothing here takes that long unless it is broken


@pytest.fixture(params=["eventfd", "socketpair"])
def waker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waker]:
    """A waker by each of the two means; gives all back that it took."""
    if request.param == "socketpair":
        replace_os(monkeypatch)
    elif not hasattr(os, "eventfd"):
        pytest.skip("this system has no eventfd")
    before = open_descriptors()
    waker = Waker()
    yield waker
    waker.close()
    assert open_descriptors() == before


def replace_os(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., object]) -> None:
    """Give the module another `os`: with these functions, and without eventfd."""
    names = {"read": os.read, "write": os.write, "close": os.close} | functions
    monkeypatch.setattr(waker_module, "os", SimpleNamespace(**names))


def is_ready(waker: Waker) -> bool:
    return bool(select.select([waker], [], [], 0)[0])


def test_it_is_ready_after_a_wake_until_it_is_cleared(waker: Waker) -> None:
    assert not is_ready(waker)

    waker.wake()
    waker.wake()
    assert is_ready(waker)

    waker.clear()
    assert not is_ready(waker)


def test_it_can_be_woken_again_and_again(waker: Waker) -> None:
    for _ in range(3):
        waker.wake()
        assert is_ready(waker)
        waker.clear()
        assert not is_ready(waker)


def test_clearing_what_nobody_woke_does_no_harm(waker: Waker) -> None:
    waker.clear()

    waker.wake()

    assert is_ready(waker)


def test_waiting_ends_at_once_after_a_wake(waker: Waker) -> None:
    waker.wake()

    waker.wait(None)


def test_waiting_ends_when_the_time_is_up(waker: Waker) -> None:
    waker.wait(0.001)

    assert not is_ready(waker)


def test_another_thread_wakes_whoever_waits(waker: Waker) -> None:
    # given
    waiter = threading.Thread(target=waker.wait, args=(None,))
    waiter.start()

    # when
    waker.wake()

    # then
    waiter.join(LONG)
    assert not waiter.is_alive()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_wake_while_it_is_cleared_spoils_no_later_one(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    # given
    def read_and_be_woken(descriptor: int, size: int) -> bytes:
        if moment == "before":
            waker.wake()
        data = os.read(descriptor, size)
        if moment == "after":
            waker.wake()
        return data

    replace_os(monkeypatch, read=read_and_be_woken)
    with closing(Waker()) as waker:
        waker.wake()

        # when
        waker.clear()
        waker.wake()

        # then
        assert is_ready(waker)


@pytest.fixture
def hectic() -> Iterator[None]:
    """The interpreter changes between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hectic")
def test_of_many_things_handed_over_none_is_left_waiting(waker: Waker) -> None:
    # given
    count = 20_000
    handed_over: deque[int] = deque()
    taken: list[int] = []
    lost = threading.Event()
    # At most so many are under way: the owner falls asleep, and is woken, all the time.
    under_way = threading.Semaphore(2)

    def own() -> None:
        while len(taken) < count:
            waker.wait(LONG)
            if not is_ready(waker):
                lost.set()
                return
            waker.clear()
            while handed_over:
                taken.append(handed_over.popleft())
                under_way.release()

    owner = threading.Thread(target=own)
    owner.start()

    # when
    for number in range(count):
        if not under_way.acquire(timeout=2 * LONG) or lost.is_set():
            break
        handed_over.append(number)
        waker.wake()

    # then
    owner.join(2 * LONG)
    assert not lost.is_set(), f"nobody was woken for {list(handed_over)}"
    assert taken == list(range(count))


def test_a_full_one_is_awake_and_never_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    def full(descriptor: int, data: bytes) -> int:
        raise BlockingIOError

    replace_os(monkeypatch, write=full)
    with closing(Waker()) as waker:
        # when
        waker.wake()
        waker.wake()

        # then
        waker.clear()


def test_a_late_wake_does_not_write_to_a_descriptor_of_somebody_else(waker: Waker) -> None:
    # given
    number = waker.fileno()
    waker.close()
    read_end, write_end = os.pipe()
    assert number in (read_end, write_end), "the descriptor was not used again"

    # when
    waker.wake()
    waker.close()

    # then
    assert not select.select([read_end], [], [], 0)[0]
    os.close(read_end)
    os.close(write_end)


def test_one_that_is_dropped_gives_its_descriptors_back() -> None:
    before = open_descriptors()

    Waker()

    assert open_descriptors() == before


@pytest.mark.parametrize("means", ["eventfd", "socketpair"])
def test_one_that_could_not_be_made_is_dropped_without_a_word(
    monkeypatch: pytest.MonkeyPatch, means: str
) -> None:
    # given
    def refuse(*args: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if means == "eventfd":
        replace_os(monkeypatch, eventfd=refuse)
        monkeypatch.setattr(waker_module.os, "EFD_NONBLOCK", 0, raising=False)
        monkeypatch.setattr(waker_module.os, "EFD_CLOEXEC", 0, raising=False)
    else:
        replace_os(monkeypatch)
        monkeypatch.setattr(waker_module, "socket", SimpleNamespace(socketpair=refuse, socket=None))

    # when
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        Waker()

    # then
    gc.collect()  # an error in its __del__ would fail the test


def test_a_wake_that_ctrl_c_strikes_does_not_mute_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    strikes = [KeyboardInterrupt]

    def write(descriptor: int, data: bytes) -> int:
        if strikes:
            raise strikes.pop()
        return os.write(descriptor, data)

    replace_os(monkeypatch, write=write)
    with closing(Waker()) as waker:
        with pytest.raises(KeyboardInterrupt):
            waker.wake()
        # when
        waker.wake()
        # then
        assert is_ready(waker)


def test_a_wake_from_a_finalizer_inside_a_wake_does_not_stop_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    def write_and_be_interrupted(descriptor: int, data: bytes) -> int:
        waker._awake = False  # as if the owner had cleared it in between
        if interruptions:
            interruptions.pop().wake()
        return os.write(descriptor, data)

    replace_os(monkeypatch, write=write_and_be_interrupted)
    with closing(Waker()) as waker:
        interruptions = [waker]

        # when
        caller = threading.Thread(target=waker.wake, daemon=True)
        caller.start()
        caller.join(LONG)

        # then
        assert not caller.is_alive()
        assert is_ready(waker)
