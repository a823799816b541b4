"""Fixtures for all tests.

`broker` runs a test on the in-memory transport and on RabbitMQ; `rabbitmq_node` is the node itself,
for what only RabbitMQ does, and `own_node` for a test that kills or restarts it.
"""

import gc
import importlib
import pkgutil
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from hypothesis import settings

import qam
from qam import QAMProxy
from qam._common import logs
from tests.support import examples  # noqa: F401  # has the profiles
from tests.support.forwarder import Forwarder
from tests.support.programs import find_program, how_to_install
from tests.support.rabbitmq import RabbitMQNode
from tests.support.routes import Routes
from tests.support.service import Service, serving
from tests.support.strangers import Stranger
from tests.support.surroundings import begin_as_from_a_terminal

settings.load_profile("gate")  # --hypothesis-profile, which comes later, names another one

# While coverage looks; what test files import while they are collected it does not see.
for module in pkgutil.walk_packages(qam.__path__, "qam."):
    importlib.import_module(module.name)

# How long a test's threads may take to end after it, all together.
THREADS_END_WITHIN = 10.0  # seconds
# And its log records to be handled, by a thread that ends with the last one.
LOG_THREAD = "qam log thread"
LOGS_ARE_HANDLED_WITHIN = 60.0  # seconds

# One of these that began last would run alone at the end, while the other processes have nothing.
TAKE_LONGEST = {
    *("test_outages", "test_guarantees", "test_transient", "test_matrix", "test_faults"),
    *("test_package", "test_rabbitmq_node", "test_benchmarks", "test_soak", "test_security"),
    *("test_unpickler", "test_envelope", "test_remote_errors", "test_poison", "test_stories"),
}


# These take three times as long where coverage traces them, and others run all that they run.
# So they are left out of a whole run's coverage; a file that runs by itself is measured.  (The
# marker no_cover of pytest-cov has no effect in the processes of pytest-xdist.)
DEAR_TO_TRACE = {
    *("test_stories", "test_mutants", "test_signals", "test_finalizers", "test_outages"),
    *("test_load", "test_futures", "test_connection_thread", "test_rabbitmq", "test_transport"),
    *("test_frames", "test_waker", "test_sibling_words", "test_costs", "test_opcode_scan"),
    *("test_readers_agree", "test_memory_bounds", "test_remote_errors", "test_unpickler"),
    *("test_hostile_properties", "test_told_errors"),
}


@dataclass(frozen=True)
class Broker:
    """Where a broker is. What is None, the in-memory one does not have."""

    hostname: str
    port: int | None = None
    username: str | None = None
    password: str | None = None

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments that QAMProxy and QAMServer take for it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


# First, because pytest's own hook takes the markers to deselect tests by `-m`.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by what they need and cost, and puts the files first that take longest."""
    is_whole = len({item.path for item in items}) > 1
    for item in items:
        if "rabbitmq_node" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.rabbitmq)
        if is_whole and item.path.stem in DEAR_TO_TRACE:
            item.add_marker("untraced")
    items.sort(key=lambda item: item.path.stem not in TAKE_LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Collects without coverage, and takes what is there then, thousands of tests, out of the sight
    of the garbage collector.

    It stays until the end anyway; and to walk through it takes 0.3 s in each `gc.collect`.
    """
    with untraced():
        done = yield
    gc.collect()
    gc.freeze()
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[object]:
    """Runs what is dear to trace without coverage."""
    with nullcontext() if item.get_closest_marker("untraced") is None else untraced():
        return (yield)


@contextmanager
def untraced() -> Iterator[None]:
    """Meanwhile coverage does not look at this thread, nor at those that it starts."""
    traces = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        yield
    finally:
        sys.settrace(traces[0])
        threading.settrace(traces[1])


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """However the tests were started, they begin alike."""
    begin_as_from_a_terminal(str(tmp_path_factory.mktemp("home")))


class FlushedCapture(pytest.LogCaptureFixture):
    """Has the records of the library's threads too, which another thread handles."""

    @property
    def handler(self) -> Any:
        logs.flush(LOGS_ARE_HANDLED_WITHIN)
        return super().handler


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log as it is when the test looks."""
    caplog.__class__ = FlushedCapture
    return caplog


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test whose threads do not end with it; what it logged is handled before the next."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREADS_END_WITHIN
    for thread in _started_since(before):
        if thread.name != LOG_THREAD:
            thread.join(max(0.0, deadline - time.monotonic()))
    logs.flush(LOGS_ARE_HANDLED_WITHIN)  # when nobody is left who could log
    if left := [thread.name for thread in _started_since(before)]:
        pytest.fail(f"threads still alive after the test: {', '.join(left)}", pytrace=False)


def _started_since(before: set[threading.Thread]) -> list[threading.Thread]:
    """The threads that are new and alive, without the one by which pytest-timeout watches."""
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.name.startswith("pytest_timeout")
    ]


@pytest.fixture(scope="session")
def rabbitmq_node() -> Iterator[RabbitMQNode]:
    """A RabbitMQ node, the same one for all tests, started for the first that asks."""
    if find_program("rabbitmq-server") is None:
        # Not skipped: half of what is promised would be untested without a word.
        pytest.fail(how_to_install(), pytrace=False)
    with RabbitMQNode() as node:
        yield node


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """A broker: in memory, new for each test; then RabbitMQ, where `server_id` parts tests."""
    if request.param == "memory":
        return Broker(f"memory://{uuid.uuid4().hex}")
    # Asked for by name, and not as an argument: the in-memory case starts no node.
    node: RabbitMQNode = request.getfixturevalue("rabbitmq_node")
    return Broker(node.host, node.port, node.username, node.password)


@pytest.fixture
def own_node(rabbitmq_node: RabbitMQNode) -> Iterator[RabbitMQNode]:
    """The node, for a test that may kill and restart it: the next test finds it running."""
    yield rabbitmq_node
    if not rabbitmq_node.running:
        rabbitmq_node.start()


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Routes:
    """Leads single connections over ways of their own."""
    return Routes(monkeypatch)


@pytest.fixture
def server_id() -> str:
    """A server_id that no other test uses."""
    return uuid.uuid4().hex


@pytest.fixture
def stranger(broker: Broker) -> Iterator[Stranger]:
    """Somebody else at the same broker, who may write anything to any exchange."""
    stranger = Stranger(**broker.kwargs)
    yield stranger
    stranger.close()


@pytest.fixture
def service(broker: Broker, server_id: str) -> Iterator[Service]:
    """A server that serves `server_id` meanwhile: what its methods know and do."""
    with serving(server_id=server_id, **broker.kwargs) as service:
        yield service


@pytest.fixture
def proxy(broker: Broker, server_id: str, service: Service) -> Iterator[QAMProxy]:
    """A proxy of the server of `service`."""
    with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
        yield proxy


@pytest.fixture
def place(rabbitmq_node: RabbitMQNode) -> dict[str, Any]:
    return {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}


@pytest.fixture
def way(rabbitmq_node: RabbitMQNode) -> Iterator[Forwarder]:
    """Another way to the node, which can fail."""
    with Forwarder(rabbitmq_node.host, rabbitmq_node.port) as forwarder:
        yield forwarder
