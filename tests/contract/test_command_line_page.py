"""What the page on the command line shows comes of what it types, in real processes."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qam._cli import commands, exits
from tests.cli.conftest import in_process, serving
from tests.support.rabbitmq import RabbitMQNode

PAGE = (Path(__file__).parents[2] / "docs/topics/command-line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
#: What is typed, and what is shown then.
EXAMPLES = [
    (example.partition("\n")[0].split(), example.partition("\n")[2])
    for block in BLOCKS
    for example in re.split(r"^\$ qam ", block, flags=re.MULTILINE)[1:]
]


@pytest.fixture(scope="module")
def url(rabbitmq_node: RabbitMQNode) -> Iterator[str]:
    """A broker that nobody else uses, with the servers of the page."""
    vhost = "command-line-page"
    rabbitmq_node.add_vhost(vhost)
    rabbitmq_node.permit(rabbitmq_node.username, ".*", ".*", ".*", vhost=vhost)
    url = rabbitmq_node.url.removesuffix("/") + vhost
    with ExitStack() as stack:
        stack.callback(rabbitmq_node.delete_vhost, vhost)
        stack.enter_context(serving("calc", url=url))
        stack.enter_context(serving("calc:counter", "--server-id", "counter", url=url))
        yield url


def pattern_of(text: str) -> str:
    """What the page shows, in which … stands for anything in a line."""
    return ".*".join(map(re.escape, text.split("…")))


def test_each_example_shows_what_the_page_shows(url: str) -> None:
    assert len(EXAMPLES) >= 15
    for typed, shown in EXAMPLES:
        exit_code, output, errors = in_process(*typed, url=url)
        ends_with = f"[{exit_code}]\n" if exit_code else ""
        found = output + errors + ends_with
        assert re.fullmatch(pattern_of(shown), found), f"{typed}: {found}"


def test_each_command_is_on_the_page() -> None:
    names = [each.__name__.rpartition(".")[2] for each in commands._COMMANDS]
    listed = re.findall(r"^\| `qam ([a-z]+)[ `]", PAGE, re.MULTILINE)

    assert sorted(listed) == sorted(names)


def test_each_exit_code_is_on_the_page() -> None:
    codes = {value for value in vars(exits).values() if isinstance(value, int)}
    rows = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)

    assert sorted(codes) == [int(row) for row in rows]
