"""The page of the threat model leads to what it names: tests, headings, and promises."""

import re
from functools import partial
from pathlib import Path

import pytest
import trustme

import qam
from tests.contract.test_readme import execute, python_blocks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/topics/security.md").read_text(encoding="utf-8")
REPORTING = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE)))


def anchors(text: str) -> set[str]:
    """What a link can lead to in a page: its headings, as GitHub writes them there."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TESTS)
def test_each_file_of_tests_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_each_promise_has_its_tests() -> None:
    promises = re.findall(r"^\| (\d) \| ", PAGE, re.MULTILINE)
    tested = {
        number
        for row in re.findall(r"^\| promises? (.+)$", PAGE, re.MULTILINE)
        if "`tests/" in row
        for number in re.findall(r"\d", row.split("|")[0].split(":")[0])
    }

    assert promises == sorted(tested) != []


def test_each_link_into_the_page_leads_to_a_heading() -> None:
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    links += re.findall(r"\]\(docs/topics/security\.md#([^)]+)\)", REPORTING)

    assert links != []
    assert set(links) - anchors(PAGE) == set()


def test_the_bounds_of_the_page_are_those_of_the_tests() -> None:
    from tests.support.costs import MIB, allowed_memory

    (row,) = re.findall(r"^\| memory for \*n\* bytes, at most \| (.+) \|$", PAGE, re.MULTILINE)
    for serializer, cell in zip(["pickle", "json", "msgpack"], row.split(" | "), strict=True):
        match = re.fullmatch(r"(\d+) MiB \+ (\d+) \*n\*", cell)
        assert match
        free, per_byte = map(int, match.groups())
        assert allowed_memory(serializer, 1000) == free * MIB + per_byte * 1000


def test_each_block_of_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given the files that it names, and proxies that do not connect
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client = authority.issue_cert("alice@example.org")
    client.cert_chain_pems[0].write_to_path(tmp_path / "alice.pem")
    client.private_key_pem.write_to_path(tmp_path / "alice.key")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(qam, "QAMProxy", partial(qam.QAMProxy, connect=False))
    trusted: list[type] = []
    monkeypatch.setattr(qam, "trust", trusted.append)

    # when
    for block in python_blocks("docs/topics/security.md"):
        execute(block)

    # then
    assert [each.__name__ for each in trusted] == ["Point"]
