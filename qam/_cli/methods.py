"""The command ``qam methods``: shows what a server offers."""

import json
from argparse import Namespace
from typing import Any

from qam._cli import exits
from qam._cli.description import Described, describe
from qam._cli.options import add_id, add_serializer, add_timeout, common
from qam._cli.output import shown, write
from qam._cli.stub import stub_of

_TIMEOUT = 10.0


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "methods",
        parents=[common()],
        help="show what a server offers",
        description="Show the methods that a server offers, with their parameters.",
    )
    add_id(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all that the server tells, as JSON")
    form.add_argument(
        "--stub", action="store_true", help="a module with Protocols, to cast a proxy to"
    )
    add_serializer(parser)
    add_timeout(parser, _TIMEOUT)
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Show the methods; return the exit code."""
    description = describe(options)
    if options.json:
        methods = [method._asdict() for method in description.methods]
        write(json.dumps({**description._asdict(), "methods": methods}, indent=2))
    elif options.stub:
        write(stub_of(description))
    else:
        write("\n".join(map(_lines, description.methods)) or "no methods are registered")
    return exits.OK


def _lines(method: Described) -> str:
    mark = "  (idempotent)" if method.idempotent else ""
    lines = [f"{method.name}{method.signature}{mark}"]
    if method.first_line:
        lines.append(f"    {method.first_line}")
    return "\n".join(map(shown, lines))
