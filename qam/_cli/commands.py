"""The commands, and the parser of their arguments."""

import sys
from argparse import Namespace
from collections.abc import Sequence

from qam._cli import call, demo, exits, health, methods, ping, running, serve, shell
from qam._cli.output import write
from qam._common.version import own_version

_COMMANDS = (call, methods, ping, health, serve, shell, demo)


def main(argv: Sequence[str] | None) -> int:
    """Run the command that *argv* names; return the exit code.

    :raises SystemExit: the arguments are wrong (2), or help was requested (0).
    """
    parser = _parser()
    _refuse_options_before_the_command(parser, sys.argv[1:] if argv is None else argv)
    options, more = parser.parse_known_args(argv)
    if options.version:
        return running.run(Namespace(command="--version", traceback=False, run=_show_version))
    if options.command is None and not more:
        parser.print_help(sys.stderr)
        return exits.WRONG_USE
    _take_more(parser, options, more)
    return running.run(options)


def _show_version(options: Namespace) -> int:
    write(f"qam {own_version()}")
    return exits.OK


def _parser() -> running.OneLineParser:
    parser = running.OneLineParser(
        prog="qam", description="Remote procedure calls over AMQP for threaded Python."
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for each in _COMMANDS:
        each.add_to(commands)
    return parser


def _refuse_options_before_the_command(parser: running.OneLineParser, words: Sequence[str]) -> None:
    comes_first = len(words) > 1 and words[0].startswith("-")
    if comes_first and words[0] not in ("-h", "--help", "--version"):
        parser.error(f"{words[0]} is no option of qam itself; those of a command come after it")


def _take_more(parser: running.OneLineParser, options: Namespace, more: list[str]) -> None:
    """Let the arguments of a call stand behind its options, too."""
    takes_words = "words" in options
    if unknown := running.unknown_options(more) if takes_words else more:
        parser.prog += f" {options.command}" if options.command else ""
        hint = "; a text that begins with '-' comes after --" if takes_words else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if takes_words:
        if "--" in more:
            more.remove("--")
        options.words = [*options.words, *more]
