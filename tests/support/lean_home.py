"""A home for RabbitMQ that has the broker, and none of the plugins that come with it.

Erlang looks for each module in one folder of its path after the other, and RabbitMQ puts every
plugin that is there into that path, be it enabled or not: of the 58,000 files that a node opens as
it starts, 53,000 are not where they are looked for. Without those plugins it starts with 3.4 s of
CPU instead of 5.5 (measured with RabbitMQ 3.10, on a virtual machine with two CPUs).
"""

import os
import re
import shutil
from pathlib import Path

from tests.support.programs import other_root

# As Erlang writes what an application needs: {applications, [kernel, stdlib, rabbit_common]}.
_NEEDS = re.compile(r"\{\s*applications\s*,\s*\[([^]]*)\]")


def without_plugins(server_program: list[str], home: Path) -> list[str]:
    """The command that runs the same server from `home`, a folder that is made for it.

    Where RabbitMQ is laid out in a way that is not known here, that is `server_program` itself.
    """
    root = other_root()
    real = Path(os.path.realpath(root + server_program[-1])).parents[1]
    plugins = {folder.name.rpartition("-")[0]: folder for folder in (real / "plugins").glob("*-*")}
    if not (real / "escript").is_dir() or "rabbit" not in plugins:
        return server_program
    (home / "plugins").mkdir(parents=True)
    for name in _needed("rabbit", plugins):
        # As a path of the system that has the programs, which is where the server runs.
        inside = str(plugins[name]).removeprefix(root)
        (home / "plugins" / plugins[name].name).symlink_to(inside)
    (home / "escript").symlink_to(str(real / "escript").removeprefix(root))
    shutil.copytree(real / "sbin", home / "sbin")  # a link would lead them back to where they were
    return [*server_program[:-1], str(home / "sbin" / Path(server_program[-1]).name)]


def _needed(name: str, plugins: dict[str, Path]) -> set[str]:
    """The names of those of *plugins* without which `name` does not run, itself included."""
    needed, found = set[str](), {name}
    while found:
        needed |= found
        found = {each for one in found for each in _needs(plugins[one])} & plugins.keys() - needed
    return needed


def _needs(plugin: Path) -> list[str]:
    [description] = plugin.glob("ebin/*.app")
    lists = _NEEDS.findall(description.read_text())
    return [name.strip() for each in lists for name in each.split(",")]
