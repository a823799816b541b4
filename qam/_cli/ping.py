"""The command ``qam ping``: shows how many seconds a server takes to answer."""

import time
from argparse import Namespace
from typing import Any

from qam import calls
from qam._cli import exits
from qam._cli.exits import mistake_of
from qam._cli.options import (
    add_id,
    add_serializer,
    add_timeout,
    common,
    count,
    open_proxy,
    seconds_or_0,
)
from qam._cli.output import tell, write
from qam.exceptions import QAMTimeoutException
from qam.qam_proxy import QAMProxy

_TIMEOUT = 1.0


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "ping",
        parents=[common()],
        help="show how long a server takes to answer",
        description="Show how long a server takes to answer.",
    )
    add_id(parser)
    parser.add_argument(
        "-c", "--count", metavar="N", type=count, default=1, help="how often; once by default"
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=seconds_or_0,
        default=1.0,
        help="the pause between two of them; 1 by default",
    )
    add_serializer(parser)
    add_timeout(parser, _TIMEOUT)
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Ping as often as requested; return the exit code: 0 if each one was answered."""
    exit_code = exits.OK
    with open_proxy(options, options.id, options.timeout) as proxy:
        for number in range(options.count):
            if number:
                time.sleep(options.interval)
            exit_code = _ping(proxy, options) or exit_code
    return exit_code


def _ping(proxy: QAMProxy, options: Namespace) -> int:
    try:
        elapsed = calls.ping(proxy, timeout=options.timeout)
    except QAMTimeoutException as error:  # the next one may be answered
        mistake = mistake_of(error, options.id)
        tell("qam ping", str(mistake))
        return mistake.exit_code
    write(f"{options.id} answered in {elapsed * 1000:.1f} ms")
    return exits.OK
