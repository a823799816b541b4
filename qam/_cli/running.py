"""Runs a command, and tells in one line why it failed."""

import logging
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any, NoReturn

from qam._cli import exits
from qam._cli.exits import Mistake, mistake_of
from qam._cli.output import discard_output, shown, tell
from qam.exceptions import QAMException


class OneLineParser(ArgumentParser):
    """Tells what is wrong with the arguments in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """End the process with the *message*."""
        text = shown(" ".join(message.split()))
        self.exit(exits.WRONG_USE, f"{self.prog}: {text}; see {self.prog} --help\n")


def run(options: Namespace) -> int:
    """Run the command that *options* names; return its exit code."""
    # Without a handler Python writes the library's warnings to stderr, beside the one line.
    log, handler = logging.getLogger("qam"), logging.NullHandler()
    log.addHandler(handler)
    try:
        exit_code: int = options.run(options)
    except Exception as error:
        return _tell(error, options)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    finally:
        log.removeHandler(handler)
    return exit_code


def _tell(error: Exception, options: Namespace) -> int:
    if isinstance(error, BrokenPipeError):  # as in: qam methods calc | head -1
        discard_output()
        return exits.UNREAD
    mistake = _as_mistake(error, getattr(options, "id", None))
    if options.traceback:
        traceback.print_exception(error)
    tell(f"qam {options.command}", str(mistake))
    return mistake.exit_code


def _as_mistake(error: Exception, server_id: str | None) -> Mistake:
    if isinstance(error, Mistake):
        return error
    if isinstance(error, QAMException):
        return mistake_of(error, server_id)
    return Mistake(
        f"an internal error, {type(error).__name__}: {error}; --traceback shows where, "
        "for a report to the authors",
        exits.FAILED,
    )


def unknown_options(words: Sequence[str]) -> list[str]:
    """Return those of *words* that are written as options."""
    before = words[: words.index("--")] if "--" in words else words
    return [each for each in before if each.startswith("-") and each[1:2] not in "0123456789."]
