"""Collects the texts that the library can tell: of errors that it raises or logs, and of warnings.

They are collected from the sources, and by exclusion: each text of two words or more counts, unless
it stands where nobody is told of a mistake. So a text that is made in a new way is not missed.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import qam

PACKAGE = Path(qam.__file__).parent

#: What varies in a text, as pages write it.
VARIES = "…"

# They write what was asked for: results, a module, a demonstration.
_WRITE_NO_ERRORS = {"_cli/annotations.py", "_cli/demo.py", "_cli/stub.py"}
# Keyword arguments of argparse, by which commands explain themselves.
_OF_HELP = {"help", "description", "epilog", "usage", "metavar", "default_help"}
# Methods whose texts are below the level WARNING.
_BELOW_WARNING = {"debug", "info"}
# Functions to which the names of stations are given, which are logged at DEBUG.
_NOTING = {"note", "_note", "_log_station"}

_TWO_WORDS = re.compile(r"[A-Za-z]{2,}[,;:']?s? +\(?[A-Za-z]+")


class Text(NamedTuple):
    """A text, in which VARIES stands for what varies, and where it is made."""

    text: str
    module: str
    line: int


def told_texts() -> list[Text]:
    """Return the texts that the modules of the library can tell."""
    return [text for text in all_texts() if _TWO_WORDS.search(text.text)]


def all_texts() -> list[Text]:
    """Return these texts, and the single words from which some are put together."""
    paths = sorted(PACKAGE.rglob("*.py"))
    modules = {path.relative_to(PACKAGE).as_posix(): path for path in paths}
    return [
        Text(text, name, node.lineno)
        for name, path in modules.items()
        if name not in _WRITE_NO_ERRORS
        for node in _those_that_count(ast.parse(path.read_text(encoding="utf-8")))
        if (text := _template(node))
    ]


def _those_that_count(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the texts below *node*, without those that tell of no mistake."""
    if isinstance(node, ast.expr) and _template(node) is not None:
        yield node
    for child in _children_that_count(node):
        yield from _those_that_count(child)


def _children_that_count(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Call) and _name_of(node.func) in _BELOW_WARNING | _NOTING:
        return
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield from (*node.body, *node.decorator_list)
        return
    if isinstance(node, ast.JoinedStr):
        yield from (each.value for each in node.values if isinstance(each, ast.FormattedValue))
        return
    if isinstance(node, ast.AnnAssign):
        yield from [node.value] if node.value else []
        return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.keyword) and child.arg in _OF_HELP):
            yield child


def _name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _template(node: ast.AST) -> str | None:
    """Return the text that *node* makes; None if it makes none."""
    if isinstance(node, ast.Constant):
        return _with_gaps(node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return _with_gaps("".join(_part(each) for each in node.values))
    return None


def _part(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else VARIES


def _with_gaps(text: str) -> str:
    """Return *text*, which may be a format: of `%`, or of `str.format`."""
    text = re.sub(r"%[sdgr](?![a-z])|\{[a-z_]*\}", VARIES, text)
    return re.sub(rf"{VARIES}+", VARIES, text).strip()
