"""What the threads of a server hand over, and when that wakes who empties it."""

import pytest

from qam._broker.messages import Delivery, Route
from qam._broker.waker import Waker
from qam._server.call import Call
from qam._server.mailboxes import ResultQueue, SettledCalls
from qam._server.messages import Message


def message(body: bytes = b"reply") -> Message:
    return Message(Route("exchange", "key"), body, {})


def call(number: int = 1) -> Call:
    return Call(Delivery(b"", number), connection_number=1)


def wakes(waker: Waker, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each time that *waker* is used from now on."""
    noted: list[bool] = []
    monkeypatch.setattr(waker, "wake", lambda: noted.append(True))
    return noted


class TestTheResultQueue:
    def test_is_taken_in_order_and_what_is_sent_again_first(self) -> None:
        results = ResultQueue()
        first, second, again = message(b"1"), message(b"2"), message(b"0")
        results.put(first)
        results.put(second)
        results.put_first([again])
        assert len(results) == 3
        assert results.take(alone=True) == [again]
        assert results.take(alone=False) == [first, second]
        assert results.take(alone=False) == []

    def test_is_taken_in_batches(self) -> None:
        results = ResultQueue()
        for _ in range(3):
            results.put(message(b"x" * 700_000))
        assert [len(results.take(alone=False)) for _ in range(3)] == [2, 1, 0]

    def test_wakes_for_the_first_message_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        results = ResultQueue()
        noted = wakes(results.waker, monkeypatch)
        for _ in range(3):
            results.put(message())
        assert noted == [True]
        results.take(alone=False)
        results.put(message())
        assert noted == [True, True]


class TestSettledCalls:
    def test_are_taken_once(self) -> None:
        settled, calls = SettledCalls(), [call(1), call(2)]
        settled.put(calls)
        assert settled.take_all() == calls
        assert settled.take_all() == []

    def test_wake_when_the_broker_would_soon_deliver_no_more(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settled = SettledCalls()
        noted = wakes(settled.waker, monkeypatch)
        settled.set_prefetch(prefetch=12)
        for number in range(2):
            settled.put([call(number)])
        assert noted == []
        settled.put([call(3)])
        assert noted == [True]

    @pytest.mark.parametrize(
        ("prefetch", "seconds"), [(0, 0), (1, 0.000_1), (32, 0.003_2), (256, 0.02), (9999, 0.02)]
    )
    def test_wait_for_others_the_longer_the_more_the_broker_delivers_meanwhile(
        self, prefetch: int, seconds: float
    ) -> None:
        settled = SettledCalls()
        settled.set_prefetch(prefetch)
        assert settled.patience == pytest.approx(seconds)

    def test_wake_at_once_where_nobody_else_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settled = SettledCalls()
        noted = wakes(settled.waker, monkeypatch)
        settled.set_prefetch(prefetch=100)
        settled.put_now(call())
        assert noted == [True]
        assert len(settled.take_all()) == 1

    def test_may_be_taken_from_the_latest_connection_that_others_know_of(self) -> None:
        settled = SettledCalls()
        for number in (1, 3, 2):
            settled.announce(number)
        assert settled.announced == 3
        settled.waker.close()

    def test_wake_at_once_when_the_server_closes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settled = SettledCalls()
        noted = wakes(settled.waker, monkeypatch)
        settled.hurry()
        settled.set_prefetch(prefetch=100)  # whatever comes after that
        settled.put([call()])
        assert noted == [True]
