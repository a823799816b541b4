"""Row 18: a process that is forked with a live proxy, or a live server."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from qam import QAMClosedException, QAMProxy
from tests.conftest import Broker
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, make_server

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
    # Python warns of any fork with threads; this is about exactly that.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_a_child(function: Callable[[], Any]) -> int:
    """Run *function* in a forked child; return its exit status: 0 if it raised nothing."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)  # one that hangs is killed
            function()
            status = 0
        except BaseException as error:
            print(f"in the child: {error!r}", file=sys.stderr)
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_call_of_the_child_says_what_is_wrong(proxy: QAMProxy) -> None:
    assert proxy.add(1, 2) == 3

    def use_it() -> None:
        for call in (proxy.add, proxy.set_timeout(5).add, proxy.callback(print).add):
            with pytest.raises(QAMClosedException, match="forked") as raised:
                call(1, 2)
            assert raised.value.executed == "no"

    # when
    assert in_a_child(use_it) == 0
    # then the parent's goes on
    assert proxy.add(2, 3) == 5


def test_a_server_of_the_parent_says_in_the_child_that_it_is_not_served_there(
    broker: Broker, server_id: str
) -> None:
    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:

        def serve() -> None:
            for begin in (server.serve, server.start):
                with pytest.raises(QAMClosedException, match="forked"):
                    begin()

        assert in_a_child(serve) == 0
        # the parent's can still be started
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            assert proxy.add(1, 2) == 3


def test_closing_and_collecting_in_the_child_do_the_parent_no_harm(
    broker: Broker, server_id: str
) -> None:
    service = Service()
    server = make_server(service, server_id=server_id, **broker.kwargs)
    server.start()
    proxy = QAMProxy(server_id, timeout=60, **broker.kwargs)
    results: list[Any] = []
    uid = proxy.callback(results.append).hold("mine")
    unused = proxy.callback(print)
    holder = {"proxy": proxy, "server": server, "unused": unused}
    del unused
    assert service.holding.wait(20)

    def end_everything() -> None:
        assert proxy.get_callback_state(uid) == 2
        assert proxy.closed
        started = time.monotonic()
        proxy.close()
        server.close()
        assert time.monotonic() - started < 2
        holder.clear()
        gc.collect()

    # when
    assert in_a_child(end_everything) == 0
    # then
    service.go_on.set()
    while proxy.get_callback_state(uid) != 2:
        time.sleep(0.001)
    assert results == ["mine"]
    assert proxy.add(2, 3) == 5
    proxy.close()
    server.close()


def test_the_child_may_have_a_proxy_of_its_own(rabbitmq_node: RabbitMQNode, server_id: str) -> None:
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    server = make_server(Service(), server_id=server_id, **place)
    server.start()
    with QAMProxy(server_id, timeout=60, **place) as proxy:
        assert proxy.add(1, 2) == 3

        def call() -> None:
            with QAMProxy(server_id, timeout=20, **place) as own:
                assert own.add(2, 3) == 5

        assert in_a_child(call) == 0
        assert proxy.add(3, 4) == 7
    server.close()


def test_no_lock_that_another_thread_holds_keeps_the_child(proxy: QAMProxy) -> None:
    # given all of them held by somebody who is not there in the child
    locks = [
        proxy._results._lock,
        proxy.publisher_thread._queue._lock,
        proxy.callback_observer_thread.callback_dict_lock,
        proxy.publisher_thread._waker._lock,
    ]
    uncalled = [proxy.callback(print)]

    def use_it() -> None:
        uncalled.clear()  # it gives its slot back
        with pytest.raises(QAMClosedException):
            proxy.add(1, 2)
        proxy.close()

    statuses: list[int] = []
    forking = threading.Thread(target=lambda: statuses.append(in_a_child(use_it)))
    with ExitStack() as held:
        for lock in locks:
            held.enter_context(lock)
        # when another thread forks meanwhile
        forking.start()
        forking.join()
    # then
    assert statuses == [0]


def test_a_process_ends_quietly_although_its_parent_had_a_proxy(broker: Broker) -> None:
    # multiprocessing, and an interpreter that ends as usual in both
    code = f"""
        import os, sys, warnings
        warnings.simplefilter("ignore")
        import qam
        place = {broker.kwargs!r}
        server = qam.QAMServer(server_id="forks{os.getpid()}", **place)
        server.register_function(lambda a, b: a + b, "add")
        server.start()
        proxy = qam.QAMProxy(server.server_id, timeout=30, **place)
        assert proxy.add(1, 2) == 3
        child = os.fork()
        if child == 0:
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        print(proxy.add(2, 3))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")
