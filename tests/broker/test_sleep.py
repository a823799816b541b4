"""What ends the sleep of an owner, on a socket and a waker of the test."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from qam._broker.readiness import TO_READ
from qam._broker.sleep import Sleep
from qam._broker.waker import Waker

LONG = 60.0  # seconds; nothing here takes that long unless it is broken


class Wire:
    """The part of a transport that a sleep looks at, with the other end of its socket."""

    interest, backlog = TO_READ, False

    def __init__(self) -> None:
        self.sock, self.peer = socket.socketpair()
        self.sock.setblocking(False)

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    with closing(Wire()) as made:
        yield made


@pytest.fixture
def waker() -> Iterator[Waker]:
    with closing(Waker()) as made:
        yield made


@pytest.fixture
def sleep(wire: Wire) -> Iterator[Sleep]:
    transport: Any = wire
    with closing(Sleep(transport)) as made:
        yield made


def test_what_comes_ends_it_and_is_there_to_receive_once(
    sleep: Sleep, wire: Wire, waker: Waker
) -> None:
    wire.peer.send(b"x")

    sleep.wait(LONG, waker, read_delay=0.0)

    assert sleep.end()
    assert not sleep.end()


def test_a_wake_ends_it_and_counts_once(sleep: Sleep, waker: Waker) -> None:
    waker.wake()

    sleep.wait(LONG, waker, read_delay=0.0)

    assert not sleep.end()
    sleep.wait(0.0, waker, read_delay=0.0)  # not woken any more: only its time ends it


def test_while_data_may_stay_unread_a_wake_ends_it_all_the_same(
    sleep: Sleep, wire: Wire, waker: Waker
) -> None:
    wire.peer.send(b"x")
    waker.wake()

    sleep.wait(LONG, waker, read_delay=LONG)

    assert sleep.end()


def test_data_stay_unread_no_longer_than_the_delay(sleep: Sleep, wire: Wire, waker: Waker) -> None:
    wire.peer.send(b"x")

    sleep.wait(LONG, waker, read_delay=0.001)

    assert sleep.end()


def test_nothing_stays_unread_while_there_is_more_to_write(
    sleep: Sleep, wire: Wire, waker: Waker
) -> None:
    wire.backlog = True
    wire.peer.send(b"x")

    sleep.wait(LONG, waker, read_delay=LONG)

    assert sleep.end()


def test_at_rest_what_comes_ends_nothing_and_is_there_afterwards(
    sleep: Sleep, wire: Wire, waker: Waker
) -> None:
    # given
    woken = threading.Event()

    def wake() -> None:
        woken.set()
        waker.wake()

    sleep.rest()
    wire.peer.send(b"x")
    timer = threading.Timer(0.05, wake)
    timer.start()
    # when
    sleep.wait(LONG, waker, read_delay=0.0)
    # then
    assert woken.is_set()
    timer.join()
    assert sleep.end()
    assert not sleep.rests


def test_the_end_of_the_connection_ends_a_rest(sleep: Sleep, wire: Wire, waker: Waker) -> None:
    sleep.rest()
    wire.peer.close()

    sleep.wait(LONG, waker, read_delay=0.0)

    assert sleep.end()


def test_there_is_none_where_other_frames_were_received_with_an_answer(
    sleep: Sleep, waker: Waker
) -> None:
    sleep.took_in = True

    sleep.wait(LONG, waker, read_delay=0.0)

    sleep.end()
    assert not sleep.took_in
