"""A server under a supervisor, as the unit of the page says, and the other steps of that page."""

import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from qam import (
    QAMConnectionException,
    QAMMethodNotFoundException,
    QAMProxy,
    QAMServer,
    QAMServerLostException,
)
from tests.support.forwarder import Forwarder
from tests.support.rabbitmq import RabbitMQNode, free_ports, queue_type
from tests.support.supervisor import Supervisor
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "examples" / "deploy"
CALLERS = 4
#: What the service serves: each run is noted.
SOURCE = """
import time

def double(number):
    with open("runs", "a") as runs:
        runs.write(f"{number}\\n")
    time.sleep(0.01)
    return 2 * number
"""


def environment(**more: str) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}


@pytest.fixture
def unit(tmp_path: Path, rabbitmq_node: RabbitMQNode, server_id: str) -> str:
    """The unit, moved into a folder that has what the page says."""
    (tmp_path / "broker").write_text(f"QAM_BROKER_URL={rabbitmq_node.url}\n", encoding="utf-8")
    (tmp_path / "stock.py").write_text(SOURCE, encoding="utf-8")
    qam = tmp_path / ".venv" / "bin" / "qam"
    qam.parent.mkdir(parents=True)
    qam.write_text(f'#!/bin/sh\nexec {sys.executable} -m qam "$@"\n', encoding="utf-8")
    qam.chmod(0o755)
    text = (DEPLOY / "qamserver.service").read_text(encoding="utf-8")
    text = text.replace("/srv/stock", str(tmp_path)).replace("/etc/stock", str(tmp_path))
    return text.replace("serve stock", f"serve stock --server-id {server_id}")


class Load:
    """Calls without a pause, by several threads, until it is told to end."""

    def __init__(self, server_id: str, node: RabbitMQNode) -> None:
        self._proxy = QAMProxy(server_id, node.url, timeout=120, wait_for_server=120)
        self._numbers = iter(range(10**6))
        self._lock, self._enough = threading.Lock(), threading.Event()
        self.outcomes: dict[int, Any] = {}
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def _call(self) -> None:
        while not self._enough.is_set():
            with self._lock:
                number = next(self._numbers)
            try:
                self.outcomes[number] = self._proxy.double(number)
            except Exception as error:
                self.outcomes[number] = error

    def take_lost(self) -> dict[int, Any]:
        """Remove and return those of which nobody can tell whether they ran."""
        lost = {
            number: outcome
            for number, outcome in self.outcomes.items()
            if isinstance(outcome, QAMServerLostException)
        }
        self.outcomes = {each: self.outcomes[each] for each in self.outcomes.keys() - lost}
        return lost

    def wait_for_more(self, calls: int = 50) -> None:
        """Return when so many more calls have ended."""
        enough = len(self.outcomes) + calls
        until(lambda: len(self.outcomes) >= enough)

    def __enter__(self) -> "Load":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._enough.set()
        for each in self._threads:
            each.join()
        self._proxy.close()


@pytest.mark.parametrize("servers", [1, 2])
def test_a_service_that_is_restarted_under_load_loses_no_call(
    unit: str, servers: int, tmp_path: Path, rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    def all_serve() -> bool:
        return rabbitmq_node.consumers(f"{server_id}_server_queue") == servers

    # given
    with ExitStack() as stack:
        services = [stack.enter_context(Supervisor(unit, environment())) for _ in range(servers)]
        load = stack.enter_context(Load(server_id, rabbitmq_node))
        load.wait_for_more()
        # when
        for each in services * 2:
            until(all_serve)
            each.restart()
            load.wait_for_more()
        until(all_serve)
    # then
    assert len(load.outcomes) >= 50 * (1 + 2 * servers)
    lost = load.take_lost()
    assert not lost or queue_type() == "quorum"  # row 10 of the guarantees says which
    assert load.outcomes == {number: 2 * number for number in load.outcomes}
    runs = Counter((tmp_path / "runs").read_text(encoding="utf-8").split())
    assert runs == {str(number): 1 for number in load.outcomes | lost if str(number) in runs}
    assert runs.keys() >= {str(number) for number in load.outcomes}
    assert [each.exit_codes for each in services] == [[0, 0, 0]] * servers
    assert sum(each.killed for each in services) == 0


# --- health over HTTP ---------------------------------------------------------------------


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


@contextmanager
def program(path: Path, **more: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, path], cwd=path.parent, env={**os.environ, **environment(**more)}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_server_tells_its_health_over_http(way: Forwarder) -> None:
    (port,) = free_ports(1)
    url = f"amqp://guest:guest@{way.host}:{way.port}//"
    with program(
        DEPLOY / "health_over_http.py", QAM_BROKER_URL=url, HEALTH_PORT=str(port)
    ) as server:
        # given
        until(lambda: answer(port, "/ready") == (200, "ok\n"))
        assert answer(port, "/live") == (200, "ok\n")
        # when the broker goes away
        way.refuse()
        way.cut()
        # then it is not ready, and lives
        until(lambda: answer(port, "/ready")[0] == 503)
        why = answer(port, "/ready")[1]
        assert "no requests" in why or "replies" in why
        assert answer(port, "/live")[0] == 200
        # and again, when the broker is back
        way.accept()
        until(lambda: answer(port, "/ready") == (200, "ok\n"))
        server.terminate()
        assert server.wait(60) == 0


# --- upgrades -------------------------------------------------------------------------------


def test_a_request_for_a_new_method_may_reach_an_old_server(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    with (
        QAMServer(rabbitmq_node.url, server_id=server_id) as old,
        QAMProxy(server_id, rabbitmq_node.url, timeout=60) as proxy,
    ):
        old.start()
        with pytest.raises(QAMMethodNotFoundException) as raised:
            proxy.brand_new()
    assert raised.value.executed == "no"


CLASSIC, QUORUM = {"x-queue-type": "classic"}, {"x-queue-type": "quorum"}


def test_a_server_with_other_queue_arguments_is_refused(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    with (
        QAMServer(rabbitmq_node.url, server_id=server_id, queue_arguments=CLASSIC),
        pytest.raises(QAMConnectionException, match="can't be declared with these arguments"),
    ):
        QAMServer(rabbitmq_node.url, server_id=server_id, queue_arguments=QUORUM)


def test_an_id_is_moved_to_a_quorum_queue_and_an_open_proxy_goes_on(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    url, queue = rabbitmq_node.url, f"{server_id}_server_queue"
    with QAMProxy(server_id, url, timeout=60, wait_for_server=60) as proxy:
        # given
        with QAMServer(url, server_id=server_id, queue_arguments=CLASSIC) as classic:
            classic.register_function(pow)
            classic.start()
            assert proxy.pow(2, 3) == 8
        # when
        rabbitmq_node.delete_queue(queue)
        with suppress(RuntimeError):  # on a slow machine it has expired meanwhile
            rabbitmq_node.delete_queue(f"{server_id}_server_presence_queue")
        with QAMServer(url, server_id=server_id, queue_arguments=QUORUM) as quorum:
            quorum.register_function(pow)
            quorum.start()
            # then
            assert proxy.pow(2, 4) == 16
            with pytest.raises(QAMConnectionException, match="x-queue-type"):
                QAMServer(url, server_id=server_id, queue_arguments=CLASSIC)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_queue_with_requests_in_it_is_not_deleted(
    rabbitmq_node: RabbitMQNode, server_id: str, kind: str
) -> None:
    queue, arguments = f"{server_id}_server_queue", {"x-queue-type": kind}
    with QAMServer(rabbitmq_node.url, server_id=server_id, queue_arguments=arguments):
        with QAMProxy(server_id, rabbitmq_node.url) as proxy:
            proxy.callback(None).waits_for_a_server()
            until(lambda: rabbitmq_node.queues()[queue] == 1)
        # when
        with suppress(RuntimeError):  # for a quorum queue some versions refuse with the exit code 0
            rabbitmq_node.ctl("delete_queue", queue, "--if-empty")
        # then
        assert rabbitmq_node.queues()[queue] == 1
