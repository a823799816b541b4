"""The page on troubleshooting has each text of an error or a warning, and no text that is gone."""

import re
from pathlib import Path

import pytest

from tests.support.told_texts import VARIES, Text, all_texts, told_texts

PAGE = Path(__file__).parents[2] / "docs/operations/troubleshooting.md"

# What is collected, and is no text of an error or a warning.
TELLS_NO_MISTAKE = [
    r"qam ([A-Z]\w+Thread|server \w+|resolver|served call|log thread|ping)( …)?",  # threads
    r"<.*>",  # what repr() shows, and what stands in an encoded message
    r"… QAMProxy of … at …|, (not connected yet|…connected; calls: …)|not connected",  # repr() too
    r"no timeout|timeout of … seconds",
    r"no methods",  # in a line of the log at INFO, as are the next
    r"by an? …|by an exception from the server|with a result|a call without an id",
    r"(returned|refused|not confirmed|published anew)\b.*",  # stations, logged at DEBUG
    r"stop consuming|give back",  # steps of closing
    r"Remote traceback:",  # begins a note on an exception
    r"… answer(s|ed) in … ms(; … … for …)?|no methods are registered",  # what commands print
]
# Texts of these are lists of the names of classes and fields.
HAVE_LISTS_OF_NAMES = {"_serialization/trust.py", "_serialization/dates_and_times.py"}


def counts(text: Text) -> bool:
    """Whether *text* tells of a mistake."""
    if text.module in HAVE_LISTS_OF_NAMES and re.fullmatch(r"(\w+ )+\w+", text.text):
        return False
    return not any(re.fullmatch(pattern, text.text) for pattern in TELLS_NO_MISTAKE)


def fixed(text: str) -> list[str]:
    """What does not vary in *text*."""
    return [piece for piece in text.split(VARIES) if piece.strip()]


def shown_texts() -> list[str]:
    """The texts in the first cells of the page's tables."""
    rows = re.findall(r"^\| (`.*?`) \| ", PAGE.read_text(encoding="utf-8"), re.M)
    shown = [each for row in rows for each in re.findall(r"``(.+?)``(?!`)|`([^`]+)`", row)]
    return [double or single for double, single in shown]


TEXTS = [text for text in told_texts() if counts(text)]
SHOWN = shown_texts()


def shows(shown: str, text: str) -> bool:
    """Whether *shown* has the fixed parts of *text*, in their order."""
    at = 0
    for piece in fixed(text):
        at = shown.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def test_many_texts_are_collected() -> None:
    texts = {text.text for text in TEXTS}

    assert len(texts) > 350
    assert "…; connecting again" in texts
    assert "… does not trust …: …" in texts
    assert "a callback raised an exception" in texts


@pytest.mark.parametrize("module", sorted({text.module for text in TEXTS}))
def test_each_text_of_a_module_is_on_the_page(module: str) -> None:
    of_module = [text for text in TEXTS if text.module == module]

    missing = [text for text in of_module if not any(shows(each, text.text) for each in SHOWN)]

    assert missing == []


def test_no_text_of_the_page_is_gone() -> None:
    pieces = {piece for text in all_texts() for piece in fixed(text.text) if len(piece) > 1}

    gone = {shown: left for shown in SHOWN if (left := what_nobody_tells(shown, pieces))}

    assert gone == {}


def what_nobody_tells(shown: str, pieces: set[str]) -> str:
    """What is left of *shown* without all that is told somewhere; empty if it is nothing."""
    told = [False] * len(shown)
    for piece in pieces:
        if piece in shown:
            for match in re.finditer(as_whole_words(piece), shown):
                told[match.start() : match.end()] = [True] * len(piece)
    left = "".join(letter for letter, done in zip(shown, told, strict=True) if not done)
    return re.sub(rf"[{VARIES}\s:;,.=()\[\]{{}}?']", "", left)


def as_whole_words(piece: str) -> str:
    before, after = (r"\b" if letter.isalnum() else "" for letter in (piece[0], piece[-1]))
    return f"{before}{re.escape(piece)}{after}"


def test_what_nobody_tells_any_more_is_found() -> None:
    pieces = {"the queue", "was deleted", "is"}

    assert what_nobody_tells("the queue … was deleted", pieces) == ""
    assert what_nobody_tells("the queue … was dismissed", pieces) == "wasdismissed"
