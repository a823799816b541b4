import threading
import time

from qam._common.bell import Bell
from tests.support.interrupts import interrupted_at
from tests.support.waiting import until

LONG = 30.0  # seconds; nothing here takes that long unless it is broken


def seconds_of_wait(bell: Bell, most: float) -> float:
    began = time.monotonic()
    bell.wait(most)
    return time.monotonic() - began


def test_it_ends_a_wait() -> None:
    # given a thread that waits
    bell, ended = Bell(), threading.Event()

    def wait() -> None:
        bell.wait(LONG)
        ended.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()

    # when
    bell.ring()

    # then
    assert ended.wait(LONG / 2)
    thread.join(LONG)


def test_what_rang_before_ends_the_next_wait_and_only_that() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()

    assert seconds_of_wait(bell, LONG) < LONG / 2
    assert seconds_of_wait(bell, 0.05) >= 0.05


def test_nothing_that_rings_ends_the_wait_at_its_time() -> None:
    assert seconds_of_wait(Bell(), 0.05) >= 0.05


def test_a_wait_without_end_can_be_asked_for() -> None:
    bell = Bell()
    bell.ring()

    bell.wait(float("inf"))


def test_a_finalizer_may_ring_in_the_middle_of_a_ring() -> None:
    bell = Bell()

    with bell._lock:
        bell.ring()

    assert seconds_of_wait(bell, LONG) < LONG / 2


def test_ctrl_c_at_any_moment_of_a_ring_leaves_a_bell_that_others_can_ring() -> None:
    struck: list[str] = []
    while not struck or struck[-1]:
        # given a thread that waits
        bell = Bell()
        thread = threading.Thread(target=bell.wait, args=(LONG,), daemon=True)
        thread.start()
        until(lambda bell=bell: bell._condition._waiters)
        struck.append(interrupted_at(len(struck) + 1, bell.ring, "/bell.py"))
        # when
        bell.ring()
        # then
        thread.join(LONG / 2)
        assert not thread.is_alive()
    assert len(struck) > 3


def test_in_a_forked_child_a_lock_that_somebody_held_is_free_again() -> None:
    bell = Bell()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with bell._lock:
            held.set()
            done.wait(LONG)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait(LONG)
    bell.renew_lock()

    bell.ring()

    assert seconds_of_wait(bell, LONG) < LONG / 2
    done.set()
    thread.join(LONG)
