"""The command line: ``python -m qam demo``."""

import argparse
import os
import sys
from collections.abc import Sequence

from qam._cli import demo as _demo
from qam.amqp_credentials import AMQPCredentials
from qam.exceptions import QAMException


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names; return the exit code.

    Blocks until the command is over.

    :param argv: the arguments, without the program's name; None for those of the process.
    :returns: 0; 1 if the broker can't be used, with the reason on stderr, or if the reader of
        stdout has gone; 2 if there is no command.
    :raises SystemExit: the arguments are wrong (2), or help was requested (0).
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    return _run_demo(options.broker)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qam", description="Remote procedure calls over AMQP for threaded Python."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="show what a proxy and a server do",
        description="Start a server and a proxy in this process, and show what calls do.",
    )
    demo.add_argument(
        "--broker",
        metavar="URL",
        help="amqp://user:password@host:port/vhost, or amqps://...; "
        "by default a broker inside this process",
    )
    return parser


def _run_demo(broker: str | None) -> int:
    broker = _demo.own_broker() if broker is None else broker
    try:
        AMQPCredentials(broker).resolved()
    except (TypeError, ValueError) as error:
        return _fail(error)
    try:
        _demo.run(broker)
    except QAMException as error:
        return _fail(error)
    except BrokenPipeError:  # the reader of the output has gone, as in: qam demo | head -1
        # The interpreter flushes stdout when it exits, which would raise the error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _fail(error: Exception) -> int:
    print("qam:", *str(error).split(), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
