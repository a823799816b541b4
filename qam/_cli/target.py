"""Finds what ``qam serve`` is to offer: TARGET is a module, or something in a module."""

import difflib
import importlib
import os
import re
import sys
import traceback
from types import ModuleType
from typing import Any, NamedTuple

from qam._cli.exits import Mistake
from qam._common.error_texts import describe
from qam._common.static_inspection import is_class
from qam.exceptions import QAMConnectionException

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_TARGET = re.compile(rf"(?P<module>{_NAME})(:(?P<attribute>{_NAME})(?P<call>\(\))?)?")
_FORMS = "module, module:instance, module:server or module:factory()"
_MOST_NAMES = 8


class Target(NamedTuple):
    """A module, or something in it, or what a function in it returns."""

    module: str
    attribute: str
    is_called: bool


def parse(text: str) -> Target:
    """Return the target that *text* names.

    :raises Mistake: it has another form.
    """
    found = _TARGET.fullmatch(text)
    if found is None or text.partition(":")[0].endswith(".py"):
        raise Mistake(f"TARGET must be {_FORMS}, not {text!r:.100}{_hint(text)}")
    return Target(found["module"], found["attribute"] or "", found["call"] is not None)


def _hint(text: str) -> str:
    path, colon, attribute = text.partition(":")
    if not path.endswith(".py") and os.sep not in path:
        return ""
    folder, name = os.path.split(path.removesuffix(".py"))
    if not name.isidentifier():
        return f"; {name!r} can't be imported, since it is no identifier: rename the file"
    if folder.startswith((os.sep, os.pardir)):
        return f"; run qam in the folder {folder!r}, and write {name}{colon}{attribute}"
    module = os.path.join(folder, name).removeprefix("./").replace(os.sep, ".")
    return f"; a module has no path, so write {module}{colon}{attribute}"


def load(target: Target) -> Any:
    """Return what *target* names; imports its module, and calls its function.

    :raises Mistake: there is no such thing, or its code fails.
    :raises QAMConnectionException: its code can't reach the broker.
    """
    thing: Any = _imported(target.module)
    for name in filter(None, target.attribute.split(".")):
        thing = _attribute(thing, name, target)
    if target.is_called:
        return _returned_by(thing, target)
    if is_class(thing):
        raise Mistake(
            f"{target.module}:{target.attribute} is a class; write "
            f"'{target.module}:{target.attribute}()' to serve an instance of it"
        )
    return thing


def _imported(name: str) -> ModuleType:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _not_found(name, error) from error
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        raise Mistake(f"{name} can't be imported: {error.msg} in {where}; correct it") from error
    except QAMConnectionException:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(f"{name} can't be imported: it raised", error) from error


def _not_found(name: str, error: ModuleNotFoundError) -> Mistake:
    missing = error.name or ""
    if name == missing or name.startswith(f"{missing}."):
        module, _, attribute = name.rpartition(".")
        colon = f"; what is in a module comes after a colon, as {module}:{attribute}" * bool(module)
        return Mistake(
            f"there is no module {missing!r}; run qam in the folder that has it, put that folder "
            f"into PYTHONPATH, or install it{colon}"
        )
    return Mistake(f"{name} can't be imported: {error}; install it, or correct the import")


def _failed(what: str, error: BaseException) -> Mistake:
    """Return what is told of an *error* in the code of the target: which, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = describe(error)
    where = f"{frame.filename}, line {frame.lineno}"
    return Mistake(f"{what} {text} in {where}; --traceback shows the way there")


def _attribute(thing: Any, name: str, target: Target) -> Any:
    try:
        return getattr(thing, name)
    except AttributeError as error:
        there = [each for each in dir(thing) if not each.startswith("_")]
        close = difflib.get_close_matches(name, there, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {_listed(there)}"
        raise Mistake(f"{target.module} has no {target.attribute!r}; {hint}") from error


def _listed(names: list[str]) -> str:
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return (", ".join(names[:_MOST_NAMES]) or "no public names") + more


def _returned_by(factory: Any, target: Target) -> Any:
    name = f"{target.module}:{target.attribute}"
    if not callable(factory):
        raise Mistake(f"{name} can't be called; leave out the ()")
    try:
        return factory()
    except QAMConnectionException:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(f"{name}() raised", error) from error
