"""The files on the page about testing are a project whose tests pass."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.test_readme import python_blocks
from tests.support.rabbitmq import RabbitMQNode

ROOT = Path(__file__).parents[2]
FILES = {block.splitlines()[0]: block for block in python_blocks("docs/topics/testing.md")}


def names() -> list[str]:
    return [first.removeprefix("# ") for first in FILES]


def run_the_project(folder: Path, *options: str, **environment: str) -> str:
    """What pytest says of the files of the page, in *folder*."""
    for name, block in zip(names(), FILES.values(), strict=True):
        (folder / name).write_text(block, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    surroundings = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env={**surroundings, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def test_each_block_of_the_page_is_a_file() -> None:
    assert len(FILES) == len(python_blocks("docs/topics/testing.md"))
    assert all(re.fullmatch(r"(test_\w+|conftest|shop)\.py", name) for name in names())


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    tests = "".join(FILES.values()).count("\ndef test_")

    said = run_the_project(tmp_path)

    assert re.search(rf"^{tests} passed in ", said, re.MULTILINE), said


@pytest.mark.rabbitmq
def test_they_pass_at_rabbitmq_too(tmp_path: Path, rabbitmq_node: RabbitMQNode) -> None:
    said = run_the_project(tmp_path, "test_at_rabbitmq.py", QAM_BROKER_URL=rabbitmq_node.url)

    assert "2 passed in " in said, said
