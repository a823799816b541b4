"""The stations of calls: how they are remembered, and how they are logged."""

import logging
from typing import Any

import pytest

from qam._common import stations as stations_module
from qam._common.stations import Stations

log = logging.getLogger("test_stations")


class Clock:
    """Stands still until the test moves it on."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=log.name)


def test_a_line_says_which_call_is_where_and_how_long_it_took_to_come_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given
    clock = Clock()
    stations = Stations(log, clock)
    # when
    stations.note("received", "client:1")
    clock.now += 0.25
    stations.note("started", "client:1", "add")
    clock.now += 1.5
    stations.note("ended", "client:1")
    stations.log()
    # then
    assert caplog.messages == [
        "call client:1: received",
        "call client:1 of add(): started +0.2500 s",
        "call client:1 of add(): ended +1.5000 s",
    ]


def test_calls_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    # given
    clock = Clock()
    stations = Stations(log, clock)
    # when
    stations.note("received", "client:1", "add")
    clock.now += 1
    stations.note("received", "client:2")
    clock.now += 1
    stations.note("started", "client:1")
    stations.log()
    # then
    assert caplog.messages == [
        "call client:1 of add(): received",
        "call client:2: received",
        "call client:1 of add(): started +2.0000 s",
    ]


def test_after_the_last_station_nothing_is_remembered(caplog: pytest.LogCaptureFixture) -> None:
    # given
    stations = Stations(log, Clock())
    stations.note("received", "client:1", "add")
    assert stations.remembered == 1
    # when
    stations.note("acknowledged", "client:1", last=True)
    # then
    assert stations.remembered == 0
    stations.note("received", "client:1")
    stations.log()
    assert caplog.messages[1:] == [
        "call client:1 of add(): acknowledged +0.0000 s",
        "call client:1: received",
    ]


def test_the_calls_that_came_first_are_forgotten_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    monkeypatch.setattr(stations_module, "_MAX_CALLS", 2)
    stations = Stations(log, Clock())
    # when
    for number in (1, 2, 3):
        stations.note("received", f"client:{number}")
    # then
    assert stations.remembered == 2
    for number in (2, 3, 1):
        stations.note("started", f"client:{number}")
    stations.log()
    assert caplog.messages[3:] == [
        "call client:2: started +0.0000 s",
        "call client:3: started +0.0000 s",
        "call client:1: started",
    ]


def test_ten_thousand_calls_are_remembered_at_most() -> None:
    stations = Stations(log, Clock())

    for number in range(10_050):
        stations.note("received", f"client:{number}")

    assert stations.remembered == 10_000


def test_a_call_without_an_id_is_logged_and_not_remembered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stations = Stations(log, Clock())

    for _ in range(2):
        stations.note("received", None)
    stations.log()

    assert caplog.messages == ["a call without an id: received"] * 2
    assert stations.remembered == 0


def test_what_comes_from_elsewhere_is_printable_and_short(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stations = Stations(log, Clock())

    stations.note("received", "x\n" + "y" * 10_000, "z\x1b" + "z" * 10_000)
    stations.log()

    [line] = caplog.messages
    assert line.isprintable()
    assert line.startswith(r"call x\ny")
    assert len(line) < 1100


def test_filters_and_formatters_find_the_parts_in_the_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    stations = Stations(log, clock)

    stations.note("received", "client:1")
    stations.log()

    record: Any = caplog.records[0]
    assert record.levelno == logging.DEBUG
    assert (record.qam_station, record.qam_correlation_id) == ("received", "client:1")
    assert record.qam_at == clock.now


def test_each_station_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    stations = Stations(log, Clock())
    stations.note("received", "client:1")
    assert stations.has_unlogged

    stations.log()
    stations.log()

    assert caplog.messages == ["call client:1: received"]
    assert not stations.has_unlogged


def test_one_who_logs_is_not_kept_by_those_who_note_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given stations of which each line that is logged brings another
    stations = Stations(log, Clock())

    class Noting(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            stations.note("received", None)
            return True

    noting = Noting()
    log.addFilter(noting)
    stations.note("received", None)
    # when
    try:
        stations.log()
    finally:
        log.removeFilter(noting)
    # then
    assert len(caplog.messages) == 1
    assert stations.has_unlogged


def test_another_thread_may_log_what_this_one_was_about_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given two lines, of which the second is logged by another one in the middle of the first
    stations = Stations(log, Clock())

    class Another(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            stations.log()
            return True

    another = Another()
    log.addFilter(another)
    stations.note("received", "client:1")
    stations.note("received", "client:2")
    # when
    try:
        stations.log()
    finally:
        log.removeFilter(another)
    # then
    assert sorted(caplog.messages) == ["call client:1: received", "call client:2: received"]
