import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from qam import QAMProxy, QAMServer
from qam._cli import serve
from tests.cli.conftest import Module, Run, in_process, serving
from tests.support.rabbitmq import RabbitMQNode, free_ports

SHOP = """
from os.path import join
from qam import QAMServer
def add(a, b=0):
    return a + b
def _private():
    pass
class Cart:
    def put(self, what):
        return f"put {what}"
cart = Cart()
number = 5
make = Cart
"""


@pytest.fixture
def quiet_log() -> Iterator[None]:
    """The log of the library is set up by the command; after the test it is as before."""
    log = logging.getLogger("qam")
    level = log.level
    yield
    log.setLevel(level)


# --- what is served ---------------------------------------------------------------------------


@pytest.fixture
def served(
    run: Run, module: Module, monkeypatch: pytest.MonkeyPatch, quiet_log: None
) -> "dict[str, object]":
    """What the command would serve, by name; it does not block here."""
    found: dict[str, object] = {}

    def look(server: QAMServer, **options: object) -> None:
        found.update(server.method_dict, server=server, options=options)

    monkeypatch.setattr(QAMServer, "serve", look)
    module("shop", SHOP)
    return found


def test_a_module_serves_the_public_functions_that_it_defines(
    run: Run, served: dict[str, object]
) -> None:
    assert run("serve", "shop", "--broker", "memory://served") == (0, "", "")

    assert set(served) == {"add", "server", "options"}
    server = served["server"]
    assert isinstance(server, QAMServer)
    assert server.server_id == "shop"
    assert served["options"] == {
        "stop_on": [signal.SIGTERM, signal.SIGINT],
        "close_timeout": 30.0,
    }


def test_a_module_may_name_others(run: Run, served: dict[str, object], module: Module) -> None:
    module("named", "from os.path import join\n__all__ = ['join', 'number']\nnumber = 5\n")

    assert run("serve", "named", "--broker", "memory://served").exit_code == 0

    assert set(served) == {"join", "server", "options"}


MARKED = """
from qam import expose
@expose(idempotent=True)
async def add(a, b=0):
    return a + b
def other():
    pass
class Cart:
    @expose("put_in", idempotent=True)
    def put(self, what):
        return what
    def other(self):
        pass
cart = Cart()
"""


@pytest.mark.parametrize(("target", "name"), [("marked", "add"), ("marked:cart", "put_in")])
def test_what_is_marked_is_served_alone_and_as_it_is_marked(
    run: Run, served: dict[str, object], module: Module, target: str, name: str
) -> None:
    module("marked", MARKED)

    assert run("serve", target, "--broker", "memory://served").exit_code == 0

    assert set(served) == {name, "server", "options"}
    server = served["server"]
    assert isinstance(server, QAMServer)
    ((_, _, idempotent),) = server._methods.items()
    assert idempotent


@pytest.mark.parametrize("target", ["shop:cart", "shop:make()", "shop:Cart()"])
def test_an_instance_serves_its_methods(run: Run, served: dict[str, object], target: str) -> None:
    options = ["--server-id", "cart", "--threads", "3", "--serializer", "json", "--grace", "5"]

    assert run("serve", target, "--broker", "memory://served", *options).exit_code == 0

    assert set(served) == {"put", "server", "options"}
    assert served["options"] == {
        "stop_on": [signal.SIGTERM, signal.SIGINT],
        "close_timeout": 5.0,
    }
    server = served["server"]
    assert isinstance(server, QAMServer)
    assert (server.server_id, server._settings.max_workers) == ("cart", 3)
    assert server._settings.serializer.name == "json"


def test_a_server_that_a_module_makes_is_served_as_it_is(
    run: Run, served: dict[str, object], module: Module
) -> None:
    module("own", "from qam import QAMServer\nserver = QAMServer('memory://x', server_id='own')\n")

    assert run("serve", "own:server", "--grace", "5").exit_code == 0
    server = served["server"]
    assert isinstance(server, QAMServer)
    assert server.server_id == "own"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["shop:number"],
            "shop:number has the type int; a module, an instance of a class of yours",
        ),
        (["shop:add"], "shop:add is a function; shop alone serves all functions of the module, "),
        (["shop:make"], "shop:make is a class; write 'shop:make()' to serve an instance of it"),
        (["lazy"], "lazy: method: <function numbers at "),
        (["empty"], "empty: module: empty has no public functions; the public functions that a mo"),
        (["empty:thing"], "empty:thing: instance: Thing has no public methods; "),
        (["shop", "--trust", "nothing_there"], "--trust nothing_there: "),
        (["shop", "--broker", "http://x"], "--broker: the scheme http:// is not supported"),
        (["own:server", "--threads", "3", "--wait", "0"], "leave out --threads, --wait, and pass "),
    ],
)
def test_what_can_not_be_served_is_told_in_one_line(
    run: Run, served: dict[str, object], module: Module, arguments: list[str], told: str
) -> None:
    module("own", "from qam import QAMServer\nserver = QAMServer('memory://x', server_id='own')\n")
    module("lazy", "def numbers():\n    yield 1\n")
    module("empty", "class Thing:\n    pass\nthing = Thing()\n")
    broker = [] if "--broker" in arguments else ["--broker", "memory://served"]
    if arguments[0].startswith("own"):
        broker = []

    exit_code, output, errors = run("serve", *arguments, *broker)

    assert (exit_code, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("qam serve: ")
    assert told in errors


def test_a_server_that_serves_already_is_told(run: Run, module: Module, quiet_log: None) -> None:
    module(
        "busy",
        "from qam import QAMServer\nserver = QAMServer('memory://busy')\nserver.start()\n",
    )

    exit_code, _, errors = run("serve", "busy:server")

    assert (exit_code, errors.count("\n")) == (2, 1)
    assert "busy:server must not start it" in errors


def test_a_server_that_dies_has_an_exit_code_of_its_own(
    run: Run, served: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qam import QAMClosedException

    def die(server: QAMServer, **options: object) -> None:
        raise QAMClosedException("the server died of an internal error")

    monkeypatch.setattr(QAMServer, "serve", die)

    assert run("serve", "shop", "--broker", "memory://served") == (
        1,
        "",
        "qam serve: the server died of an internal error; --traceback shows it\n",
    )


def test_v_logs_each_call(run: Run, served: dict[str, object], quiet_log: None) -> None:
    run("serve", "shop", "--broker", "memory://served", "-v")

    assert logging.getLogger("qam").level == logging.DEBUG


# --- in a process ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_calls_end_that_run(
    rabbitmq_node: RabbitMQNode, server_id: str, tmp_path: Path, number: signal.Signals
) -> None:
    # given: a call that runs until the server closes
    (tmp_path / "patient.py").write_text(
        "import pathlib, time\n"
        "def hold(begun, until):\n"
        "    pathlib.Path(begun).touch()\n"
        "    while not pathlib.Path(until).exists():\n"
        "        time.sleep(0.01)\n"
        "    return 'held'\n"
    )
    begun, until = tmp_path / "begun", tmp_path / "until"
    arguments = ["patient", "--server-id", server_id, "--grace", "60"]
    with (
        serving(*arguments, url=rabbitmq_node.url, cwd=tmp_path) as server,
        QAMProxy(server_id, rabbitmq_node.url, timeout=60) as proxy,
    ):
        results: list[str] = []
        caller = Thread(target=lambda: results.append(proxy.hold(str(begun), str(until))))
        caller.start()
        while not begun.exists():
            time.sleep(0.01)

        # when
        server.send_signal(number)
        until.touch()
        caller.join(60)

        # then
        assert results == ["held"]
        assert server.wait(60) == 0
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(
    rabbitmq_node: RabbitMQNode, server_id: str, first: signal.Signals, second: signal.Signals
) -> None:
    # given: a call that runs for an hour, and as much time for it
    arguments = ["calc", "--server-id", server_id, "--grace", "3600"]
    with (
        serving(*arguments, url=rabbitmq_node.url) as server,
        QAMProxy(server_id, rabbitmq_node.url, timeout=60) as proxy,
    ):
        proxy.callback(None, repr).nap(3600)
        assert proxy.add(2, 3) == 5
        server.send_signal(first)
        while rabbitmq_node.consumers(f"{server_id}_server_queue"):
            time.sleep(0.01)

        # when
        server.send_signal(second)

        # then
        assert server.wait(60) == -second


def test_the_grace_is_the_time_that_a_call_gets(
    rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    arguments = ["calc", "--server-id", server_id, "--grace", "0.1"]
    with (
        serving(*arguments, url=rabbitmq_node.url) as server,
        QAMProxy(server_id, rabbitmq_node.url, timeout=60) as proxy,
    ):
        proxy.callback(None).nap(3600)
        assert proxy.add(2, 3) == 5

        server.send_signal(signal.SIGTERM)

        assert server.wait(60) == 0


def test_a_broker_that_is_not_there_is_told(server_id: str) -> None:
    (port,) = free_ports(1)

    exit_code, output, errors = in_process(
        *("serve", "calc", "--wait", "0"), url=f"amqp://127.0.0.1:{port}"
    )

    assert (exit_code, output, errors.count("\n")) == (3, "", 1)
    assert "nothing listens there; is the broker running?" in errors


def test_a_broker_that_is_waited_for_is_told_at_once(
    rabbitmq_node: RabbitMQNode, server_id: str, monkeypatch: pytest.MonkeyPatch, quiet_log: None
) -> None:
    # given
    (port,) = free_ports(1)
    waits: list[float] = []

    def made(**options: float) -> str:
        waits.append(options.get("wait_for_broker", 0.0))
        if not options:
            return QAMServer(f"amqp://127.0.0.1:{port}")  # type: ignore[return-value]
        return "made"

    # when
    server = serve._made(made, 30.0)  # type: ignore[arg-type]

    # then
    assert (server, waits) == ("made", [0.0, 30.0])
