"""The pages on running, moving, and the how-tos: their links, their code, and their files."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.test_readme import _PRINTS, python_blocks
from tests.contract.test_security_page import anchors

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        ROOT / "docs/moving.md",
        *(ROOT / "docs/operations").glob("*.md"),
        *(ROOT / "docs/howto").glob("*.md"),
    ]
)
#: Pages whose blocks follow each other, and run.
THAT_RUN = ["docs/operations/running.md", "docs/howto/jupyter.md"]
#: Pages whose blocks are parts of files that they link to.
OF_FILES = ["docs/howto/retries.md", "docs/howto/web.md"]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_to_a_file_and_to_a_heading_in_it(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^):]*)\)", text_of(page))

    lost = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        if not target.is_file() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            lost.append(link)
    assert lost == []


def test_each_page_with_code_is_tested() -> None:
    with_code = {page for page in PAGES if python_blocks(page)}

    assert with_code - {*THAT_RUN, *OF_FILES} == {"docs/moving.md"}  # has tests of its own


@pytest.mark.parametrize("page", THAT_RUN)
def test_the_blocks_of_a_page_print_what_their_comments_say(page: str) -> None:
    code = "\n".join(python_blocks(page))
    if "await " in code:  # a notebook has an event loop
        body = "".join(f"    {line}\n" for line in code.splitlines())
        code = f"import asyncio\nasync def main():\n{body}\nasyncio.run(main())\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == _PRINTS.findall(code) != []


@pytest.mark.parametrize("page", OF_FILES)
def test_each_block_of_a_page_is_a_part_of_a_file_that_it_links_to(page: str) -> None:
    links = re.findall(r"\]\((\.\./examples/[^)]+\.py)\)", text_of(page))
    files = [((ROOT / page).parent / link).read_text(encoding="utf-8") for link in links]

    for block in python_blocks(page):
        assert any(block in file for file in files), block


# --- the files of the page on running a server --------------------------------------------------

DEPLOY = ROOT / "docs/examples/deploy"
RUNNING = text_of("docs/operations/running.md")


def test_the_lines_of_the_unit_on_the_page_are_in_the_unit() -> None:
    shown = re.findall(r"```ini\n(EnvironmentFile.*?)```", RUNNING, re.DOTALL)[0]
    unit = (DEPLOY / "qamserver.service").read_text(encoding="utf-8").splitlines()

    assert [line for line in shown.splitlines() if line not in unit] == []


def test_each_supervisor_waits_longer_than_the_server_takes_to_end() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.read(DEPLOY / "qamserver.service", encoding="utf-8")
    container = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    pod = (DEPLOY / "pod.yaml").read_text(encoding="utf-8")
    program = (DEPLOY / "health_over_http.py").read_text(encoding="utf-8")

    def number(pattern: str, text: str) -> int:
        return int(re.findall(pattern, text)[0])

    grace = number(r"--grace (\d+)", unit["Service"]["ExecStart"])
    assert number(r'"--grace", "(\d+)"', container) == grace
    assert number(r"close_timeout=(\d+)", program) == grace
    assert int(unit["Service"]["TimeoutStopSec"]) >= grace + 10
    assert number(r"--stop-timeout (\d+)", container) >= grace + 10
    assert number(r"terminationGracePeriodSeconds: (\d+)", pod) >= grace + 10


def test_the_container_starts_the_server_without_a_shell() -> None:
    container = (DEPLOY / "Containerfile").read_text(encoding="utf-8")

    assert re.search(r'^ENTRYPOINT \["qam", "serve", "stock"', container, re.MULTILINE)


def test_the_supported_versions_are_those_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    for name in ("amqp", "kombu"):
        low, high = re.findall(rf'"{name}>=([\d.]+),<(\d+)"', project)[0]
        assert f"| {name} | {low} and later, below {high} |" in RUNNING
    assert (
        f"| Python | {re.findall(r'requires-python = .>=([0-9.]+)', project)[0]} and later"
        in RUNNING
    )
