"""Which signals close a server, and how often; scenarios/test_ending_servers.py sends them."""

import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from qam._server.stop_signals import closing_on, signals_to_stop_on

LONG = 60.0


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def in_a_thread(stop_on: Any) -> Any:
    """What another thread than the main one gets: the signals, or an exception."""
    came: list[Any] = []

    def ask() -> None:
        try:
            came.append(signals_to_stop_on(stop_on))
        except ValueError as error:
            came.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(LONG)
    return came[0]


def test_by_default_it_is_sigterm_unless_the_application_handles_that() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert signals_to_stop_on(None) == (signal.SIGTERM,)

    signal.signal(signal.SIGTERM, lambda number, frame: None)
    assert signals_to_stop_on(None) == ()


def test_in_another_thread_it_is_none_by_default_and_none_can_be_named() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    assert in_a_thread(None) == ()
    assert in_a_thread([]) == ()
    refused = in_a_thread([signal.SIGTERM])
    assert isinstance(refused, ValueError)
    assert "main thread only" in str(refused)


def test_those_that_are_named_are_taken() -> None:
    named = iter([signal.SIGHUP, signal.SIGTERM])
    assert signals_to_stop_on(named) == (signal.SIGHUP, signal.SIGTERM)


@pytest.mark.parametrize("wrong", [signal.SIGTERM, "SIGTERM", 5.0], ids=["one", "text", "float"])
def test_what_is_no_list_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="stop_on must be a list of signals"):
        signals_to_stop_on(wrong)


@pytest.mark.parametrize("wrong", [signal.SIGKILL, signal.SIGSTOP, 0, "SIGTERM"], ids=str)
def test_what_can_not_be_handled_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="is no signal, or none that can be handled"):
        signals_to_stop_on([wrong])


def test_the_first_one_closes_and_the_second_does_what_it_did_before() -> None:
    # given an application that handles one of them
    happened: list[str] = []

    def own(number: int, frame: FrameType | None) -> None:
        happened.append("own handler")

    signal.signal(signal.SIGTERM, own)
    with closing_on([signal.SIGTERM, signal.SIGHUP], lambda: happened.append("close")):
        # when
        signal.raise_signal(signal.SIGHUP)
        # then
        assert happened == ["close"]
        # and when another one comes
        signal.raise_signal(signal.SIGTERM)
        # then
        assert happened == ["close", "own handler"]


def test_afterwards_all_handlers_are_as_before() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]

    with closing_on([signal.SIGTERM, signal.SIGHUP], lambda: None):
        assert signal.getsignal(signal.SIGTERM) != before[0]

    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == before
