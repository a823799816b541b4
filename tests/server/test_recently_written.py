from collections.abc import Callable

import pytest

from qam._broker.messages import Publish, Route
from qam._server import recently_written
from qam._server.recently_written import RecentlyWritten
from tests.support.clock import MovableClock

SECONDS = 30.0  # that a connection may be dead; no test takes as long


def messages(*bodies: bytes) -> list[Publish]:
    return [Publish(Route("exchange", "key"), body, {}, confirm=False) for body in bodies]


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    return lambda name, value: monkeypatch.setattr(recently_written, name, value)


def test_nothing_was_written_at_first() -> None:
    assert RecentlyWritten(SECONDS).take_all(0.0) == []


def test_what_was_written_is_taken_oldest_first_and_once(clock: MovableClock) -> None:
    recent = RecentlyWritten(SECONDS)
    written = messages(b"1", b"2", b"3")
    recent.add(written[:2], clock())
    recent.add(written[2:], clock())

    assert recent.take_all(clock()) == written
    assert recent.take_all(clock()) == []


def test_what_is_written_after_that_is_taken_the_next_time(clock: MovableClock) -> None:
    recent = RecentlyWritten(SECONDS)
    recent.add(messages(b"before"), clock())
    recent.take_all(clock())
    after = messages(b"after")
    recent.add(after, clock())

    assert recent.take_all(clock()) == after


class TestWhatIsOlderThanADeadConnectionCanBe:
    def test_is_forgotten_when_more_is_written(self, clock: MovableClock) -> None:
        recent = RecentlyWritten(SECONDS)
        recent.add(messages(b"old"), clock())
        clock.advance(SECONDS + 1)
        new = messages(b"new")
        recent.add(new, clock())

        assert [message for _, message in recent._messages] == new
        assert recent.take_all(clock()) == new

    def test_is_not_taken_although_nothing_was_written_since(self, clock: MovableClock) -> None:
        recent = RecentlyWritten(SECONDS)
        recent.add(messages(b"old"), clock())
        clock.advance(SECONDS + 1)

        assert recent.take_all(clock()) == []

    def test_does_not_take_the_younger_ones_along(self, clock: MovableClock) -> None:
        recent = RecentlyWritten(SECONDS)
        recent.add(messages(b"old"), clock())
        clock.advance(2 * SECONDS / 3)
        young = messages(b"young")
        recent.add(young, clock())
        clock.advance(2 * SECONDS / 3)

        assert recent.take_all(clock()) == young


class TestTheOldestAreForgotten:
    def test_where_there_are_too_many(
        self, clock: MovableClock, bound: Callable[[str, int], None]
    ) -> None:
        bound("_MAX_MESSAGES", 3)
        recent = RecentlyWritten(SECONDS)
        written = messages(b"1", b"2", b"3", b"4", b"5")
        recent.add(written, clock())

        assert recent.take_all(clock()) == written[2:]

    def test_where_they_are_too_large(
        self, clock: MovableClock, bound: Callable[[str, int], None]
    ) -> None:
        bound("_MAX_BYTES", 10)
        recent = RecentlyWritten(SECONDS)
        written = messages(b"x" * 5, b"x" * 5, b"x" * 5)
        recent.add(written, clock())

        assert recent.take_all(clock()) == written[1:]

    def test_also_where_a_single_one_is_too_large(
        self, clock: MovableClock, bound: Callable[[str, int], None]
    ) -> None:
        bound("_MAX_BYTES", 10)
        recent = RecentlyWritten(SECONDS)
        recent.add(messages(b"x" * 11), clock())

        assert recent.take_all(clock()) == []

    def test_and_their_bytes_with_them(
        self, clock: MovableClock, bound: Callable[[str, int], None]
    ) -> None:
        bound("_MAX_BYTES", 10)
        recent = RecentlyWritten(SECONDS)
        # given bytes that were forgotten for their age, for their size, and by being taken
        recent.add(messages(b"x" * 10), clock())
        clock.advance(SECONDS + 1)
        recent.add(messages(b"x" * 10, b"x" * 10), clock())
        assert len(recent.take_all(clock())) == 1
        # when as many come as there is room for
        written = messages(b"x" * 5, b"x" * 5)
        recent.add(written, clock())
        # then
        assert recent.take_all(clock()) == written
