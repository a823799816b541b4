"""The page about debugging shows what is logged, and explains each station and each thread."""

import ast
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import qam
from qam import QAMProxy, QAMServer
from qam._common.logs import flush
from qam._protocol.entities import (
    presence_binding,
    reply_binding,
    request_binding,
    siblings_binding,
)
from tests.conftest import Broker
from tests.support.waiting import finish, until
from tests.support.watched_calls import CLIENT, SERVER, WatchedCalls, watching

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/topics/debugging.md").read_text(encoding="utf-8")
LOGS = re.findall(r"^The log of the (?:client|server):\n\n```text\n(.*?)^```$", PAGE, re.M | re.S)
REPRS = re.findall(r"^<.*>$", PAGE, re.M)
# The first cells of rows: names of stations, of threads, of queues.
NAMES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.M)
# Functions to which the name of a station is given.
_NOTING = {"note", "_note", "_log_station"}


def as_it_is_each_time(log: str) -> str:
    """*log* without what differs from call to call: times and ids."""
    log = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", "", log, flags=re.M)
    log = re.sub(r"\.[0-9a-f]{32}:\d+", ".<unique>:<number>", log)
    return re.sub(r"\+\d+\.\d{4} s$", "+<seconds> s", log, flags=re.M)


def stations_in(source: str) -> Iterator[str]:
    """The names of stations in *source*: what is given to who notes, and a table of them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = node.args if node.func.attr in _NOTING else []
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            is_table = names == ["_AFTER_FATE"] and isinstance(node.value, ast.Dict)
            given = node.value.values if is_table else [node.value] if names == ["name"] else []
        else:
            continue
        for each in given:
            if not isinstance(each, (ast.Constant, ast.IfExp)):
                continue
            for part in ast.walk(each):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value:
                    yield part.value


STATIONS = {
    name
    for part in ("_client", "_server")
    for path in (Path(qam.__file__).parent / part).glob("*.py")
    for name in stations_in(path.read_text(encoding="utf-8"))
}


def test_the_logs_of_the_page_are_those_of_a_good_call(broker: Broker, server_id: str) -> None:
    # given a method that takes longer than the broker takes to confirm its request
    go_on = threading.Event()

    def report(year: int) -> str:
        assert go_on.wait(60)
        return f"all of {year}"

    def shown(calls: WatchedCalls, side: str) -> str:
        formatter = logging.Formatter("%(asctime)s %(name)s: %(message)s")
        lines = [formatter.format(each) for each in calls.in_order() if each.name == side]
        return "".join(f"{line}\n" for line in lines)

    with (
        QAMServer(server_id=server_id, **broker.kwargs) as server,
        QAMProxy(server_id, client_id="accounts", timeout=60, **broker.kwargs) as proxy,
        watching() as calls,
    ):
        server.register_function(report)
        server.start()
        # when it is called
        results: list[str] = []
        proxy.callback(results.append).report(2026)
        until(lambda: "confirmed" in shown(calls, CLIENT))
        go_on.set()
        finish(proxy)
        until(lambda: "acknowledged" in shown(calls, SERVER))

        # then
        flush(60)
        logs = [shown(calls, side) for side in (CLIENT, SERVER)]
    assert results == ["all of 2026"]
    assert [as_it_is_each_time(log) for log in logs] == [as_it_is_each_time(log) for log in LOGS]


def test_the_lines_of_both_sides_have_the_same_id() -> None:
    assert len(set(re.findall(r"call (\S+:\d+)", "".join(LOGS)))) == 1


def test_each_station_is_explained() -> None:
    assert len(STATIONS) > 10
    assert STATIONS - set(NAMES) == set()


def test_each_station_that_is_explained_exists() -> None:
    explained = re.findall(r"### The stations of the .*?(?=\n### |\n## )", PAGE, re.S)

    names = set(re.findall(r"^\| `([^`]+)` \|", "\n".join(explained), re.M))

    # What follows the word "ended" on the client is for the next test.
    assert {name for name in names if not name.startswith("ended ")} == STATIONS


def test_each_way_a_call_ends_is_one_of_the_page() -> None:
    source = (ROOT / "qam/_client/consumer_thread.py").read_text(encoding="utf-8")

    for how in ("with a result", "by an exception from the server"):
        assert f'"{how}"' in source
        assert f"ended {how}" in NAMES


def test_the_last_stations_of_the_table_are_stations() -> None:
    (table,) = re.findall(r"^\| last station of the client .*?(?=\n\n)", PAGE, re.M | re.S)
    rows = [row.split(" | ")[:2] for row in table.splitlines()[2:]]
    cells = {cell.strip("| ") for row in rows for cell in row} - {"none", ""}

    assert {cell.strip("`") for cell in cells} <= STATIONS
    assert len(rows) == 9


def test_the_threads_of_the_page_are_those_that_there_are(broker: Broker, server_id: str) -> None:
    before = set(threading.enumerate())
    with (
        QAMServer(server_id=server_id, **broker.kwargs) as server,
        QAMProxy(server_id, client_id="accounts", timeout=60, **broker.kwargs) as proxy,
    ):
        server.register_function(lambda: None, name="nothing")
        server.start()
        proxy.callback(lambda result: None).nothing()
        finish(proxy)
        names = {thread.name for thread in set(threading.enumerate()) - before}

    named = {re.sub(r" <.*", "", name) for name in NAMES if name.startswith("qam ")}
    of_library = {re.sub(rf" ({server_id}|accounts)\b.*", "", name) for name in names}
    assert named == {name for name in of_library if name.startswith("qam ")}


def test_the_reprs_of_the_page_are_those_of_the_library(server_id: str) -> None:
    place = f"memory://{server_id}"
    with (
        QAMServer(place, server_id="reports") as server,
        QAMProxy("reports", place, client_id="accounts") as proxy,
    ):
        server.start()
        shown = [repr(proxy), repr(server)]

    def form(text: str) -> str:
        return re.sub(r"\d+", "N", re.sub(r" at .*?(, as |, connected)", r" at PLACE\1", text))

    assert [form(text) for text in shown] == [form(text) for text in REPRS]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        (request_binding("SERVER").queue, "<server_id>_server_queue"),
        (reply_binding("SERVER", "CLIENT.1").queue, "<client_id>.…_client_queue"),
        (siblings_binding("SERVER", "1").queue, "<server_id>_server_siblings_queue.…"),
        (presence_binding("SERVER").queue, "<server_id>_server_presence_queue"),
    ],
)
def test_the_queues_of_the_page_are_named_so(name: str, pattern: str) -> None:
    assert pattern in NAMES
    as_shown = pattern.replace("<server_id>", "SERVER").replace("<client_id>", "CLIENT")
    assert name == as_shown.replace("…", "1")
