"""The programs of the tutorial print what the tutorial shows; all of them are on the page."""

import ast
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rabbitmq import RabbitMQNode

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/examples/tutorial"
PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
#: Program by program, what it prints.
SHOWN = dict(re.findall(r"^\$ python (\w+\.py)\n((?:[^$`].*\n)*)", PAGE, re.MULTILINE))
AT_A_BROKER = {"warehouse.py", "buyer.py"}


@pytest.fixture(autouse=True)
def in_the_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs import the modules beside them; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for name in ("items", "warehouse"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", sorted(set(SHOWN) - AT_A_BROKER))
def test_a_program_prints_what_the_page_shows(
    name: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    runpy.run_path(str(FOLDER / name), run_name="__main__")

    assert capsys.readouterr().out == SHOWN[name] != ""
    assert caplog.messages == []


def test_a_client_on_another_host_prints_what_the_page_shows(
    rabbitmq_node: RabbitMQNode,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # given
    monkeypatch.setenv("QAM_BROKER_URL", rabbitmq_node.url)
    make_server = runpy.run_path(str(FOLDER / "warehouse.py"))["make_server"]
    with make_server(rabbitmq_node.url) as server:
        server.start()

        # when
        runpy.run_path(str(FOLDER / "buyer.py"), run_name="__main__")

    # then
    assert capsys.readouterr().out == SHOWN["buyer.py"]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.py")))
def test_a_program_can_be_typed_in_from_the_page(name: str) -> None:
    program = (FOLDER / name).read_text(encoding="utf-8")

    shown = "".join(shown_of(name))

    assert ast.unparse(ast.parse(shown)) == ast.unparse(without_docstring(ast.parse(program)))


def shown_of(name: str) -> Iterator[str]:
    """The parts of a program that the page shows, in their order."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines(keepends=True)
    parts = rf"literalinclude\}} examples/tutorial/{name}\n:start-at: (.+)\n(?::end-at: (.+)\n)?```"
    for begin, end in re.findall(parts, PAGE):
        first = next(at for at, line in enumerate(lines) if begin in line)
        last = next((at for at, line in enumerate(lines) if end and end in line), len(lines))
        yield "".join(lines[first : last + 1])


def without_docstring(program: ast.Module) -> ast.Module:
    return ast.Module(program.body[1:], type_ignores=[])
