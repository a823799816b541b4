"""The command ``python -m qam demo``: runs a server and a proxy, and shows one call of each kind.

Server and proxy run in this process, but every message between them goes through the broker.
No demonstration depends on timing: the one slow method ends when the demonstration lets it.
"""

import threading
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from qam._broker.connect import connect
from qam._broker.endpoint import Endpoint
from qam._cli import exits
from qam._cli.options import common, credentials_of, hosts_in
from qam._cli.output import write
from qam._protocol.entities import (
    presence_binding,
    reply_exchange,
    request_binding,
    siblings_binding,
)
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import QAMConnectionException, QAMException
from qam.qam_proxy import QAMProxy
from qam.qam_server import QAMServer

# Seconds that a call may take, unless its demonstration sets a timeout: the broker may die.
_TIMEOUT = 10.0
_FINISHED = 2


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo",
        parents=[common("by default a broker inside this process")],
        help="show what a proxy and a server do",
        description="Start a server and a proxy in this process, and show what calls do.",
    )
    parser.set_defaults(run=run_command)


def run_command(options: Namespace) -> int:
    """Run the demonstrations at the broker of the *options*; return the exit code."""
    if options.broker is None:
        options.broker = own_broker()
    credentials_of(options)  # for its errors
    run(hosts_in(options.broker))
    return exits.OK


def own_broker() -> str:
    """Return the URL of a new broker inside this process."""
    return f"memory://qam-demo-{uuid.uuid4().hex}"


def run(broker: str | list[str]) -> None:
    """Run all demonstrations, and print them to stdout.

    Blocks until they are over, and what was declared for them is deleted.

    :param broker: a URL, or those of the nodes of a cluster.
    :raises QAMConnectionException: the broker can't be reached, or refuses the connection.
    :raises QAMException: the connection to the broker was lost.
    """
    server_id = f"qam-demo-{uuid.uuid4().hex[:12]}"
    with _stage(broker, server_id) as stage:
        write(f"A server and a proxy at {stage.endpoint}, server_id {server_id!r}.")
        for demonstration in DEMONSTRATIONS:
            _show(demonstration, stage)
    write("\nServer and proxy are closed.")


# --- the server and the proxy -----------------------------------------------------


@dataclass
class Stage:
    """The objects that a demonstration uses."""

    proxy: QAMProxy
    endpoint: Endpoint
    #: One permit lets one run of slow_add() end.
    may_end: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Counter:
    """The class of a registered instance."""

    def __init__(self) -> None:
        self._total = 0
        self._lock = threading.Lock()  # guards _total: methods run in several threads

    def add(self, number: int) -> int:
        """Add *number*; return the total."""
        with self._lock:
            self._total += number
            return self._total


@contextmanager
def _stage(broker: str | list[str], server_id: str) -> Iterator[Stage]:
    endpoint = AMQPCredentials(broker).endpoints()[0]
    with ExitStack() as stack:
        server = QAMServer(broker, server_id=server_id, expected_exceptions=[ZeroDivisionError])
        stack.callback(_delete_entities, endpoint, server_id)
        stack.enter_context(server)
        # By its client_id the reply queue, too, is recognized as one of the demonstration.
        proxy = QAMProxy(server_id, broker, client_id=server_id, timeout=_TIMEOUT)
        stack.enter_context(proxy)
        # The server closes before the proxy: it also answers the call that has timed out, and
        # the proxy has to receive that reply.
        stack.callback(server.close)
        stage = Stage(proxy, endpoint)
        _register(server, stage)
        server.start()
        yield stage


def _register(server: QAMServer, stage: Stage) -> None:
    @server.register_function
    def add(a: int, b: int) -> int:
        return a + b

    @server.register_function
    def slow_add(a: int, b: int) -> int:
        stage.may_end.acquire()
        return a + b

    @server.register_function
    def divide(a: float, b: float) -> float:
        return a / b

    server.register_class(Counter(), "counter")


def _delete_entities(endpoint: Endpoint, server_id: str) -> None:
    """Delete the queues and the exchanges of the server that are not gone by now."""
    requests, words = request_binding(server_id), siblings_binding(server_id, "")
    connection = connect(endpoint, _TIMEOUT)
    try:
        for binding in (requests, presence_binding(server_id)):
            connection.delete_queue(binding.queue)
        for exchange in (requests.exchange, reply_exchange(server_id), words.exchange):
            connection.delete_exchange(exchange)
    finally:
        connection.close()


# --- the demonstrations -----------------------------------------------------------


@dataclass(frozen=True)
class Demonstration:
    """A title, the line of code to show, and the function that runs it and returns the output."""

    title: str
    code: str
    play: Callable[[Stage], list[str]]


def _show(demonstration: Demonstration, stage: Stage) -> None:
    write(f"\n# {demonstration.title}\n>>> {demonstration.code}")
    write("\n".join(demonstration.play(stage)))


def _call(stage: Stage) -> list[str]:
    return _outcome(lambda: stage.proxy.add(2, 3))


def _instance(stage: Stage) -> list[str]:
    return _outcome(lambda: stage.proxy.counter.add(5))


def _callback(stage: Stage) -> list[str]:
    proxy, seen = stage.proxy, []

    def success(result: int) -> None:
        seen.append(f"state {proxy.get_callback_state(uid)}: success({result}) is called")

    def error(exception: Exception) -> None:
        seen.append(f"error({_described(exception)}) is called")

    try:
        uid = proxy.callback(success, error).slow_add(2, 4)
        seen.append(f"state {proxy.get_callback_state(uid)}: it waits for its result")
    finally:
        stage.may_end.release()
    while proxy.get_callback_state(uid) != _FINISHED:
        pass
    return [*seen, f"state {proxy.get_callback_state(uid)}: it is finished"]


def _timeout(stage: Stage) -> list[str]:
    try:
        return _outcome(lambda: stage.proxy.set_timeout(0.2).slow_add(2, 3))
    finally:
        stage.may_end.release()


def _remote_exception(stage: Stage) -> list[str]:
    return _outcome(lambda: stage.proxy.divide(1, 0))


def _unknown_method(stage: Stage) -> list[str]:
    return _outcome(lambda: stage.proxy.subtract(3, 2))


def _outcome(call: Callable[[], Any]) -> list[str]:
    """Return the result of *call*, or its exception, as lines; raise a QAMConnectionException."""
    try:
        return [repr(call())]
    except QAMConnectionException:
        raise
    except Exception as error:
        notes: list[str] = getattr(error, "__notes__", [])
        return [
            _described(error),
            *(f"the server's traceback ends: {_last_line(note)}" for note in notes),
        ]


def _last_line(text: str) -> str:
    return text.splitlines()[-1]


def _described(error: Exception) -> str:
    executed = f" (executed: {error.executed})" if isinstance(error, QAMException) else ""
    return f"{type(error).__name__}: {error}{executed}"


DEMONSTRATIONS = (
    Demonstration("A call waits for its result.", "proxy.add(2, 3)", _call),
    Demonstration("A method of an instance.", "proxy.counter.add(5)", _instance),
    Demonstration(
        "With a callback the call does not wait.",
        "uid = proxy.callback(success, error).slow_add(2, 4)",
        _callback,
    ),
    Demonstration("A timeout.", "proxy.set_timeout(0.2).slow_add(2, 3)", _timeout),
    Demonstration(
        "The caller gets the exception that the method raised.",
        "proxy.divide(1, 0)",
        _remote_exception,
    ),
    Demonstration("A method that does not exist.", "proxy.subtract(3, 2)", _unknown_method),
)
