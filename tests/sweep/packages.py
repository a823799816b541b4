"""What is swept: packages with all that comes with them, their modules, their exceptions."""

import contextlib
import importlib
import io
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from qam._common.static_inspection import name_of

PYTHON = "python"  # stands for the standard library, with the builtins
NAMED = (
    *("flask", "django", "requests", "sqlalchemy"),
    *("jsonschema", "celery", "botocore", "psycopg"),
)

# To import one of these opens a browser, writes on the screen, or runs programs or tests:
# GeoDjango's modules each look for a library by programs.
_ACTING = {"antigravity", "this", "idlelib", "turtledemo", "test", "django.contrib.gis"}
_ACTING_PARTS = {"__main__", "test", "tests"}


def plain(name: str) -> str:
    """The name of a distribution as all spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def with_what_comes_with(names: Iterable[str]) -> list[str]:
    """*names* and the distributions that they ask for, directly or not, where installed."""
    found, left = dict[str, None](), list(names)
    while left:
        name = plain(left.pop(0))
        with contextlib.suppress(PackageNotFoundError):
            asked_for = requires(name) or []
            if name not in found:
                found[name] = None
                left += [re.match(r"[\w.-]+", each)[0] for each in asked_for]  # type: ignore[index]
    return list(found)


def top_modules(distribution: str) -> list[str]:
    """The modules and packages that *distribution* puts among all."""
    if distribution == PYTHON:
        return sorted(sys.stdlib_module_names)
    return sorted(
        top
        for top, owners in packages_distributions().items()
        if top.isidentifier() and plain(distribution) in map(plain, owners)
    )


# --- modules ------------------------------------------------------------------------------


def import_all(tops: Iterable[str]) -> dict[str, str]:
    """Import all modules of *tops*; return those that were not, and why."""
    warnings.simplefilter("ignore")
    not_imported = dict[str, str]()
    for top in tops:
        for name in _import_with_inner(top, not_imported):
            not_imported.setdefault(name, "it acts when it is imported")
    return not_imported


def _import_with_inner(name: str, not_imported: dict[str, str]) -> Iterator[str]:
    """Import *name* and all in it; yield what acts."""
    if name in _ACTING or (name.rpartition(".")[2] in _ACTING_PARTS):
        yield name
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            module = importlib.import_module(name)
    except BaseException as error:  # also one that ends the process
        not_imported[name] = f"{type(error).__name__}: {error}".partition("\n")[0][:100]
        return
    for inner in pkgutil.iter_modules(getattr(module, "__path__", ())):
        yield from _import_with_inner(f"{name}.{inner.name}", not_imported)


def _prepare_django() -> None:
    from django.conf import settings

    contrib = ("admin", "auth", "contenttypes", "sessions", "messages", "sites", "flatpages")
    settings.configure(
        INSTALLED_APPS=[f"django.contrib.{name}" for name in contrib], SITE_ID=1, SECRET_KEY="x"
    )
    importlib.import_module("django").setup()


#: What has to be done before the modules of a distribution can be imported.
PREPARE: dict[str, Callable[[], None]] = {"django": _prepare_django}


# --- classes ------------------------------------------------------------------------------


def error_classes() -> list[type]:
    """Each class of exceptions that there is by now."""
    found, left = {BaseException: None}, [BaseException]
    while left:
        new = [cls for cls in type.__subclasses__(left.pop()) if cls not in found]
        found |= dict.fromkeys(new)
        left += new
    return sorted(found, key=name_of)


def classes_of(distribution: str, before: Iterable[type]) -> list[type]:
    """The exceptions that *distribution* defines: under its name, or new and nobody's."""
    own, others = set(top_modules(distribution)), set(sys.stdlib_module_names)
    others.update(packages_distributions(), ("qam", "tests"))
    known = set(map(id, before))
    tops = [(cls, name_of(cls)[0].partition(".")[0]) for cls in error_classes()]
    return [cls for cls, top in tops if top in own or (id(cls) not in known and top not in others)]
