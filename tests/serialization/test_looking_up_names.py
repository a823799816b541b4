"""Names are looked at, never evaluated: what stands behind one may do anything when it is asked."""

import importlib.util
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from qam._common.error_inspection import find_class
from qam._common.static_inspection import own_class
from qam._serialization.trust import Trusted, imported
from qam._serialization.unpickler import loads
from tests.support.hostile_pickles import CALLS

NAME = "lazy_for_a_test"


class Proxy:
    """Evaluates what it stands for whenever it is asked for anything."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise AssertionError(f"it was asked for {name}")


class MetaProxy(type):
    """Of classes that do something when they are asked."""

    def __getattribute__(cls, name: str) -> NoReturn:
        raise AssertionError(f"it was asked for {name}")


def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(NAME)
    vars(module)["thing"] = Proxy()
    monkeypatch.setitem(sys.modules, NAME, module)


def a_module_that_is_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NAME, Proxy())  # type: ignore[arg-type]


def a_module_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module(types.ModuleType):
        def __getattribute__(self, name: str) -> NoReturn:
            raise AssertionError(f"it was asked for {name}")

    monkeypatch.setitem(sys.modules, NAME, Module(NAME))


def a_class_of_a_metaclass(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(NAME)
    vars(module)["thing"] = MetaProxy("thing", (), {"__module__": NAME})
    monkeypatch.setitem(sys.modules, NAME, module)


def none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NAME, None)  # type: ignore[arg-type]


KINDS = [
    *(proxied, a_module_that_is_a_proxy, a_module_of_another_kind, a_class_of_a_metaclass),
    none,
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("install", KINDS)
@pytest.mark.parametrize("name", ["thing", "thing.inner", "other"])
def test_nothing_is_asked_because_a_message_names_it(
    install: Callable[[pytest.MonkeyPatch], None],
    call: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch)

    with pytest.raises(pickle.UnpicklingError, match="is not trusted"):
        loads(CALLS[call](NAME, name, ()), Trusted())


@pytest.mark.parametrize("place", [NAME, "json", "zoneinfo", "numpy", "decimal"])
def test_a_lazy_module_stays_unloaded(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a module that runs its code when it is first asked for anything
    source = tmp_path / f"{NAME}.py"
    source.write_text("raise AssertionError('it was loaded')")
    spec = importlib.util.spec_from_file_location(NAME, source)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, place, module)
    spec.loader.exec_module(module)

    # when a message names what is in there
    for name in ("ZoneInfo", "ndarray", "Error", "JSONDecodeError"):
        with pytest.raises(pickle.UnpicklingError, match="is not trusted"):
            loads(CALLS["GLOBAL"](place, name, ()), Trusted())

    # then it is still lazy
    assert type(module) is not types.ModuleType
    monkeypatch.delitem(sys.modules, place)


def test_what_is_imported_in_the_usual_way_is_found() -> None:
    module = sys.modules[__name__]
    assert own_class(module, (__name__, "Proxy")) is Proxy
    assert find_class(("pickle", "UnpicklingError")) is None  # it says that it is _pickle's
    assert find_class(("_pickle", "UnpicklingError")) is pickle.UnpicklingError
    assert imported(__name__, "NAME") is NAME
    found: Any = imported("no_such_module", "x")
    assert found is None
