"""The command ``qam shell``: a Python prompt with a proxy for each server."""

import code
from argparse import Namespace
from contextlib import ExitStack, suppress
from keyword import iskeyword
from typing import Any

from qam import calls
from qam._cli import exits
from qam._cli.options import add_serializer, add_timeout, common, open_proxy, server_id

_TIMEOUT = 60.0


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "shell",
        parents=[common()],
        help="a Python prompt with a proxy for each server",
        description="Open a Python prompt with a proxy for each ID, and the functions of qam.",
    )
    parser.add_argument(
        "ids", metavar="ID", nargs="+", type=server_id, help="the server_id of a server"
    )
    add_serializer(parser)
    add_timeout(parser, _TIMEOUT)
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Open the prompt; return the exit code when it is left."""
    with suppress(ImportError):
        import readline  # noqa: F401  # the prompt then has a history, and keys to edit a line
    names = {name: getattr(calls, name) for name in calls.__all__}
    lines = []
    with ExitStack() as stack:
        for each in options.ids:
            proxy = stack.enter_context(open_proxy(options, each, options.timeout))
            name = _name_for(each, names)
            names[name] = proxy
            lines.append(f"{name} = {proxy!r}")
        code.interact("\n".join(lines), local=names, exitmsg="")
    return exits.OK


def _name_for(server_id: str, taken: dict[str, Any]) -> str:
    """Return the name of the variable for a proxy, like its *server_id*."""
    name = "".join(each if f"a{each}".isidentifier() else "_" for each in server_id)
    if not name.isidentifier() or not name.strip("_") or iskeyword(name):
        name = f"proxy_{name}"
    while name in taken:
        name += "_"
    return name
