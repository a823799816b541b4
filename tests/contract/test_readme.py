"""The code in the documents is run as it stands, at a broker inside this process."""

import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

import qam

ROOT = Path(__file__).parents[2]
WAIT = 10.0  # seconds, for what takes none
BROKER = "localhost"  # what the documents call it

# What a line of code prints, as the comment behind it says.
_PRINTS = re.compile(r"print\(.*\)  # (.*)$", re.MULTILINE)


def python_blocks(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def is_server(block: str) -> bool:
    return ".serve()" in block


def execute(block: str) -> None:
    exec(compile(block, "<README>", "exec"), {"__name__": "readme"})


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> "Queue[qam.QAMServer]":
    """Makes BROKER mean one inside this process; hands out the servers that are made there."""
    url = f"memory://{uuid.uuid4().hex}"
    servers: Queue[qam.QAMServer] = Queue()

    class Server(qam.QAMServer):
        def __init__(self, hostname: str, **options: Any) -> None:
            assert hostname == BROKER
            super().__init__(url, **options)
            servers.put(self)

    class Proxy(qam.QAMProxy):
        def __init__(self, server_id: str, hostname: str, **options: Any) -> None:
            assert hostname == BROKER
            super().__init__(server_id, url, **options)

    monkeypatch.setattr(qam, "QAMServer", Server)
    monkeypatch.setattr(qam, "QAMProxy", Proxy)
    return servers


@contextmanager
def served(block: str, servers: "Queue[qam.QAMServer]") -> Iterator[None]:
    """Runs the block of a server in a thread, in which it serves until it is closed."""
    thread = threading.Thread(target=execute, args=[block])
    thread.start()
    server = servers.get(timeout=WAIT)  # its queue is declared: calls wait in it from now on
    try:
        yield
    finally:
        server.close()
        thread.join(WAIT)


@pytest.mark.parametrize(
    "client", [block for block in python_blocks("README.md") if not is_server(block)]
)
def test_a_client_of_the_readme_prints_what_its_comments_say(
    client: str, broker: "Queue[qam.QAMServer]", capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    (server,) = filter(is_server, python_blocks("README.md"))

    # when
    with served(server, broker):
        execute(client)

    # then
    assert capsys.readouterr().out.splitlines() == _PRINTS.findall(client)


@pytest.mark.parametrize("document", ["docs/topics/calling.md", "docs/topics/serving.md"])
def test_a_page_whose_examples_follow_each_other_prints_what_its_comments_say(
    document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = "\n".join(python_blocks(document))

    execute(page)

    assert capsys.readouterr().out.splitlines() == _PRINTS.findall(page) != []


def test_the_readme_has_a_server_and_clients() -> None:
    kinds = [is_server(block) for block in python_blocks("README.md")]

    assert kinds.count(True) == 1
    assert kinds.count(False) >= 2


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_the_readme_tests_with_the_line_that_ci_runs() -> None:
    last_line = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]

    assert f"```sh\n{last_line}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")


PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if "_build" not in path.parts
)


@pytest.mark.parametrize("document", PAGES)
def test_each_link_to_a_file_leads_to_one(document: str) -> None:
    path = ROOT / document
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))

    assert [target for target in targets if not (path.parent / target).is_file()] == []
