"""Which part of the package may import which: the order in which a newcomer can read them."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import qam

FOLDER = Path(qam.__file__).parent

# Each part imports only itself and what stands above it here; parts of one line know nothing
# of each other.  Imports that are for types only count too.
ORDER = [
    {"exceptions"},
    {"_common"},
    {"_serialization", "_broker"},
    {"_protocol"},
    {"_client", "_server"},
    {"qam_proxy", "qam_server", "amqp_credentials"},  # the doors
    {"calls", "aio"},
    {"_cli", "__init__"},
    {"__main__"},
]
LINE = {part: number for number, parts in enumerate(ORDER) for part in parts}


def name_of(path: Path) -> str:
    """The name by which the module in *path* is imported."""
    parts = path.relative_to(FOLDER.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(FOLDER.rglob("*.py"))}


def module_of(name: str) -> str:
    """The module that *name*, as "qam._common.fork.disown_in_child", is or is in."""
    while name not in FILES:
        name = name.rpartition(".")[0]
    return name


def part_of(module: str) -> str:
    """The package or the single module at the top that *module* belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(source: str) -> set[str]:
    """The modules of qam that *source* imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not looked at here"
            found |= {f"{node.module}.{each.name}" for each in node.names}
    return {module_of(name) for name in found if name.split(".")[0] == "qam"}


IMPORTS = {name: imports_of(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def test_every_part_has_its_place_and_every_place_its_part() -> None:
    assert {part_of(module) for module in FILES} == set(LINE)
    assert sum(map(len, ORDER)) == len(LINE), "a part stands in two lines"


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_its_own_part_and_what_stands_above_it(module: str) -> None:
    own = part_of(module)

    others = {name for name in IMPORTS[module] if part_of(name) != own}

    assert {name for name in others if LINE[part_of(name)] >= LINE[own]} == set()


def test_nothing_imports_in_a_circle_not_even_for_types() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_the_exceptions_import_nothing_of_the_package() -> None:
    assert IMPORTS["qam.exceptions"] == set()


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import typing
import qam._broker.events
from qam import _common, QAMProxy
from qam._common import fork
from qam.exceptions import QAMException
from os import path
if typing.TYPE_CHECKING:
    from qam import qam_proxy
    import qam.qam_server
else:
    from qam._server import open_deliveries
def function():
    import qam._client.result_list as slots
"""

    assert imports_of(source) == {
        "qam._broker.events",
        "qam._common",
        "qam",
        "qam._common.fork",
        "qam.exceptions",
        "qam.qam_proxy",
        "qam.qam_server",
        "qam._server.open_deliveries",
        "qam._client.result_list",
    }
