"""The command ``qam call``: calls a remote method, and shows its result."""

from argparse import Namespace
from typing import Any

from qam._cli import exits
from qam._cli.exits import Mistake, mistake_of, raised_by_method
from qam._cli.options import add_id, add_serializer, add_timeout, common, open_proxy
from qam._cli.output import as_json, write
from qam._cli.words import arguments_of
from qam.exceptions import QAMException
from qam.qam_proxy import QAMProxy

_TIMEOUT = 60.0


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "call",
        parents=[common()],
        help="call a method, and show its result as JSON",
        description="Call a method, and show its result as JSON.",
    )
    add_id(parser)
    parser.add_argument("method", metavar="METHOD", help="its name, such as add or counter.add")
    parser.add_argument(
        "words",
        nargs="*",
        default=(),
        metavar="ARG",
        help="an argument, or NAME=ARG; JSON, or else a text. A text with a = in it has to be "
        "written as JSON, and what begins with - after --",
    )
    parser.add_argument("--repr", action="store_true", help="show the result as Python does")
    add_serializer(parser)
    add_timeout(parser, _TIMEOUT)
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Make the call; return the exit code.

    :raises Mistake: there is no result.
    """
    args, kwargs = arguments_of(options.words)
    try:
        with open_proxy(options, options.id, options.timeout) as proxy:
            result = _call(proxy, options, args, kwargs)
    except QAMException as error:
        mistake = mistake_of(error, options.id)
        raise Mistake(f"{mistake}; executed: {error.executed}", mistake.exit_code) from error
    write(repr(result) if options.repr else as_json(result))
    return exits.OK


def _call(proxy: QAMProxy, options: Namespace, args: list[Any], kwargs: dict[str, Any]) -> Any:
    try:
        method = proxy[options.method]
    except AttributeError as error:  # a name with an underscore
        raise Mistake(f"{error}; executed: no") from error
    try:
        return method(*args, **kwargs)
    except QAMException:
        raise
    except Exception as error:
        raise raised_by_method(options.method, error, options.id) from error
