"""What a type of C or of the standard library takes unchecked is checked by the unpickler."""

import collections
import datetime
import enum
import fractions
import pathlib
import pickle
import pickletools
import sys
import uuid
import zoneinfo
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qam._serialization.trust import Trusted
from qam._serialization.unpickler import loads
from tests.support.hostile_pickles import CALLS, Named, calling

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PATHS = [pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath]


def build(body: bytes, *trusted: Any) -> Any:
    return loads(body, Trusted(trusted))


def opcodes_of(value: Any) -> bytes:
    return pickletools.optimize(pickle.dumps(value, 2))[2:-1]


class OwnDate(datetime.date):
    """An application's own."""


class OwnDatetime(datetime.datetime):
    """An application's own."""


MOMENTS = {
    datetime.date: 4,
    OwnDate: 4,
    datetime.time: 6,
    datetime.datetime: 10,
    OwnDatetime: 10,
}


@pytest.mark.parametrize("kind", MOMENTS)
@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.data())
def test_dates_and_times_are_real_or_refused(kind: type, data: st.DataObject) -> None:
    state = data.draw(st.binary(min_size=MOMENTS[kind], max_size=MOMENTS[kind]))
    body = b"\x80\x04c" + f"{kind.__module__}\n{kind.__qualname__}\n".encode()
    for made in (b"C" + bytes([len(state)]) + state + b"\x85R.",):
        try:
            built = build(body + made, OwnDate, OwnDatetime)
        except (pickle.UnpicklingError, TypeError):
            continue
        assert type(built).fromisoformat(built.isoformat()) == built
        if not issubclass(kind, datetime.time):
            assert built.ctime()


class Permission(enum.Flag):
    """An application's flags."""

    READ = 1
    WRITE = 2
    RUN = 4


class Mode(enum.IntFlag):
    """Flags that are numbers."""

    READ = 1
    WRITE = 2


class Shades(list, enum.Enum):  # type: ignore[type-arg]
    """Members that are lists."""

    DARK = [1]  # noqa: RUF012


class Table(dict, enum.Enum):  # type: ignore[type-arg]
    """Members that are dicts."""

    FIRST = {1: 1}  # noqa: RUF012


@pytest.mark.parametrize("call", ["GLOBAL", "STACK_GLOBAL", "OBJ", "INST", "NEWOBJ", "NEWOBJ_EX"])
def test_a_number_that_is_no_member_is_not_kept(call: str) -> None:
    before = dict(Mode._value2member_map_)
    for number in (5, 3, 1 << 40, -2, 1, 2, 0):
        assert build(CALLS[call](__name__, "Mode", (number,)), Mode) == Mode(number) | 0
    after = {
        number: made
        for number, made in Mode._value2member_map_.items()
        if number not in (5, 3, 1 << 40, -2, 0)
    }
    assert after.keys() <= before.keys() | {Mode(-2).value}


def test_no_message_adds_members_to_flags_that_are_numbers() -> None:
    before = dict(Mode._value2member_map_)
    for number in range(1000, 3000):
        build(calling(__name__, "Mode", number), Mode)
    assert Mode._value2member_map_ == before


def test_combinations_of_flags_are_what_they_are() -> None:
    both = Permission.READ | Permission.RUN
    for protocol in PROTOCOLS:
        assert build(pickle.dumps(both, protocol), Permission) is both
    with pytest.raises(ValueError, match="invalid value"):
        build(calling(__name__, "Permission", 1 << 20), Permission)


@pytest.mark.parametrize("number", [1.0, "1", None, True])
def test_a_combination_of_flags_is_a_whole_number(number: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="no whole number"):
        build(calling(__name__, "Permission", number), Permission)


def test_messages_add_some_thousands_of_combinations_to_flags_and_no_more() -> None:
    # given flags of which messages have named so many combinations
    names = [f"F{number}" for number in range(13)]
    many: Any = enum.Flag("Many", names, module=__name__, qualname="Many")
    combinations = [number for number in range(2**13) if number.bit_count() != 1]
    for number in combinations[:4096]:
        assert build(calling(__name__, "Many", number), many).value == number
    # when another one comes
    with pytest.raises(pickle.UnpicklingError, match="too many combinations"):
        build(calling(__name__, "Many", combinations[4096]), many)
    # then those that there are can still be sent
    assert build(calling(__name__, "Many", combinations[4095]), many).value == combinations[4095]
    assert build(calling(__name__, "Many", 1), many) is many.F0


@pytest.mark.parametrize(("cls", "name"), [(Shades, "DARK"), (Table, "FIRST")])
@pytest.mark.parametrize("filling", [b"K\x05a.", b"(K\x05e.", b"K\x05Ns.", b"(K\x05Nu."])
def test_a_member_is_never_filled(cls: Any, name: str, filling: bytes) -> None:
    member = cls[name]
    before = member.copy()
    body = pickle.dumps(member, 2)[:-1]
    with pytest.raises(pickle.UnpicklingError, match="may fill only containers"):
        build(body + filling, cls)
    assert member == before


@pytest.mark.parametrize("state", [{"int": 2**128}, {"int": -1}, {"int": [1]}, {}, ["int"]])
def test_a_uuid_is_a_number_of_128_bits(state: Any) -> None:
    body = CALLS["NEWOBJ"]("uuid", "UUID", ())[:-1] + opcodes_of(state) + b"b."
    with pytest.raises(pickle.UnpicklingError, match="128 bits"):
        build(body)
    assert build(pickle.dumps(uuid.UUID(int=2**128 - 1))) == uuid.UUID(int=2**128 - 1)


@pytest.mark.parametrize("name", ["deque", "defaultdict", "Counter", "OrderedDict"])
@pytest.mark.parametrize("field", ["default_factory", "maxlen", "__class__", "own"])
def test_a_state_sets_no_field_of_c(name: str, field: str) -> None:
    other = b"ccollections\n%b\n)R" % name.encode()
    body = calling("collections", name)[:-1] + b"N}" + opcodes_of(field) + other + b"s\x86b."
    try:
        built = build(body)
    except (pickle.UnpicklingError, TypeError):
        return
    assert not hasattr(getattr(collections, name), field)
    assert vars(built) == {field: getattr(collections, name)()}


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "No/Such", "a b", "x" * 500, 3])
def test_a_zone_is_looked_for_in_its_folder_only(key: Any) -> None:
    unpickle = b"cbuiltins\ngetattr\nczoneinfo\nZoneInfo\n" + opcodes_of("_unpickle") + b"\x86R"
    body = b"\x80\x02" + unpickle + opcodes_of(key) + b"K\x01\x86R."
    with pytest.raises(pickle.UnpicklingError, match="time zone"):
        build(body)


def test_a_zone_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    body = pickle.dumps(zoneinfo.ZoneInfo("Europe/Berlin"))
    assert build(body) is zoneinfo.ZoneInfo("Europe/Berlin")
    monkeypatch.setattr("zoneinfo._tzpath.TZPATH", ())
    monkeypatch.delitem(sys.modules, "tzdata.zoneinfo.Europe", raising=False)
    with pytest.raises(pickle.UnpicklingError, match="time zone"):
        build(body)
    assert "tzdata.zoneinfo.Europe" not in sys.modules


F8 = numpy.dtype("f8")


@pytest.mark.parametrize("spec", ["S0", "U0", "V0"])
@pytest.mark.parametrize("shape", [(1,), (2**31,), (2**20, 2**20)])
def test_arrays_of_items_without_bytes_are_refused(spec: str, shape: tuple[int, ...]) -> None:
    body = calling("numpy.core.numeric", "_frombuffer", b"", numpy.dtype(spec), shape, "C")
    with pytest.raises(pickle.UnpicklingError, match="size of an array"):
        build(body)


@pytest.mark.parametrize("shape", [(2**31, 0), (0, 2**40), (2**20, 2**20, 0)])
def test_arrays_of_no_items_have_no_rows_without_end(shape: tuple[int, ...]) -> None:
    made = calling("numpy.core.multiarray", "_reconstruct", Named("numpy", "ndarray"), (0,), b"b")
    with pytest.raises(pickle.UnpicklingError, match="size of an array"):
        build(made[:-1] + opcodes_of((1, shape, F8, False, b"")) + b"b.")
    assert build(pickle.dumps(numpy.zeros((0, 3)))).shape == (0, 3)


@pytest.mark.parametrize("kind", PATHS)
@settings(derandomize=True, deadline=None)
@given(st.lists(st.text(alphabet="ab./\\:?c$", max_size=12), max_size=4))
def test_paths_are_what_pathlib_makes_of_them(kind: Any, texts: list[str]) -> None:
    path = kind(*texts)
    for protocol in PROTOCOLS:
        body = pickle.dumps({path: 1}, protocol)
        built, plainly_built = build(body), pickle.loads(body)
        assert built == plainly_built
        assert [str(each) for each in built] == [str(each) for each in plainly_built]
    assert build(pickle.dumps({path})) == pickle.loads(pickle.dumps({path}))
    made = build(CALLS["GLOBAL"]("pathlib", kind.__name__, tuple(texts)))
    assert (made.parts, made.drive, made.root) == (path.parts, path.drive, path.root)


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("part", [1, None, b"a", pathlib.PurePosixPath("a")])
def test_paths_are_made_of_texts_only(kind: Any, part: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="texts only"):
        build(calling("pathlib", kind.__name__, "a", part))


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("texts", [("a" * 4097,), ("a",) * 4097, ("a" * 2000,) * 3, ("",) * 5000])
def test_long_paths_are_refused(kind: Any, texts: tuple[str, ...]) -> None:
    with pytest.raises(pickle.UnpicklingError, match="too long"):
        build(CALLS["GLOBAL"]("pathlib", kind.__name__, texts))
    assert build(CALLS["GLOBAL"]("pathlib", kind.__name__, ("a" * 4096,))).parts


@pytest.mark.skipif(
    not hasattr(sys, "getunicodeinternedsize"), reason="older ones free what is interned"
)
@pytest.mark.parametrize("kind", PATHS)
def test_the_texts_of_paths_are_not_kept(kind: Any) -> None:
    def interned() -> int:
        return sys.getunicodeinternedsize()  # type: ignore[attr-defined,no-any-return]

    def receive(start: int) -> None:
        for n in range(start, start + 500):
            body = CALLS["GLOBAL"]("pathlib", kind.__name__, (f"one{n}/two{n}", f"three{n}"))
            assert hash(build(body)) == hash(build(body))

    receive(0)
    before = interned()
    receive(1000)
    assert interned() - before < 100


def test_a_fraction_is_built_where_it_is_in_its_plain_form() -> None:
    for value in (fractions.Fraction(1, 3), fractions.Fraction(10**100, 3**99)):
        for protocol in PROTOCOLS:
            assert build(pickle.dumps([value] * 3, protocol)) == [value] * 3
