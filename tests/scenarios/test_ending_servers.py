"""How a server ends, and what it says of itself meanwhile."""

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qam
from qam import QAMProxy, QAMServer, QAMServerLostException, qam_server, submit
from qam.qam_server import Health
from tests.conftest import Broker
from tests.contract.test_readme import is_server, python_blocks
from tests.support.forwarder import Forwarder
from tests.support.rabbitmq import RabbitMQNode, queue_type
from tests.support.service import Service, make_server
from tests.support.waiting import until

LONG = 60.0


class Process:
    """A Python program that serves."""

    def __init__(self, code: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def say(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Its exit status."""
        try:
            return self._process.wait(LONG)
        finally:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def test_the_server_of_the_readme_loses_no_call_on_sigterm_under_load(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    # given two of them, one after the other
    (block,) = filter(is_server, python_blocks("README.md"))
    # on a busy machine, ten seconds may be few to connect in
    code = block.replace('"localhost"', f"{rabbitmq_node.url!r}, connect_timeout={LONG}")
    code = code.replace('"qamserver"', repr(server_id))
    name = next(word for word in ("add", "plus") if f"def {word}" in code)
    first = Process(code)
    with QAMProxy(server_id, rabbitmq_node.url, wait_for_server=LONG, timeout=LONG) as proxy:
        assert proxy[name](1, 2) == 3
        # when the first gets the signal in the middle of many calls
        futures = [submit(proxy[name], number, 1) for number in range(2000)]
        until(futures[50].done)
        first.signal(signal.SIGTERM)
        second = Process(code)
        try:
            # then
            lost = [
                each for each in futures if isinstance(each.exception(), QAMServerLostException)
            ]
            results = {each: each.result() for each in futures if each not in lost}
            first_status = first.end()
            assert proxy[name](1, 2) == 3  # so the second serves, which may have begun late
        finally:
            first.kill()
            second.signal(signal.SIGTERM)
            second_status = second.end()
    assert not lost or queue_type() == "quorum"  # row 10 of the guarantees says which
    assert results == {each: n + 1 for n, each in enumerate(futures) if each in results}
    assert (first_status, second_status) == (0, 0)


SLOW = """
    import time
    from qam import QAMServer

    server = QAMServer({url!r}, server_id={server_id!r})
    server.register_function(lambda: print("runs", flush=True) or time.sleep(1000), "sleep")
    server.register_function(lambda: print("runs", flush=True) or time.sleep(0.2), "nap")
    {before}
    server.serve({arguments})
    print("served", flush=True)
"""


def slow_server(
    node: RabbitMQNode, server_id: str, arguments: str = "", before: str = ""
) -> Process:
    code = SLOW.format(url=node.url, server_id=server_id, arguments=arguments, before=before)
    return Process(code)


def test_sigterm_lets_a_running_method_end_and_serve_returns(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    process = slow_server(rabbitmq_node, server_id)
    with QAMProxy(server_id, rabbitmq_node.url, wait_for_server=LONG, timeout=LONG) as proxy:
        future = submit(proxy.nap)
        assert process.say() == "runs"
        process.signal(signal.SIGTERM)
        assert future.result() is None
    assert process.say() == "served"
    assert process.end() == 0


def test_a_second_signal_ends_the_process_at_once(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    process = slow_server(rabbitmq_node, server_id)
    with QAMProxy(server_id, rabbitmq_node.url, wait_for_server=LONG) as proxy:
        future = submit(proxy.set_timeout(LONG).sleep)
        assert process.say() == "runs"
        process.signal(signal.SIGTERM)
        until(lambda: rabbitmq_node.consumers(f"{server_id}_server_queue") == 0)
        process.signal(signal.SIGTERM)
        assert process.end() == -signal.SIGTERM
        future.cancel()


def test_a_method_gets_the_time_that_serve_was_told(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    process = slow_server(rabbitmq_node, server_id, "close_timeout=0.1")
    with QAMProxy(server_id, rabbitmq_node.url, wait_for_server=LONG, timeout=LONG) as proxy:
        future = submit(proxy.sleep)
        assert process.say() == "runs"
        process.signal(signal.SIGTERM)
        with pytest.raises(qam.QAMServerLostException):
            future.result()
    assert process.say() == "served"
    assert process.end() == 0


@pytest.mark.parametrize(
    ("arguments", "before"),
    [
        ("stop_on=()", ""),
        ("", "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(7))"),
    ],
    ids=["nothing is handled", "the application handles it"],
)
def test_a_signal_that_is_not_the_servers_is_left_alone(
    rabbitmq_node: RabbitMQNode, server_id: str, arguments: str, before: str
) -> None:
    process = slow_server(rabbitmq_node, server_id, arguments, before)
    with QAMProxy(server_id, rabbitmq_node.url, wait_for_server=LONG, timeout=LONG) as proxy:
        future = submit(proxy.nap)
        assert process.say() == "runs"
        assert future.result() is None
    process.signal(signal.SIGTERM)
    assert process.end() == (7 if before else -signal.SIGTERM)


def in_serve(server: QAMServer, look: Callable[[], Any]) -> list[Any]:
    """What *look* returns while the main thread waits in serve()."""
    seen: list[Any] = []

    def go_on() -> None:
        until(lambda: server.serving and server.health().ready)
        seen.append(look())
        server.close()

    thread = threading.Thread(target=go_on)
    thread.start()
    server.serve()
    thread.join()
    return seen


def test_the_handlers_are_put_back(server_id: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with QAMServer(f"memory://{server_id}", server_id=server_id) as server:
        handlers = in_serve(server, lambda: signal.getsignal(signal.SIGTERM))
    assert handlers != [before]
    assert signal.getsignal(signal.SIGTERM) is before


def test_start_touches_no_signal(server_id: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with QAMServer(f"memory://{server_id}", server_id=server_id) as server:
        server.start()
        assert signal.getsignal(signal.SIGTERM) is before


def test_serve_outside_the_main_thread_handles_no_signal(server_id: str) -> None:
    with QAMServer(f"memory://{server_id}", server_id=server_id) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        until(lambda: server.serving)
        server.close()
        thread.join()


# --- what it says of itself -------------------------------------------------------


def test_its_life(broker: Broker, server_id: str) -> None:
    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:
        assert (server.serving, server.closed, server.finished, server.kill) == (False,) * 4
        assert server.health() == Health(True, False, "the server is new")
        assert not server.wait(0.001)
        server.start()
        assert (server.serving, server.closed, server.finished, server.kill) == (
            (True,) + (False,) * 3
        )
        until(lambda: server.health() == Health(True, True, ""))
        waiting = threading.Thread(target=server.wait)
        waiting.start()
        server.close()
        waiting.join(LONG)
        assert not waiting.is_alive()
        assert server.wait()
        assert (server.serving, server.closed, server.finished, server.kill) == (
            (False,) + (True,) * 3
        )
        assert server.health() == Health(False, False, "the server is closed")


def test_it_lives_while_the_broker_is_away_but_is_not_ready(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    with (
        Forwarder(rabbitmq_node.host, rabbitmq_node.port) as network,
        make_server(
            Service(), server_id=server_id, hostname=network.host, port=network.port
        ) as server,
    ):
        server.start()
        until(lambda: server.health().ready)
        network.refuse()
        network.cut()
        until(lambda: not server.health().ready)
        # both connections are lost, this one maybe last
        begin = "it receives no requests: can't connect"
        until(lambda: server.health().reason.startswith(begin))
        assert server.health().live
        network.accept()
        until(lambda: server.health() == Health(True, True, ""))


def test_one_that_dies_says_of_what(server_id: str) -> None:
    with make_server(Service(), server_id=server_id, hostname=f"memory://{server_id}") as server:
        server.start()
        server._life.fail(ZeroDivisionError("a bug"))
        assert server.health() == Health(False, False, "it died: ZeroDivisionError: a bug")


# --- the names of 0.2.x -------------------------------------------------------------


def test_the_views_of_0_2(server_id: str) -> None:
    with QAMServer(f"memory://{server_id}", server_id=server_id) as server:
        instance = Service()
        server.register_function(pow, "power")
        server.register_class(instance, "service", methods=["add", "echo"])
        assert server.method_dict == {"power": pow}
        assert server.instance_dict == {"service": instance}
        assert server.result_queue == []
        assert type(server.method_dict) is type(server.instance_dict) is dict


def test_the_exception_has_its_names_of_0_2() -> None:
    names = ("MethodNotFoundException", "MEthodNotFoundException", "QAMMEthodNotFoundException")
    for name in names:
        assert getattr(qam_server, name) is qam.QAMMethodNotFoundException


def test_the_version_is_a_text_and_numbers() -> None:
    assert qam.__version__.startswith(".".join(map(str, qam.VERSION)))
    assert len(qam.VERSION) == 3


def test_one_that_is_closed_before_it_served_is_not_waited_for(server_id: str) -> None:
    server = QAMServer(f"memory://{server_id}", server_id=server_id)
    server.close()
    assert server.wait()


def test_a_close_before_the_start_ends_a_wait(server_id: str) -> None:
    server = QAMServer(f"memory://{server_id}", server_id=server_id)
    waiting = threading.Thread(target=server.wait)
    waiting.start()
    server.close()
    waiting.join(LONG)
    assert not waiting.is_alive()


def test_what_a_call_with_keywords_raises_is_logged_under_its_name(
    server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"memory://{server_id}"
    with make_server(Service(), server_id=server_id, hostname=url) as server:
        server.start()
        with QAMProxy(server_id, url) as proxy, pytest.raises(TypeError):
            proxy.add(1, b="x")
    assert "add() raised an exception" in caplog.text
    assert "system.apply" not in caplog.text
