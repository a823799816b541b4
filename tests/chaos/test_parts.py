"""The parts of the soak that its verdict rests on: what they write is what was."""

import functools
import random
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qam import QAMTimeoutException
from tests.chaos.calls import METHODS, Call, answer_to, draw_call
from tests.chaos.children import Child
from tests.chaos.client import Book, threads_left
from tests.chaos.faults import FAULTS, draw_fault, draw_pause
from tests.chaos.journal import Entry, Journal, read_journal
from tests.chaos.outcomes import (
    HUNG,
    RAISED_AS_IT_SHOULD,
    RIGHT,
    WRONG,
    Outcome,
    of_exception,
    of_value,
    read_outcomes,
)
from tests.chaos.part import Part
from tests.chaos.server import Methods

WORK = Call("mine", "sync", "work", 0.0)
FAIL = Call("mine", "sync", "fail", 0.0)


# --- outcomes -------------------------------------------------------------------------------------


def test_only_the_answer_to_its_own_token_is_right() -> None:
    assert of_value(WORK, answer_to("mine"), 0.1).outcome == RIGHT
    assert of_value(WORK, answer_to("another"), 0.1).outcome == WRONG
    assert of_value(WORK, None, 0.1).outcome == WRONG
    assert of_value(FAIL, answer_to("mine"), 0.1).outcome == WRONG


def test_only_the_exception_of_its_own_method_and_token_is_as_it_should_be() -> None:
    assert of_exception(FAIL, ValueError("mine"), 0.1).outcome == RAISED_AS_IT_SHOULD
    assert of_exception(FAIL, ValueError("another"), 0.1).outcome == WRONG
    assert of_exception(FAIL, TypeError("mine"), 0.1).outcome == WRONG
    assert of_exception(WORK, ValueError("mine"), 0.1).outcome == WRONG


def test_an_error_of_the_library_is_named_with_what_it_says() -> None:
    error = QAMTimeoutException("too late", executed="no")
    outcome = of_exception(WORK, error, 60.0)
    assert (outcome.outcome, outcome.executed, outcome.text) == (
        "QAMTimeoutException",
        "no",
        "too late",
    )


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with closing(Book(tmp_path / "outcomes")) as book:
        yield book


def answered(call: Call) -> Callable[[float], Outcome]:
    return functools.partial(of_value, call, answer_to(call.token))


def written(folder: Path) -> list[str]:
    return [each.outcome for each in read_outcomes(folder / "outcomes")]


def test_what_a_client_writes_can_be_read(tmp_path: Path, book: Book) -> None:
    assert book.begin(WORK)
    outcome = book.end(WORK, functools.partial(of_value, WORK, "a\nb"))
    assert read_outcomes(tmp_path / "outcomes") == [outcome]
    assert read_outcomes(tmp_path / "absent") == []


def test_a_call_that_has_not_ended_in_time_is_written_as_hung_and_stays_so(
    tmp_path: Path, book: Book
) -> None:
    book.begin(WORK)
    # when
    assert not book.wait_for_all(0.01)
    book.end(WORK, answered(WORK))
    # then
    assert written(tmp_path) == [HUNG]


def test_a_call_that_ends_when_no_more_begin_is_waited_for(tmp_path: Path, book: Book) -> None:
    book.begin(WORK)
    timer = threading.Timer(0.05, book.end, [WORK, answered(WORK)])
    timer.start()
    # when
    assert book.wait_for_all(20)
    # then
    assert written(tmp_path) == [RIGHT]
    assert not book.begin(FAIL)


def test_a_call_that_ends_twice_is_written_twice(tmp_path: Path, book: Book) -> None:
    book.begin(WORK)
    book.end(WORK, answered(WORK))
    book.wait_for_all(20)
    book.end(WORK, answered(WORK))
    assert written(tmp_path) == [RIGHT, RIGHT]


def test_a_thread_that_is_left_is_named() -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="left over")
    thread.start()
    assert "left over" in threads_left(0.01)
    go_on.set()
    thread.join()
    assert "left over" not in threads_left(0.01)


# --- the journal ----------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal", started=0.0)) as journal:
        yield journal


def events(path: Path, token: str) -> list[str]:
    return [entry.event for entry in read_journal(path)[token]]


def test_a_method_is_in_the_journal_from_its_begin_to_its_end(
    tmp_path: Path, journal: Journal
) -> None:
    with journal.run("mine"):
        assert events(tmp_path / "journal", "mine") == ["begin"]
    assert events(tmp_path / "journal", "mine") == ["begin", "end"]


def test_several_writers_share_a_journal(tmp_path: Path, journal: Journal) -> None:
    with (
        closing(Journal(tmp_path / "journal", started=0.0)) as other_journal,
        journal.run("mine"),
        other_journal.run("other"),
    ):
        pass
    assert events(tmp_path / "journal", "mine") == events(tmp_path / "journal", "other")


def test_an_entry_reads_as_token_process_and_event() -> None:
    assert str(Entry("mine", 4711, "begin", 1.25)) == "mine 4711 begin 1.250"


def test_the_methods_of_a_server_do_what_their_calls_are_judged_by(
    tmp_path: Path, journal: Journal
) -> None:
    methods = Methods(journal)
    assert methods.work("one", 0.0) == answer_to("one")
    assert methods.again("two", 0.0) == answer_to("two")
    with pytest.raises(ValueError, match="three"):
        methods.fail("three")
    for token in ("one", "two", "three"):
        assert events(tmp_path / "journal", token) == ["begin", "end"]


# --- what is drawn --------------------------------------------------------------------------------


def drawn(draw: Callable[[random.Random], Any], seed: int, count: int = 300) -> list[Any]:
    generator = random.Random(seed)
    return [draw(generator) for _ in range(count)]


@pytest.mark.parametrize("draw", [draw_fault, draw_pause, lambda r: draw_call(r, "t", "sync")])
def test_the_same_seed_draws_the_same(draw: Callable[[random.Random], Any]) -> None:
    assert drawn(draw, 7) == drawn(draw, 7)
    assert drawn(draw, 7) != drawn(draw, 8)


def test_every_fault_and_every_method_is_drawn() -> None:
    assert set(drawn(draw_fault, 7)) == set(FAULTS)
    assert {call.method for call in drawn(lambda r: draw_call(r, "t", "sync"), 7)} == set(METHODS)


def test_at_most_every_fifth_fault_is_a_kill_of_the_broker() -> None:
    counts = Counter({fault.name: fault.weight for fault in FAULTS})
    assert 0 < counts["broker killed and restarted"] <= counts.total() / 5


def test_pauses_are_between_one_second_and_eight() -> None:
    assert all(1 <= pause <= 8 for pause in drawn(draw_pause, 7))


# --- processes ------------------------------------------------------------------------------------

BEGINNING = """
import os, signal, sys, time
def ready(): print("ready", os.getpid(), flush=True)
"""
SLEEPER = "ready(); time.sleep(60)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    """Starts a process that runs some code, which has to say that it is `ready()`."""
    children: list[Child] = []

    def start(code: str) -> Child:
        part = Part("server-1", port=0, folder=str(tmp_path), started=time.time(), seed=7)
        child = Child(part, ["-c", BEGINNING + textwrap.dedent(code)])
        children.append(child)
        child.wait_until_ready()
        return child

    yield start
    for child in children:
        child.destroy()


def wait_until_it_has_ended(child: Child) -> None:
    deadline = time.monotonic() + 20
    while child.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("ask", [Child.ask_to_end, Child.kill])
def test_a_process_that_ends_without_being_asked_ends_badly(
    start: Callable[[str], Child], ask: Callable[[Child], None]
) -> None:
    child = start("ready()")
    wait_until_it_has_ended(child)
    ask(child)
    assert child.bad_end == "ended without being asked, with exit code 0"


def test_a_process_that_ends_when_asked_ends_well(start: Callable[[str], Child]) -> None:
    child = start("signal.signal(15, lambda *_: sys.exit()); ready(); signal.pause()")
    child.ask_to_end()
    child.wait_for_end(time.monotonic() + 20)
    assert child.bad_end is None


def test_a_process_that_fails_when_asked_to_end_ends_badly(start: Callable[[str], Child]) -> None:
    child = start("signal.signal(15, lambda *_: sys.exit(3)); ready(); signal.pause()")
    child.ask_to_end()
    child.wait_for_end(time.monotonic() + 20)
    assert child.bad_end == "ended with exit code 3, after SIGTERM"


def test_a_process_that_does_not_end_when_asked_ends_badly(start: Callable[[str], Child]) -> None:
    child = start("signal.signal(15, signal.SIG_IGN); " + SLEEPER)
    child.ask_to_end()
    child.wait_for_end(time.monotonic() + 0.1)
    assert child.bad_end == "had not ended when its time was up, after SIGTERM"
    assert not child.alive


def test_a_process_that_was_killed_has_not_ended_badly(start: Callable[[str], Child]) -> None:
    child = start(SLEEPER)
    child.kill()
    assert child.bad_end is None
    assert not child.alive


def test_a_process_that_is_stopped_goes_on_when_told(start: Callable[[str], Child]) -> None:
    child = start("signal.signal(15, lambda *_: sys.exit()); ready(); signal.pause()")
    child.stop()
    child.ask_to_end()
    time.sleep(0.1)
    assert child.alive
    child.go_on()
    child.wait_for_end(time.monotonic() + 20)
    assert child.bad_end is None


def test_a_process_that_is_stopped_can_be_killed(start: Callable[[str], Child]) -> None:
    child = start(SLEEPER)
    child.stop()
    child.kill()
    assert not child.alive


def test_a_process_that_does_not_start_is_shown_with_its_words(tmp_path: Path) -> None:
    part = Part("server-1", port=0, folder=str(tmp_path), started=time.time(), seed=7)
    child = Child(part, ["-c", "import sys; sys.exit('no broker')"])
    with pytest.raises(RuntimeError, match="no broker"):
        child.wait_until_ready()
    assert not child.alive


def test_errors_that_the_library_logs_go_to_stderr_and_the_rest_to_the_file(
    tmp_path: Path, start: Callable[[str], Child]
) -> None:
    part = Part("client-1", port=0, folder=str(tmp_path), started=time.time(), seed=7)
    code = f"""
        import logging
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.chaos.part import Part
        Part(**{vars(part)!r}).set_up_logging()
        log = logging.getLogger("qam.qam_proxy")
        log.warning("lost")
        log.error("died")
        ready()
    """
    child = start(code)
    wait_until_it_has_ended(child)
    assert "died" in (text := child.part.stderr.read_text())
    assert "lost" not in text
    assert {"lost", "died"} <= set(part.log.read_text().split())


def test_a_part_is_told_to_a_process_as_one_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part("server-1", port=5672, folder=str(tmp_path), started=1.5, seed=7)
    monkeypatch.setattr(sys, "argv", ["program", part.as_argument()])
    assert Part.from_command_line() == part
