"""One proxy, made before the fork, serves the master and each worker."""

import multiprocessing
import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qam import QAMProxy
from tests.support.rabbitmq import RabbitMQNode, free_ports
from tests.support.service import serving
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
CALLS, WORKERS = 400, 4


def _answer(url: str) -> tuple[str, str]:
    with urllib.request.urlopen(url, timeout=60) as response:
        result, pid = response.read().decode().split()
    return result, pid


def _answers(port: int) -> bool:
    try:
        return _answer(f"http://127.0.0.1:{port}/1/1")[0] == "2"
    except OSError:
        return False


@pytest.mark.web
@pytest.mark.parametrize("used_in_master", ["", "yes"], ids=["unused", "used in the master"])
def test_gunicorn_forks_workers_that_each_begin_anew(
    rabbitmq_node: RabbitMQNode, server_id: str, used_in_master: str
) -> None:
    # given
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "SERVER_ID": server_id,
        "BROKER": rabbitmq_node.url,
        "USE_IN_MASTER": used_in_master,
    }
    command = ["gunicorn", "--preload", "-w", str(WORKERS), "-b", f"127.0.0.1:{port}"]
    program = [sys.executable, "-m", *command, "tests.web.application:application"]
    with serving(
        server_id=server_id, hostname=rabbitmq_node.host, port=rabbitmq_node.port
    ) as service:
        gunicorn = subprocess.Popen(program, cwd=ROOT, env=environment)
        try:
            until(lambda: gunicorn.poll() is not None or _answers(port))
            # when
            urls = [f"http://127.0.0.1:{port}/{number}/{number}" for number in range(CALLS)]
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(_answer, urls))
        finally:
            gunicorn.send_signal(signal.SIGTERM)
            assert gunicorn.wait(60) == 0
    # then
    assert [result for result, _ in answers] == [str(2 * number) for number in range(CALLS)]
    assert len({pid for _, pid in answers}) > 1
    assert len(service.runs) >= CALLS


proxy: QAMProxy | None = None


def _begin(server_id: str, url: str) -> None:
    global proxy
    proxy = proxy or QAMProxy(server_id, url, connect=False, timeout=60)


def _double(number: int) -> int:
    assert proxy is not None
    result: int = proxy.add(number, number)
    return result


@pytest.mark.web
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(rabbitmq_node: RabbitMQNode, server_id: str, method: str) -> None:
    place = (server_id, rabbitmq_node.url)
    with serving(server_id=server_id, hostname=rabbitmq_node.host, port=rabbitmq_node.port):
        _begin(*place)
        try:
            assert _double(1) == 2, "in the parent"
            context = multiprocessing.get_context(method)
            with context.Pool(WORKERS, _begin, place) as pool:
                assert pool.map(_double, range(CALLS)) == [2 * each for each in range(CALLS)]
            assert _double(2) == 4, "in the parent again"
        finally:
            assert proxy is not None
            proxy.close()
            globals()["proxy"] = None
