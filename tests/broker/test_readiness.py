import selectors
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from struct import pack

import pytest

from qam._broker import readiness as readiness_module
from qam._broker.readiness import (
    NOTHING,
    TO_READ,
    TO_WRITE,
    Readiness,
    _SelectorReadiness,
    readiness_of,
)
from qam._broker.waker import Waker

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
AnyReadiness = Readiness | _SelectorReadiness


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours, which does not block, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        ours.setblocking(False)
        with ours, peer:
            yield ours, peer


@pytest.fixture
def waker() -> Iterator[Waker]:
    with closing(Waker()) as waker:
        yield waker


@pytest.fixture(params=[Readiness, _SelectorReadiness])
def readiness(
    request: pytest.FixtureRequest, ends: tuple[socket.socket, socket.socket]
) -> Iterator[AnyReadiness]:
    with closing(request.param(ends[0])) as readiness:
        yield readiness


def test_nothing_is_ready_when_the_time_is_up(readiness: AnyReadiness, waker: Waker) -> None:
    assert readiness.wait(TO_READ, waker, 0.01) == (False, False)


def test_what_comes_is_told(
    readiness: AnyReadiness, waker: Waker, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[1].sendall(b"data")

    assert readiness.wait(TO_READ, waker, LONG) == (False, True)


def test_a_wake_is_told_until_it_is_cleared(readiness: AnyReadiness, waker: Waker) -> None:
    waker.wake()

    assert readiness.wait(TO_READ, waker, None) == (True, False)
    assert readiness.wait(TO_READ, waker, None) == (True, False)

    waker.clear()
    assert readiness.wait(TO_READ, waker, 0.0) == (False, False)


def test_a_wake_ends_a_wait(readiness: AnyReadiness, waker: Waker) -> None:
    thread = threading.Thread(target=waker.wake)
    thread.start()

    assert readiness.wait(TO_READ, waker, LONG) == (True, False)
    thread.join(LONG)


def test_a_socket_that_can_be_written_ends_the_wait_and_is_not_readable(
    readiness: AnyReadiness, waker: Waker
) -> None:
    assert readiness.wait(TO_READ | TO_WRITE, waker, None) == (False, False)


@pytest.mark.skipif(not hasattr(readiness_module.select, "epoll"), reason="no system with epoll")
class TestAWaitThatGoesOn:
    """While another thread has it rest."""

    @pytest.fixture
    def readiness(self, ends: tuple[socket.socket, socket.socket]) -> Iterator[Readiness]:
        with closing(Readiness(ends[0])) as readiness:
            yield readiness

    @pytest.fixture
    def result(self, readiness: Readiness, waker: Waker) -> Iterator[Future[tuple[bool, bool]]]:
        begun = threading.Event()
        told = readiness._watch

        def mind(interest: int, waker: Waker) -> None:
            told(interest, waker)
            begun.set()  # from here on what it waits for changes at once, or before it begins

        readiness._watch = mind  # type: ignore[method-assign]
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(readiness.wait, TO_READ, waker, LONG)
            assert begun.wait(LONG)
            yield waits

    def test_is_not_ended_by_what_comes_but_by_a_wake(
        self,
        readiness: Readiness,
        result: Future[tuple[bool, bool]],
        waker: Waker,
        ends: tuple[socket.socket, socket.socket],
    ) -> None:
        readiness.rest()
        ends[1].sendall(b"data")
        waker.wake()

        assert result.result(LONG) == (True, False)
        assert readiness.wait(TO_READ, waker, LONG) == (True, True)

    def test_is_ended_by_the_end_of_the_socket(
        self,
        readiness: Readiness,
        result: Future[tuple[bool, bool]],
        ends: tuple[socket.socket, socket.socket],
    ) -> None:
        readiness.rest()
        ends[1].close()

        assert result.result(LONG) == (False, True)


@pytest.mark.skipif(not hasattr(readiness_module.select, "epoll"), reason="no system with epoll")
class TestTheEndOfTheSocket:
    @pytest.mark.parametrize("linger", [None, 0], ids=["in order", "reset"])
    def test_is_noticed_also_by_who_does_not_wait_for_what_comes(
        self, waker: Waker, ends: tuple[socket.socket, socket.socket], linger: int | None
    ) -> None:
        # given
        ours, peer = ends
        readiness = Readiness(ours)
        peer.sendall(b"data")
        assert readiness.wait(NOTHING, waker, 0.01) == (False, False)

        # when
        if linger is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, linger))
        peer.close()

        # then
        assert readiness.wait(NOTHING, waker, LONG) == (False, True)


def test_where_there_is_no_epoll_the_systems_selector_is_used(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(readiness_module.select, "epoll")
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)

    with closing(readiness_of(ends[0])) as readiness:
        assert isinstance(readiness, _SelectorReadiness)
        assert not readiness.notices_end
