"""The command line: ``python -m qam demo``, ``python -m qam call ID METHOD`` and so on."""

import sys
from collections.abc import Sequence

from qam._cli import commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names; return the exit code.

    Blocks until the command is over.  What goes wrong is told in one line on stderr.

    :param argv: the arguments, without the program's name; None for those of the process.
    :returns: 0; 2 if the command is given something wrong, 3 if the broker can't be used, 130
        after Ctrl-C, 141 if the reader of stdout has gone; other codes are those of a command.
    :raises SystemExit: the arguments are wrong (2), or help was requested (0).
    """
    return commands.main(argv)


if __name__ == "__main__":
    sys.exit(main())
