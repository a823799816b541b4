"""The pages of the site that are made of other sources have all that is in these."""

import importlib
import re
from pathlib import Path

import pytest

import qam

ROOT = Path(__file__).parents[2]
REFERENCE = "\n".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference").glob("*.md")
)
_ALL_MEMBERS = re.compile(r"^\.\. automodule:: (\S+)\n   :members:(.*)$", re.MULTILINE)
_ONE = re.compile(r"^\.\. auto(?:class|function):: (\S+\.)?(\w+)", re.MULTILINE)


def documented() -> set[str]:
    """The names that the pages of the reference have."""
    names = {name for _, name in _ONE.findall(REFERENCE)}
    for module, members in _ALL_MEMBERS.findall(REFERENCE):
        found = importlib.import_module(module)
        everything = getattr(found, "__all__", [each for each in vars(found) if each[0] != "_"])
        names.update(members.replace(" ", "").split(",") if members.strip() else everything)
    return names


@pytest.mark.parametrize("name", sorted({*qam.__all__, *qam.aio.__all__, "Health"}))
def test_each_public_name_is_in_the_reference(name: str) -> None:
    assert name in documented()


def test_the_front_page_is_the_readme_and_lacks_only_its_links_to_other_pages() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, _, rest = readme.partition("<!-- drawing -->")
    between, _, links = rest.partition("<!-- more -->")

    page = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert re.findall(r"^:(\S+): <!-- (.*) -->$", page, re.MULTILINE) == [
        ("end-before", "drawing"),
        ("start-after", "drawing"),
        ("end-before", "more"),
    ]
    assert before.startswith("# qam\n")
    assert "\n## " in between
    assert "\n## " not in links
