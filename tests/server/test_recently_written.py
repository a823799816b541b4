from collections.abc import Callable

import pytest

from qam._broker.messages import Publish, Route
from qam._server import recently_written
from qam._server.recently_written import RecentlyWritten
from tests.support.clock import MovableClock, move

SECONDS = 30.0  # that a connection may be dead; no test takes as long


def messages(*bodies: bytes) -> list[Publish]:
    return [Publish(Route("exchange", "key"), body, {}, confirm=False) for body in bodies]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MovableClock:
    return move(monkeypatch, recently_written)


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    return lambda name, value: monkeypatch.setattr(recently_written, name, value)


def test_nothing_was_written_at_first() -> None:
    assert RecentlyWritten(SECONDS).take_all() == []


def test_what_was_written_is_taken_oldest_first_and_once() -> None:
    recent = RecentlyWritten(SECONDS)
    written = messages(b"1", b"2", b"3")
    recent.add(written[:2])
    recent.add(written[2:])

    assert recent.take_all() == written
    assert recent.take_all() == []


def test_what_is_written_after_that_is_taken_the_next_time() -> None:
    recent = RecentlyWritten(SECONDS)
    recent.add(messages(b"before"))
    recent.take_all()
    after = messages(b"after")
    recent.add(after)

    assert recent.take_all() == after


class TestWhatIsOlderThanADeadConnectionCanBe:
    def test_is_forgotten_when_more_is_written(self, clock: MovableClock) -> None:
        recent = RecentlyWritten(SECONDS)
        recent.add(messages(b"old"))
        clock.advance(SECONDS + 1)
        new = messages(b"new")
        recent.add(new)

        assert [message for _, message in recent._messages] == new
        assert recent.take_all() == new

    def test_is_not_taken_although_nothing_was_written_since(self, clock: MovableClock) -> None:
        recent = RecentlyWritten(SECONDS)
        recent.add(messages(b"old"))
        clock.advance(SECONDS + 1)

        assert recent.take_all() == []

    def test_does_not_take_the_younger_ones_along(self, clock: MovableClock) -> None:
        recent = RecentlyWritten(SECONDS)
        recent.add(messages(b"old"))
        clock.advance(2 * SECONDS / 3)
        young = messages(b"young")
        recent.add(young)
        clock.advance(2 * SECONDS / 3)

        assert recent.take_all() == young


class TestTheOldestAreForgotten:
    def test_where_there_are_too_many(self, bound: Callable[[str, int], None]) -> None:
        bound("_MAX_MESSAGES", 3)
        recent = RecentlyWritten(SECONDS)
        written = messages(b"1", b"2", b"3", b"4", b"5")
        recent.add(written)

        assert recent.take_all() == written[2:]

    def test_where_they_are_too_large(self, bound: Callable[[str, int], None]) -> None:
        bound("_MAX_BYTES", 10)
        recent = RecentlyWritten(SECONDS)
        written = messages(b"x" * 5, b"x" * 5, b"x" * 5)
        recent.add(written)

        assert recent.take_all() == written[1:]

    def test_also_where_a_single_one_is_too_large(self, bound: Callable[[str, int], None]) -> None:
        bound("_MAX_BYTES", 10)
        recent = RecentlyWritten(SECONDS)
        recent.add(messages(b"x" * 11))

        assert recent.take_all() == []

    def test_and_their_bytes_with_them(
        self, clock: MovableClock, bound: Callable[[str, int], None]
    ) -> None:
        bound("_MAX_BYTES", 10)
        recent = RecentlyWritten(SECONDS)
        # given bytes that were forgotten for their age, for their size, and by being taken
        recent.add(messages(b"x" * 10))
        clock.advance(SECONDS + 1)
        recent.add(messages(b"x" * 10, b"x" * 10))
        assert len(recent.take_all()) == 1
        # when as many come as there is room for
        written = messages(b"x" * 5, b"x" * 5)
        recent.add(written)
        # then
        assert recent.take_all() == written
