"""Instances whose methods are looked up when they are called."""

import types
from collections.abc import Iterator
from typing import Any

import pytest

from qam._common.deadline import Deadline
from qam._server.dynamic_instances import NoSuchMethodError
from qam._server.method_registry import MethodRegistry
from qam.exceptions import QAMMethodNotFoundException


class Part:
    def __init__(self) -> None:
        self.looked_at = 0

    def add(self, a: int, b: int = 0, **more: int) -> int:
        return a + b + sum(more.values())

    @property
    def other(self) -> "Part":
        self.looked_at += 1
        return self

    @property
    def broken(self) -> Any:
        return [].missing  # type: ignore[attr-defined]

    number = 5

    def _private(self) -> None:
        """Never reached."""

    async def later(self) -> int:
        return 7

    def several(self) -> Iterator[int]:
        yield 1


@pytest.fixture
def registry() -> Iterator[MethodRegistry]:
    registry = MethodRegistry()
    yield registry
    registry.coroutines.close()
    registry.coroutines.join(Deadline(60))


def test_what_the_instance_got_later_is_found(registry: MethodRegistry) -> None:
    instance: Any = types.SimpleNamespace()
    registry.add_instance(instance, "box", dynamic=True)
    instance.part = Part()
    instance.json = __import__("json")

    assert registry.names == ["box.*"]
    assert registry.resolve("box.part.add", [1])() == 1
    applied = ["box.part.add", [1], {"self": 1, "parts": 2}]
    assert registry.resolve("box.json.dumps", [[1]])() == "[1]"
    with pytest.raises(TypeError):
        registry.resolve("system.apply", applied)()
    assert registry.resolve("system.apply", [applied[0], [1], {"b": 1, "parts": 2}])() == 4
    assert registry.resolve("box.part.later", [])() == 7


def test_properties_are_evaluated_at_the_call_and_not_before(registry: MethodRegistry) -> None:
    part = Part()
    registry.add_instance(part, "part", dynamic=True)
    method = registry.resolve("part.other.other.add", [1, 2])
    assert part.looked_at == 0
    assert method() == 3
    assert part.looked_at == 2


@pytest.mark.parametrize("path", ["_private", "other._private", "__init__", "a b", "", "other."])
def test_what_is_not_public_is_not_looked_up(registry: MethodRegistry, path: str) -> None:
    part = Part()
    registry.add_instance(part, "part", dynamic=True)
    with pytest.raises(QAMMethodNotFoundException):
        registry.resolve(f"part.{path}", [])
    assert part.looked_at == 0


@pytest.mark.parametrize("path", ["missing", "other.missing", "number", "add.missing"])
def test_what_is_not_there_or_no_method_is_told_at_the_call(
    registry: MethodRegistry, path: str
) -> None:
    registry.add_instance(Part(), "part", dynamic=True)
    with pytest.raises(NoSuchMethodError):
        registry.resolve(f"part.{path}", [])()


def test_what_a_property_raises_is_its_own_error(registry: MethodRegistry) -> None:
    registry.add_instance(Part(), "part", dynamic=True)
    with pytest.raises(AttributeError, match="missing"):
        registry.resolve("part.broken.add", [])()


def test_generators_are_refused_at_the_call(registry: MethodRegistry) -> None:
    registry.add_instance(Part(), "part", dynamic=True)
    with pytest.raises(TypeError, match="return a list"):
        registry.resolve("part.several", [])()


def test_it_is_never_the_default_and_takes_no_names(registry: MethodRegistry) -> None:
    with pytest.raises(ValueError, match="methods"):
        registry.add_instance(Part(), "part", only=["add"], dynamic=True)
    with pytest.raises(TypeError, match="dynamic"):
        registry.add_instance(Part(), "part", dynamic=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is a class"):
        registry.add_instance(Part, "part", dynamic=True)
    assert registry.names == []


def test_one_takes_the_place_of_another_of_its_name(registry: MethodRegistry) -> None:
    class Plain(Part):
        several = None  # type: ignore[assignment]

    part = Plain()
    registry.add_instance(part, "part", idempotent=["add"])
    registry.add_instance(part, "part", dynamic=True, idempotent=["other.add"])
    assert registry.names == ["part.*"]
    assert registry.is_idempotent("part.other.add", [])
    assert not registry.is_idempotent("part.add", [])

    registry.add_instance(part, "part")
    assert registry.names == ["part.add", "part.later"]
    with pytest.raises(QAMMethodNotFoundException):
        registry.resolve("part.other.add", [])
