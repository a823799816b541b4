"""The benchmark works when it is needed; nothing here is about how fast anything is."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.benchmarks import by_handles, page, published
from tests.benchmarks.contestants import CONTESTANTS, Contestant
from tests.benchmarks.contract import NotOffered, Window
from tests.benchmarks.figures import cost_ratio, enough_calls, median, percentile
from tests.benchmarks.measures import MEASURES, Taken
from tests.benchmarks.options import parse
from tests.benchmarks.place import Place
from tests.benchmarks.plan import plan
from tests.benchmarks.processes import Failed, NotStarted, Side
from tests.benchmarks.report import number, report, table, times
from tests.benchmarks.results import Failure, Results

_ROOT = Path(__file__).parents[2]
_SYNC = MEASURES[0]
_NOWHERE = Place("localhost", 1, "nobody")


# --- figures ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (90, 90), (99, 99), (100, 100)]
)
def test_a_percentile_is_one_of_the_values(percent: float, expected: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == expected


def test_the_percentiles_of_one_value() -> None:
    assert [percentile([7.0], percent) for percent in (0, 50, 99)] == [7.0, 7.0, 7.0]


def test_a_median_leaves_out_the_rounds_that_failed() -> None:
    assert median([3.0, None, 1.0, 8.0]) == 3.0
    assert median([None, None]) is None


def test_a_cost_ratio_is_taken_within_each_round() -> None:
    # In the second round the machine was busy with something else, for both of them.
    assert cost_ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0], more_is_better=False) == 2.0


def test_half_as_many_calls_are_twice_as_dear() -> None:
    assert cost_ratio([500.0], [1000.0], more_is_better=True) == 2.0


def test_there_is_no_ratio_without_both() -> None:
    assert cost_ratio([None, 1.0], [1.0, None], more_is_better=False) is None
    assert cost_ratio([1.0], [], more_is_better=False) is None


def test_calls_last_as_long_as_they_should_within_bounds() -> None:
    assert enough_calls(0.001, 1.0, least=10, most=10_000) == 1_000
    assert enough_calls(0.001, 1.0, least=2_000, most=10_000) == 2_000
    assert enough_calls(0.001, 1.0, least=10, most=500) == 500
    assert enough_calls(0.001, 1.0, least=2_000, most=500) == 500
    assert enough_calls(0.0, 1.0, least=10, most=500) == 500


# --- the report ---------------------------------------------------------------


def test_a_table_is_aligned() -> None:
    assert table(["", "µs"], [["raw", "5"], ["qam", "1,000"]]) == (
        "|     |    µs |\n| --- | ----: |\n| raw |     5 |\n| qam | 1,000 |"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (1234.5, "1,234"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.0, "0.00"),
    ],
)
def test_numbers_are_as_long_as_they_mean_something(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_a_ratio_is_marked_as_one() -> None:
    assert (times(1.5), times(None)) == ("1.50x", "-")


def _results() -> Results:
    results = Results(versions={"raw": {"amqp": "5"}, "qam": {"qam": "1"}})
    for sample in (100.0, 300.0, 200.0):
        figures = {"sync p50": sample, "sync p90": 2 * sample, "sync p99": 3 * sample}
        results.add("raw", _SYNC, Taken(figures, [sample]))
        doubled = {name: 2 * value for name, value in figures.items()}
        results.add("qam", _SYNC, Taken(doubled, [2 * sample]))
    return results


def _row(name: str, text: str, which: int) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in lines[which].strip("|").split("|")]


def test_the_report_has_medians_and_ratios() -> None:
    text = report(_results(), ["raw", "qam"])
    assert _row("qam", text, 0)[:4] == ["qam", "400", "800", "1,200"]
    assert _row("qam", text, 1)[:4] == ["qam", "2.00x", "2.00x", "2.00x"]
    assert _row("raw", text, 1)[1] == "1.00x"


def test_the_report_changes_nothing() -> None:
    results = _results()
    report(results, ["raw", "qam"])
    assert not results.sweeps


def test_what_is_missing_is_in_the_report_with_its_reason() -> None:
    results = _results()
    results.add_nothing("raw", MEASURES[3], "no callbacks")
    results.failures += [Failure("nameko", "installation", "needs another Python")] * 2
    text = report(results, ["raw", "qam", "nameko"])
    assert "nameko (not installed)" in text
    assert text.count("FAILED        nameko, installation: needs another Python") == 1
    assert "polling: no callbacks (raw)" in text


def test_a_round_that_failed_keeps_its_place() -> None:
    results = _results()
    results.add_failures("qam", [_SYNC], "broke")
    results.add("qam", _SYNC, Taken(dict.fromkeys(_SYNC.columns, 1.0)))
    assert results.samples["qam"]["sync p50"] == [200.0, 600.0, 400.0, None, 1.0]
    assert [failure.error for failure in results.failures] == ["broke"]


def test_the_growth_of_costs_is_reported() -> None:
    results = _results()
    results.add_point("outstanding", "qam", 1_000, 3000.0)
    results.add_point("outstanding", "qam", 100_000, 2000.0)
    text = report(results, ["raw", "qam"])
    assert "100,000 to 1,000 outstanding" in text
    assert "1.50" in text


# --- what is published --------------------------------------------------------


def _published(*options: str) -> dict[str, Any]:
    results = _results()
    results.broker = "RabbitMQ 3"
    results.add_point("threads", "qam", 16, 3000.0)
    return published.published(parse(["--contestants", "raw,qam", *options]), results)


def test_what_is_published_is_read_as_it_was_written(tmp_path: Path) -> None:
    data = _published()

    published.write(data, tmp_path / "figures")

    assert published.read(tmp_path / "figures") == json.loads(json.dumps(data))


def test_the_tables_of_what_is_published_are_those_of_the_run(tmp_path: Path) -> None:
    published.write(_published(), tmp_path)

    again = published.results_of(published.read(tmp_path))

    assert report(again, ["raw", "qam"]) == report(_with_a_point(), ["raw", "qam"])


def _with_a_point() -> Results:
    results = _results()
    results.add_point("threads", "qam", 16, 3000.0)
    return results


def test_a_distribution_takes_the_place_of_single_latencies() -> None:
    distribution = _published()["distributions"]["raw"]["sync"]

    assert len(distribution) == len(published.PERCENTS)
    assert (distribution[0], distribution[49], distribution[-1]) == (100.0, 200.0, 300.0)


def test_the_figures_of_a_page_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    # given
    file = tmp_path / "page.md"
    marks = "<!-- figures: rates -->\nold\n<!-- end of rates -->"
    file.write_text(f"before\n{marks}\nbetween\n<!-- figures: costs -->\n<!-- end of costs -->\n")

    # when
    page.fill(file, {"rates": "new 1", "unknown": "nowhere"})

    # then
    text = file.read_text()
    assert page.part(text, "rates") == "new 1"
    assert page.part(text, "costs") == ""
    assert text.startswith("before\n")
    assert "\nbetween\n" in text
    assert "nowhere" not in text


def test_the_figures_of_a_page_have_the_cost_beside_the_reference() -> None:
    sections = page.sections_of(_published("--quick"))

    assert _row("qam", sections["waiting"], 0)[:2] == ["qam", "400 (2.00x)"]
    assert "RabbitMQ 3" in sections["measured"]
    assert "quick" in sections["measured"]


def test_a_page_says_that_the_machine_was_busy() -> None:
    quiet, busy = _published(), _published() | {"load_before": 100.0}

    assert "busy" not in page.sections_of(quiet)["measured"]
    assert "busy** (load average 100.0" in page.sections_of(busy)["measured"]


def test_who_has_none_of_the_figures_of_a_table_is_not_in_it() -> None:
    assert "qam" not in page.sections_of(_published())["costs"]


# --- the command line ---------------------------------------------------------


def test_without_options_everybody_is_measured() -> None:
    options = parse([])
    assert options.contestants == tuple(CONTESTANTS)
    assert (options.rounds, options.sizes.calls, options.quick) == (5, 1_000, False)


def test_the_reference_is_always_measured_and_first() -> None:
    assert parse(["--contestants", "kombu, qam"]).contestants == ("raw", "qam", "kombu")


def test_quick_is_less_of_each() -> None:
    assert parse(["--quick"]).rounds < parse([]).rounds
    assert parse(["--quick"]).sizes.calls < parse([]).sizes.calls
    assert parse(["--quick", "--rounds", "7", "--calls", "9"]).rounds == 7
    assert parse(["--quick", "--rounds", "7", "--calls", "9"]).sizes.calls == 9


@pytest.mark.parametrize(
    "arguments", [["--contestants", "nobody"], ["--rounds", "0"], ["--calls", "many"]]
)
def test_options_without_sense_end_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_each_round_measures_everybody_once() -> None:
    contestants = [CONTESTANTS["raw"], CONTESTANTS["qam"]]
    titles = [task.title for task in plan(parse(["--quick", "--rounds", "2"]), contestants)]
    assert titles == ["round 1, raw", "round 1, qam", "round 2, raw", "round 2, qam"]


# --- pipelining ---------------------------------------------------------------


def _play(calls: int, outstanding: int, result: int = 5) -> tuple[int, int]:
    """How many calls there were, and how many at most at the same time."""
    waiting: deque[int] = deque()
    window = Window(lambda: waiting.append(result), calls, outstanding)
    window.open()
    made, most = 0, len(waiting)
    while not window.ended:
        window.on_result(waiting.popleft())
        made, most = made + 1, max(most, len(waiting))
    assert not waiting
    return made, most


@pytest.mark.parametrize(("calls", "outstanding"), [(1, 1), (10, 3), (10, 10), (3, 10)])
def test_a_window_slides(calls: int, outstanding: int) -> None:
    assert _play(calls, outstanding) == (calls, min(calls, outstanding))


def test_a_wrong_result_ends_a_window() -> None:
    with pytest.raises(AssertionError, match="returned 6"):
        _play(10, 3, result=6)


def test_a_window_may_be_filled_by_other_threads() -> None:
    window = Window(
        lambda: threading.Thread(target=window.on_result, args=(5,)).start(), 50, outstanding=5
    )
    window.open()
    window.wait()


def test_a_call_that_failed_ends_a_window() -> None:
    window = Window(lambda: window.on_error(ValueError("no")), 10, 3)
    window.open()
    with pytest.raises(ValueError, match="no"):
        window.wait()


def test_handles_are_waited_for_in_their_order() -> None:
    begun: list[int] = []
    most = 0

    def begin() -> int:
        begun.append(len(begun))
        return begun[-1]

    def wait(handle: int) -> int:
        nonlocal most
        most = max(most, len(begun) - handle)
        return 5

    by_handles.pipeline(begin, wait, calls=10, outstanding=4)
    assert (len(begun), most) == (10, 4)


# --- processes ----------------------------------------------------------------


class Client:
    """A client of nothing, for a process of the benchmark to be tried with: see `_SELF`."""

    shared_by_threads = True

    def __init__(self, place: Place, variant: str) -> None:
        assert variant != "broken", "no such luck"

    def add(self, a: int, b: int) -> int:
        print("what a library prints")  # is not taken for an answer
        return a + b

    def echo(self, payload: bytes) -> bytes:
        return payload[:-1]

    def pipeline(self, calls: int, outstanding: int) -> None:
        if calls == 1:
            sys.exit("my last words")
        raise NotOffered("not with me")

    def begin(self, calls: int) -> None:
        time.sleep(60)

    def close(self) -> None:
        pass


_SELF = Contestant("nothing", __name__)


@pytest.fixture
def side() -> Iterator[Side]:
    with Side("client", Path(sys.executable), _SELF, _NOWHERE) as side:
        yield side


def test_a_client_does_what_it_is_told(side: Side) -> None:
    assert len(side.do("sync", calls=3)) == 3
    assert len(side.do("beside_cpu_bound", calls=3, threads=2)) == 3
    assert side.do("threads", calls=8, threads=4) > 0
    assert side.cpu_seconds() > 0
    assert side.resident_bytes() > 0


def test_what_a_client_can_not_do_is_told_with_the_reason(side: Side) -> None:
    with pytest.raises(NotOffered, match="not with me"):
        side.do("pipeline", calls=2, outstanding=1)
    with pytest.raises(NotOffered, match="no state"):
        side.do("polling", calls=2)


def test_after_a_failure_a_client_goes_on(side: Side) -> None:
    with pytest.raises(Failed, match="AssertionError"):
        side.do("echo", calls=1, size=10)
    assert len(side.do("sync", calls=1)) == 1


def test_a_client_that_takes_too_long_is_given_up(side: Side) -> None:
    with pytest.raises(Failed, match="not answered"):
        side.do("begin", calls=1, within=0.2)


def test_a_client_that_ends_has_last_words(side: Side) -> None:
    with pytest.raises(Failed, match="ended: my last words"):
        side.do("pipeline", calls=1, outstanding=1)
    with pytest.raises(Failed, match="ended"):
        _look_for_ever(side)  # its output ends some moments before it does


def _look_for_ever(side: Side) -> None:
    while True:
        side.check_alive()


def test_a_client_that_does_not_start_says_why() -> None:
    broken = Contestant("nothing", __name__, "broken")
    with pytest.raises(NotStarted, match="no such luck"):  # noqa: SIM117
        with Side("client", Path(sys.executable), broken, _NOWHERE):
            pass


_A_DRIVER = """
import os, sys
from pathlib import Path
from tests.benchmarks import test_benchmarks as t
with t.Side("client", Path(sys.executable), t._SELF, t._NOWHERE) as side:
    print(side._process.pid, flush=True)
    side.do("begin", calls=1)
"""


def test_a_client_ends_with_its_driver_however_that_ends() -> None:
    command = [sys.executable, "-c", _A_DRIVER]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        client = psutil.Process(int(driver.stdout.readline()))
        driver.kill()
        driver.wait()
    client.wait(10)


# --- the whole ----------------------------------------------------------------


@pytest.mark.rabbitmq
def test_a_short_run_measures_everything(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    options = ["--quick", "--contestants", "raw,qam", "--rounds", "1", "--calls", "20"]
    command = [sys.executable, "-m", "tests.benchmarks", *options, "--json", str(file)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _row("raw", done.stdout, 1)[1] == "1.00x"
    recorded = json.loads(file.read_text())
    assert None not in recorded["medians"]["qam"].values()
    assert len(recorded["latencies"]["qam"]["sync"][0]) == 20
    assert recorded["machine"]["cpu_count"] == os.cpu_count()
    assert recorded["failures"] == []
