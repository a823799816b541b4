import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import qam

FOLDER = Path(qam.__file__).parent

CLIENT = {"_client_thread", "_client_consumer", "_client_publisher", "_callbacks", "qam_proxy"}
SERVER = {
    "_server_calls",
    "_record",
    "_siblings",
    "_server_consumer",
    "_server_workers",
    "_server_publisher",
    "qam_server",
}

# From the bottom up: a module imports what stands in its own layer or below.
LAYERS = [
    {
        "exceptions",
        "_deadline",
        "_serialization",
        "_wire",
        "_frames",
        "_messages",
        "_events",
        "_fork",
        "_waker",
        "amqp_credentials",
        "_acks",
        "_unconfirmed",
        "_recent",
        "_pickle_scan",
        "_pickle_names",
        "_pickle_bounds",
        "_pickle_states",
        "_numpy_pickles",
        "_printable",
        "_logs",
        "_trust",
        "_unpickler",
        "_prefetch",
        "_tls",
        "_connect_errors",
    },
    {
        "_slots",
        "_jobs",
        "_transport",
        "_readiness",
        "_memory",
        "_connection",
        "_owner",
        "_publishing",
        "_registry",
    },
    CLIENT | SERVER,
    {"__main__", "_demo"},
]
# The public face: stands beside the layers, and is imported by none of them.
FACE, FACE_MAY_IMPORT = "__init__", LAYERS[0] | LAYERS[2]

LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}


def imports_of(source: str) -> set[str]:
    """The modules of the package that *source* imports, except for its types only."""
    found: set[str] = set()
    for node in walk_without_types(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {module_of(name) for name in names if name.split(".")[0] == "qam"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not looked at here"
            if node.module == "qam":
                found |= {module_of(f"qam.{alias.name}") for alias in node.names}
            elif node.module is not None and node.module.startswith("qam."):
                found.add(module_of(node.module))
    return found


def walk_without_types(node: ast.AST) -> list[ast.AST]:
    """All nodes below *node*, but for what is imported under `if TYPE_CHECKING:`."""
    found = [node]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for otherwise in child.orelse:
                found += walk_without_types(otherwise)
        else:
            found += walk_without_types(child)
    return found


def module_of(name: str) -> str:
    """The module that *name* is, or is in; names that the face offers are the face's."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and (FOLDER / f"{parts[1]}.py").exists() else FACE


MODULES = {path.stem: imports_of(path.read_text()) for path in sorted(FOLDER.rglob("*.py"))}


def test_every_module_has_its_place_and_every_place_its_module() -> None:
    assert set(MODULES) == set(LAYER_OF) | {FACE}
    assert sum(map(len, LAYERS)) == len(LAYER_OF), "a module stands in two layers"
    assert LAYERS[2] == CLIENT | SERVER


@pytest.mark.parametrize("module", sorted(set(MODULES) - {FACE}))
def test_a_module_imports_nothing_from_above(module: str) -> None:
    above = {name for name in MODULES[module] if LAYER_OF.get(name, 99) > LAYER_OF.get(module, -1)}

    assert not above


def test_the_face_imports_what_it_offers_and_no_mechanism() -> None:
    assert MODULES[FACE] <= FACE_MAY_IMPORT


def test_neither_of_client_and_server_imports_the_other() -> None:
    for side, other in ((CLIENT, SERVER), (SERVER, CLIENT)):
        for module in side:
            assert not MODULES[module] & other, module


def test_nothing_imports_in_a_circle() -> None:
    try:
        TopologicalSorter(MODULES).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_the_exceptions_import_nothing_of_the_package() -> None:
    assert MODULES["exceptions"] == set()


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import typing
import qam._wire
from qam import _messages, QAMProxy
from qam.exceptions import QAMException
from os import path
if typing.TYPE_CHECKING:
    from qam import qam_proxy
    import qam.qam_server
else:
    from qam import _acks
def function():
    import qam._slots as slots
"""

    assert imports_of(source) == {"_wire", "_messages", FACE, "exceptions", "_acks", "_slots"}
