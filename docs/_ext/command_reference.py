"""The directive ``command-reference``: the commands and their options, out of their parser."""

import argparse
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from qam._cli.commands import _parser


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command."""
    (subparsers,) = (
        each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction)
    )
    return dict(subparsers.choices)


def described(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines of reStructuredText that describe a command."""
    yield from (f".. program:: qam {name}", "")
    yield from (parser.description or "", "")
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    yield from (".. code-block:: sh", "   :class: usage", "", f"   {usage}", "")
    for action in parser._actions:
        yield from (f".. option:: {signature(action)}", "")
        yield from (f"   {help_of(action)}", "")


def signature(action: argparse.Action) -> str:
    """Return the names of an option with its value, or the name of an argument."""
    takes_value = action.nargs != 0
    value = action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else None)
    if not action.option_strings:
        return str(value or action.dest)
    value = value or action.dest.upper()
    return ", ".join(f"{each} {value}" if takes_value else each for each in action.option_strings)


def help_of(action: argparse.Action) -> str:
    """Return the help of an option, with its default in it, as text that has no markup."""
    text = (action.help or "") % {**vars(action), "prog": "qam"}
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("`", "\\`")


class CommandReference(Directive):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        return [self._section(name, parser) for name, parser in commands().items()]

    def _section(self, name: str, parser: argparse.ArgumentParser) -> nodes.section:
        section = nodes.section(ids=[f"qam-{name}"], names=[f"qam {name}"])
        section += nodes.title("", f"qam {name}")
        lines = list(described(name, parser))
        self.state.nested_parse(StringList(lines, f"the parser of qam {name}"), 0, section)
        return section


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True}
