"""The pages of the documentation: their links lead somewhere, and their examples run.

The examples of a page follow each other, and print what their comments say.
"""

import re
import tomllib
from pathlib import Path

import pytest

from tests.contract.test_readme import _PRINTS, execute, python_blocks
from tests.contract.test_security_page import anchors

ROOT = Path(__file__).parents[2]
#: What makes the site out of the pages is no page.
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts
)
RUN = [
    "docs/topics/guarantees.md",
    "docs/topics/several-servers.md",
]
#: The nodes of a cluster that pages name; a broker inside the process takes their place.
NODES = re.compile(r'\["rabbit1", [^]]+\]')


def in_text(page: str) -> str:
    """*page* without its blocks of code, in which brackets are no links."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", PAGES)
def test_each_link_leads_to_a_file_and_a_heading_in_it(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^):\s]+)\)", in_text(path.read_text(encoding="utf-8")))

    for link in links:
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("document", RUN)
def test_the_examples_of_a_page_print_what_their_comments_say(
    document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = "\n".join(python_blocks(document))

    execute(NODES.sub('"memory://rabbit"', page))

    assert capsys.readouterr().out.splitlines() == _PRINTS.findall(page)


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.findall(r"^## \[(.+)\]", changelog, re.MULTILINE)[0] == version["version"]


def test_each_public_module_is_on_the_page_of_what_is_public_and_no_other() -> None:
    page = (ROOT / "docs/project/public-api.md").read_text(encoding="utf-8")
    modules = {path.stem for path in (ROOT / "qam").glob("[!_]*.py")}

    listed = re.findall(r"^\| `(qam[\w.]*)` \|", page, re.MULTILINE)

    assert sorted(listed) == sorted(["qam", *(f"qam.{name}" for name in modules)])
