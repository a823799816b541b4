"""Types the commands of README and tutorial as a new user does; `tox run -e pages`.

They run in a copy of the checkout without anything that git does not know, with an empty home and
no settings but those of pip. Programs that a page shows are saved as it says. What comes has to be
what the page shows. A RabbitMQ of the tests stands for the reader's: for `localhost` in programs,
for BROKER_HOST in commands, and for the node of rabbitmqctl. The front page of the site is made of
the README.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.contract.test_package import ENVIRONMENT
from tests.support.rabbitmq import RabbitMQNode
from tests.typed.blocks import Command, File, steps
from tests.typed.terminal import Shown, Terminal

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/tutorial.md"]
GATE = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1]


def main() -> int:
    """Type all commands; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gate", action="store_true", help="type the line that checks all, too")
    options = parser.parse_args()
    seconds = 7200.0 if options.gate else 1800.0
    with RabbitMQNode(boot_timeout=300) as node:
        right = [each for page in PAGES for each in _follow(page, node, seconds, options.gate)]
    return 0 if all(right) else 1


def _follow(page: str, node: RabbitMQNode, seconds: float, gate: bool) -> list[bool]:
    with tempfile.TemporaryDirectory() as folder:
        return list(Reader(Path(folder), node, seconds).follow(page, gate=gate))


class Reader:
    """Follows a page in an environment of its own."""

    def __init__(self, folder: Path, node: RabbitMQNode, seconds: float) -> None:
        self._checkout = folder / "qam"
        self._home = folder / "home"
        self._home.mkdir()
        copy_checkout(self._checkout)
        self._node = node
        self._seconds = seconds
        self._programs: dict[str, File] = {}

    def follow(self, page: str, *, gate: bool) -> Iterator[bool]:
        """Do what *page* says, and yield for each command whether the right thing came."""
        environment = {**ENVIRONMENT, "HOME": str(self._home), "LANG": "C.UTF-8"}
        text = (self._checkout / page).read_text(encoding="utf-8")
        with Terminal(self._checkout, environment, self._seconds) as terminal:
            for step in steps(text):
                if isinstance(step, File):
                    self._save(step)
                elif gate or step.line != GATE:
                    yield self._told(page, step, terminal)

    def _save(self, file: File) -> None:
        text = file.text.replace('"localhost"', repr(self._node.url))
        (self._checkout / file.name).write_text(text, encoding="utf-8")
        self._programs[file.name] = file

    def _told(self, page: str, command: Command, terminal: Terminal) -> bool:
        began = time.monotonic()
        found = self._type(command, terminal)
        right = found.exit_code == 0 and command.shows(found.output)
        seconds = time.monotonic() - began
        print(f"{'as shown' if right else 'WRONG':8}  {seconds:5.1f} s  {page}: {command.line}")
        if not right:
            print(f"exit code {found.exit_code}, and:\n{found.output}", flush=True)
        return right

    def _type(self, command: Command, terminal: Terminal) -> Shown:
        line = command.line.replace("BROKER_HOST:5672", f"{self._node.host}:{self._node.port}")
        if line.startswith("sudo rabbitmqctl "):
            return Shown(self._node.ctl(*shlex.split(line)[2:]), 0)
        if command.serves:
            before = self._request_queues()
            return terminal.serve(
                line, lambda log: command.shows(log) and self._request_queues() > before
            )
        return terminal.type(line)

    def _request_queues(self) -> set[str]:
        return {name for name in self._node.queues() if name.endswith("_server_queue")}


def copy_checkout(to: Path) -> None:
    """Copy what git knows, or would add."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    subprocess.run(["git", "init", "--quiet"], cwd=to, check=True)
    subprocess.run(["git", "add", "--all"], cwd=to, check=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
