"""The command ``qam health``: shows what can be seen of a server from outside."""

from argparse import Namespace
from typing import Any

from qam import calls
from qam._broker.connect import CONNECT_TIMEOUT, connect_first
from qam._broker.messages import QueueState
from qam._cli import exits
from qam._cli.exits import Mistake
from qam._cli.options import (
    add_id,
    add_serializer,
    add_timeout,
    common,
    count_or_0,
    credentials_of,
    open_proxy,
)
from qam._cli.output import write
from qam._protocol.entities import request_binding
from qam.exceptions import QAMTimeoutException

_TIMEOUT = 2.0


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "health",
        parents=[common()],
        help="show whether a server answers, and how many requests wait",
        description="Show whether a server answers, how many requests wait for one, and how many "
        "servers take them. The exit code is 0 if all is well.",
    )
    add_id(parser)
    parser.add_argument(
        "--max-waiting",
        metavar="N",
        type=count_or_0,
        help="how many requests may wait; any number by default",
    )
    add_serializer(parser)
    add_timeout(parser, _TIMEOUT)
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Show the state of the server; return the exit code.

    :raises Mistake: all is not well.
    """
    queue = _inspect(options)
    try:
        with open_proxy(options, options.id, options.timeout) as proxy:
            elapsed = calls.ping(proxy, timeout=options.timeout)
    except QAMTimeoutException as error:
        raise _no_answer(options, queue) from error
    waiting, servers = _counted(queue.messages, "request"), _counted(queue.consumers, "server")
    wait = "waits" if queue.messages == 1 else "wait"
    write(f"{options.id} answers in {elapsed * 1000:.1f} ms; {waiting} {wait} for {servers}")
    if options.max_waiting is not None and queue.messages > options.max_waiting:
        raise Mistake(
            f"{waiting} {wait}, more than {options.max_waiting}; start another server of "
            f"{options.id!r}, or look at what its methods wait for",
            exits.FAILED,
        )
    return exits.OK


def _inspect(options: Namespace) -> QueueState:
    """Return the state of the request queue, without the ping that follows."""
    connection = connect_first(credentials_of(options).endpoints(), CONNECT_TIMEOUT)
    try:
        state = connection.inspect_queue(request_binding(options.id).queue)
    finally:
        connection.close()
    if state is None:
        raise Mistake(
            f"{options.id!r} has no request queue: no server has ever served it there; start one, "
            "or check the ID and the broker",
            exits.NO_SERVER,
        )
    return state


def _no_answer(options: Namespace, queue: QueueState) -> Mistake:
    waiting = _counted(queue.messages, "request")
    if queue.consumers == 0:
        return Mistake(
            f"no server of {options.id!r} is running, and {waiting} in its queue; start one, "
            "as by qam serve",
            exits.NO_SERVER,
        )
    servers = _counted(queue.consumers, "server")
    return Mistake(
        f"no answer within {options.timeout:g} s; {servers} of {options.id!r} and {waiting} in the "
        "queue: all workers may be busy; start another server, or wait longer by --timeout",
        exits.TIMED_OUT,
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
