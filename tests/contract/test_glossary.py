"""The glossary is in order, and explains each word that it leans on."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/project/glossary.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^\| (?!word )([^|-][^|]*) \| (.*) \|$", PAGE, re.MULTILINE)
WORDS = [re.sub(r" \(.*\)", "", word) for word, _ in ENTRIES]


def has_entry(word: str) -> bool:
    """Whether *word*, perhaps in another form than its entry, is one of the words."""
    return any(word.startswith(entry.removesuffix("y")) for entry in WORDS)


def test_the_words_are_in_their_order_and_each_stands_once() -> None:
    assert sorted(set(WORDS), key=str.casefold) == WORDS


@pytest.mark.parametrize(("word", "meaning"), ENTRIES)
def test_each_word_that_is_explained_by_another_leads_to_an_entry(word: str, meaning: str) -> None:
    leads_to = re.findall(r"\*([^*]+)\*", meaning)

    assert [each for each in leads_to if not has_entry(each)] == []


def test_a_word_without_an_entry_is_found() -> None:
    assert has_entry("withdrawn")
    assert has_entry("properties")
    assert not has_entry("exchange")
