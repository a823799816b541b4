"""What a page says that its reader types, and what is shown then."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class File:
    """A program of a page, which the reader saves under the name in its first line."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line that is typed."""

    line: str
    #: What is shown then; None if the page does not say.
    shown: str | None = None

    @property
    def serves(self) -> bool:
        """Whether it runs on while the next commands are typed in another terminal."""
        return re.search(r"python (server|warehouse)\.py$|qam serve ", self.line) is not None

    def shows(self, output: str) -> bool:
        """Whether *output* is what the page shows, in which … stands for anything in a line."""
        if self.shown is None:
            return True
        pattern = ".*".join(map(re.escape, self.shown.split("…")))
        return re.fullmatch(pattern, output) is not None


def steps(page: str) -> Iterator[File | Command]:
    """Yield what the reader of *page* saves and types, in its order."""
    for kind, text in _BLOCK.findall(page):
        if kind == "python" and (named := _FILE_NAME.match(text)):
            yield File(named[1], text)
        elif kind == "sh":
            yield from (Command(line) for line in text.splitlines())
        elif kind == "console":
            for example in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                line, _, shown = example.partition("\n")
                yield Command(line, shown)
