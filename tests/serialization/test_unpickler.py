"""The restricted unpickler: what it builds, and what it refuses, each by name."""

import array
import builtins
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import pickle
import resource
import struct
import subprocess
import sys
import time
import types
import typing
import uuid
import zoneinfo
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qam import QAMProxy, QAMSerializationException, trust
from qam._common.printable import printable
from qam._serialization.trust import EVERYWHERE, Trusted
from qam._serialization.unpickler import loads
from tests.conftest import Broker
from tests.support.examples import examples
from tests.support.hostile_pickles import (
    BOMBS,
    CALLS,
    GADGETS,
    Gadget,
    Named,
    calling,
    pairs_of_one_hash,
)
from tests.support.service import Service, make_server

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Point:
    """An application's value."""

    shade = "grey"

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    __hash__ = None  # type: ignore[assignment]


class OwnError(Exception):
    """An application's exception."""


Alias = OwnError


class Pair(typing.NamedTuple):
    """A value that is a tuple."""

    first: int
    second: str


class Names(list):
    """A value that is a list."""


class Zone(datetime.tzinfo):
    """A time zone of an application."""

    def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(hours=1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Zone)

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A value that can be a key."""

    x: Any


class Outer:
    """Has a class inside."""

    class Shade(enum.Enum):
        """Is inside, too."""

        DARK = 1

    class Inner:
        """Is inside."""


class Attributed(Exception):
    """An exception with attributes of its own, of which its class has defaults."""

    code: int | None = None
    details: Any = None


class Role(enum.Enum):
    """Its members are one for the whole process."""

    USER = "user"
    ADMIN = "admin"


class Slotted:
    """A value with slots."""

    __slots__ = ("x",)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and self.x == other.x

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(max(2, protocol))  # older ones can't


def slotted(x: Any) -> Slotted:
    made = Slotted()
    made.x = x
    return made


def build(body: bytes, *trusted: Any) -> Any:
    return loads(body, Trusted(trusted))


def build_reply(body: bytes, *trusted: Any) -> Any:
    """What a proxy builds: a reply may have exceptions of classes that are not trusted."""
    strangers = list[str]()
    built = loads(body, Trusted(trusted), strangers)
    assert strangers == []
    return built


SHARED = (1, "shared")
VALUES = [
    *(None, True, 3, 2**80, -1.5, 1j, "text", "ä\ud800", b"\x00\xff", bytearray(b"abc"), ...),
    *([1, [2]], (1, (2,)), {"a": {1: 2}}, {1, 2}, frozenset("ab"), range(5), slice(1, 2)),
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    datetime.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
    *(datetime.date(2026, 1, 2), datetime.time(3, 4), datetime.timedelta(days=1)),
    *(decimal.Decimal("1.50"), fractions.Fraction(-1, 3), uuid.UUID(int=5)),
    *(pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("c:/d")),
    *(ipaddress.ip_address("::1"), ipaddress.ip_network("10.0.0.0/8")),
    *(collections.Counter("abca"), collections.OrderedDict(b=1, a=2)),
    *(collections.deque([1, 2], 3), collections.defaultdict(list, {1: [2]})),
    *(array.array("i", [1, 2]), types.SimpleNamespace(a=1), time.gmtime(0)),
    # rows, as a database returns them; what is shared; long and deep enough for each path
    [(n, f"name {n % 7}", datetime.date(2026, 1, 1 + n % 28), None) for n in range(3000)],
    [(decimal.Decimal(n) / 7, n) for n in range(100)],
    [{"id": 2**63 + n, "names": ("a", "b")} for n in range(2500)],
    *([SHARED, SHARED, {SHARED: [SHARED]}], {(n, (n, n)): n for n in range(500)}),
    *(functools.reduce(lambda inner, _: (inner,), range(200), ()), 2**10_000),
    *(decimal.Decimal("1E+999999"), {1.5: 1, None: 2, datetime.date(2026, 1, 2): 3, -1: 4}),
    *({frozenset({1, (2, 3)})}, collections.ChainMap({"a": 1}), collections.UserList([1])),
    collections.UserString("text"),
    *(decimal.Decimal("0." + "3" * 28), [[]] * 50, [uuid.UUID(int=n) for n in range(300)]),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_built_in_every_protocol(value: Any, protocol: int) -> None:
    built = build(pickle.dumps(value, protocol))
    assert type(built) is type(value)
    assert built == value


ARRAYS = [
    *(numpy.arange(6).reshape(2, 3), numpy.array(5), numpy.asfortranarray(numpy.ones((2, 2)))),
    *(numpy.array(["a", "b"]), numpy.array([1, None], dtype=object)),
    *(numpy.zeros(3, dtype=[("a", "i4")]), numpy.float64(1.5), numpy.datetime64("2026-01-01")),
    *(numpy.dtype("f4"), numpy.bool_(True), numpy.dtype("O"), numpy.timedelta64(25, "us")),
    *(numpy.arange(3, dtype=">i8"), numpy.array(["2026-01-01"], dtype="M8[ns]")),
    *(numpy.zeros((0, 3)), numpy.array([b"ab", b"c"]), numpy.ones(2, dtype="c16")),
    numpy.array([(1, (2.0, 3.0), "x")], dtype=[("a", "i4"), ("b", "f8", (2,)), ("c", "U3")]),
    numpy.zeros(2, dtype=numpy.dtype([("a", "i1"), ("b", ">f8")], align=True)),
    numpy.array([(1, [2])], dtype=[("a", "i4"), ("b", "O")]),
    *(numpy.zeros(1, dtype=[("a", "i4")])[0], numpy.str_("text"), numpy.dtype("M8[25s]")),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", ARRAYS, ids=repr)
def test_arrays_scalars_and_dtypes_of_numpy_are_built(value: Any, protocol: int) -> None:
    body = pickle.dumps(value, protocol)
    built, plainly_built = build(body), pickle.loads(body)
    assert type(built) is type(value)
    assert getattr(built, "dtype", built) == getattr(plainly_built, "dtype", plainly_built)
    assert numpy.array_equal(numpy.asarray(built), numpy.asarray(value))


def dtype_with(state: Any, spec: str = "V8") -> bytes:
    """What puts a dtype with *state* on the stack, and into the memo at place 0."""
    made = calling("numpy", "dtype", spec, False, True)[2:-1]
    return made + b"q\x00" + pickle.dumps(state, 2)[2:-1].replace(b"q\x00", b"") + b"b"


LIES = {
    # eight bytes as a pointer to an object, in a dtype that says it has none
    "hidden object": (3, "|", None, ("a",), {"a": (numpy.dtype("O"), 0)}, 8, 1, 0),
    "field beyond the item": (3, "|", None, ("a",), {"a": (numpy.dtype("i4"), 10**8)}, 8, 1, 0),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_dtype_is_what_numpy_makes_of_its_description(lie: str) -> None:
    octets = b"X\x08\x00\x00\x00AAAAAAAA"
    array = Named("numpy", "ndarray")
    body = calling("numpy.core.multiarray", "_reconstruct", array, (0,), b"b")[:-1]
    body += b"(K\x01K\x01\x85" + dtype_with(LIES[lie]) + b"\x89"
    with pytest.raises(pickle.UnpicklingError, match="of numpy is not as numpy writes it"):
        build(body + octets + b"tb.")


NDARRAY = Named("numpy", "ndarray")
F8 = numpy.dtype("f8")
NOT_AS_NUMPY_WRITES_IT = {
    "dtype of a list": calling("numpy", "dtype", ["f8"], False, True),
    "dtype of several": calling("numpy", "dtype", "f8,f8", False, True),
    "array of another kind": calling("numpy.core.multiarray", "_reconstruct", F8, (0,), b"b"),
    "scalar of objects": calling("numpy.core.multiarray", "scalar", numpy.dtype("O"), b"x" * 8),
    "scalar of no bytes": calling("numpy.core.multiarray", "scalar", F8, [1]),
    "short scalar": calling("numpy.core.multiarray", "scalar", F8, b"x"),
    "buffer in no order": calling("numpy.core.numeric", "_frombuffer", b"x" * 8, F8, (1,), "X"),
    "long buffer": calling("numpy.core.numeric", "_frombuffer", b"x" * 9, F8, (1,), "C"),
    "buffer of no shape": calling("numpy.core.numeric", "_frombuffer", b"x" * 8, F8, (-1,), "C"),
    "titles": dtype_with((3, "|", None, ("a",), {"a": (F8, 0, "A")}, 8, 1, 0)) + b".",
    "field of no dtype": dtype_with((3, "|", None, ("a",), {"a": ("f8", 0)}, 8, 1, 0)) + b".",
    "subarray of no shape": dtype_with((3, "|", (F8, [2]), None, None, 8, 1, 0)) + b".",
    "no unit": dtype_with((4, "<", None, None, None, -1, -1, 0, (None, (b"xx", 1, 1, 1))), "M8")
    + b".",
    "no state of a dtype": dtype_with((3, "|")) + b".",
    "no state of an array": calling("numpy.core.multiarray", "_reconstruct", NDARRAY, (0,), b"b")[
        :-1
    ]
    + b"N)\x86b.",
    "data for an array that has some": pickle.dumps(numpy.ones(1), 2)[:-1]
    + pickle.dumps((1, (1,), F8, False, b"x" * 8), 2)[2:-1]
    + b"b.",
}


@pytest.mark.parametrize("name", NOT_AS_NUMPY_WRITES_IT)
def test_what_numpy_would_not_write_is_refused(name: str) -> None:
    body = NOT_AS_NUMPY_WRITES_IT[name]
    with pytest.raises(pickle.UnpicklingError, match="of numpy is not as numpy writes it"):
        build(body if body.startswith(b"\x80") else b"\x80\x02" + body)


NOT_AS_PICKLERS_WRITE_IT = {
    "bytes": calling("builtins", "bytes", b"abc"),
    "bytearray": calling("builtins", "bytearray", "text", "rot13"),
    "array": calling("array", "array", "b", range(3)),
    "Decimal": calling("decimal", "Decimal", 3),
    "Fraction": calling("fractions", "Fraction", 1.5),
    "list": calling("builtins", "list", [1]),
    "UserList": calling("collections", "UserList", [1]),
    "slice of an instance": calling("builtins", "slice", Point(1, 2)),
    "long number in a call": calling("builtins", "complex", 2**20_000),
    "instance of a function": CALLS["NEWOBJ"](__name__, "build", ()),
    "deque by NEWOBJ of Decimal": CALLS["NEWOBJ"]("decimal", "Decimal", ("1",)),
    "plain object that is none": calling("copyreg", "_reconstructor", Point, list, (1,)),
    "forged member": calling("copyreg", "_reconstructor", Role, int, 1),
    "state of a function": calling("builtins", "ValueError")[:-1] + b"cbuiltins\nlist\n}b.",
    "state that is no dict": calling("builtins", "ValueError")[:-1] + b"]b.",
    "notes that are no texts": calling("builtins", "ValueError")[:-1]
    + pickle.dumps({"__notes__": 5}, 2)[2:-1]
    + b"b.",
    "field of an exception": calling("builtins", "OSError")[:-1]
    + pickle.dumps({"filename": [1]}, 2)[2:-1]
    + b"b.",
    "append to a Counter": calling("collections", "Counter")[:-1] + b"K\x01a.",
}


@pytest.mark.parametrize("name", NOT_AS_PICKLERS_WRITE_IT)
def test_what_no_pickler_writes_is_refused(name: str) -> None:
    with pytest.raises(pickle.UnpicklingError):
        build(NOT_AS_PICKLERS_WRITE_IT[name], Point, Role, build)


def test_what_was_made_with_a_dtype_keeps_it_when_the_message_describes_it_anew() -> None:
    plain = calling("numpy", "dtype", "i4", False, True)[2:-1] + b"q\x00"
    state = pickle.dumps((3, ">", None, None, None, -1, -1, 0), 2)[2:-1]
    first, second = build(b"\x80\x02]" + plain + b"ah\x00" + state + b"b\x86.")
    assert first == [numpy.dtype("i4")]
    assert second == numpy.dtype(">i4")
    assert numpy.dtype("i4").isnative


@pytest.mark.parametrize(
    "state", [(1, (10**9,), numpy.dtype("i4"), False, b"abcd"), (1, (3,), numpy.dtype("O"), 0, [1])]
)
def test_an_array_takes_exactly_the_data_that_its_shape_needs(state: Any) -> None:
    made = numpy.zeros(1).__reduce__()[0]
    body = calling(made.__module__, "_reconstruct", Named("numpy", "ndarray"), (0,), b"b")
    with pytest.raises(pickle.UnpicklingError, match="of numpy is not as numpy writes it"):
        build(body[:-1] + pickle.dumps(state, 2)[2:-1] + b"b.")


def test_an_array_is_not_made_large_by_its_name_alone() -> None:
    reconstruct = numpy.zeros(1).__reduce__()[0]
    with pytest.raises(pickle.UnpicklingError, match="not as numpy writes it"):
        build(calling(reconstruct.__module__, "_reconstruct", numpy.ndarray, (10**10,), b"b"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exceptions_that_are_imported_are_built(protocol: int) -> None:
    for error in (ValueError("x", 3), OwnError("own"), FileNotFoundError(2, "none", "name")):
        built = build_reply(pickle.dumps(error, protocol))
        assert type(built) is type(error)
        assert built.args == error.args


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exceptions_keep_what_they_have_beside_their_arguments(protocol: int) -> None:
    error = Attributed("why")
    error.add_note("a note")
    error.code, error.details = 3, {"a": [1]}
    for each in (error, ImportError("no", name="this", path="there")):
        built = build_reply(pickle.dumps(each, protocol))
        assert type(built) is type(each)
        assert vars(built) == vars(each)
        assert getattr(built, "name", None) == getattr(each, "name", None)


def test_an_exception_has_one_name_and_builtin_ones_those_that_they_had() -> None:
    with pytest.raises(pickle.UnpicklingError, match="Alias is not trusted"):
        build(f"c{__name__}\nAlias\n.".encode())
    assert build(b"cbuiltins\nIOError\n.") is OSError


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_trusted_is_built_and_nothing_else_of_its_module(protocol: int) -> None:
    body = pickle.dumps([Point(1, 2)], protocol)
    with pytest.raises(pickle.UnpicklingError, match=r"Point is not trusted$"):
        build(body)
    assert build(body, Point) == [Point(1, 2)]
    assert build(body, __name__) == [Point(1, 2)]
    assert build(body, f"{__name__}.Point") == [Point(1, 2)]
    with pytest.raises(pickle.UnpicklingError, match="Slotted is not trusted"):
        build(pickle.dumps(Slotted, protocol), Point)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("gadget", GADGETS, ids=lambda gadget: ".".join(gadget[:2]))
def test_gadgets_are_refused_by_name(gadget: Gadget, call: str) -> None:
    module, name, arguments = gadget
    # Python 2's name for a module is understood, and refused as python_3_name's.
    python_3_name = pickle._compat_pickle.IMPORT_MAPPING.get(module, module)  # type: ignore[attr-defined]
    with pytest.raises(pickle.UnpicklingError) as refused:
        build(CALLS[call](module, name, arguments))
    assert str(refused.value).startswith(f"{python_3_name}.{name} is not trusted")


@pytest.mark.parametrize("call", CALLS)
def test_no_attribute_is_reached_by_getattr_however_it_is_called(call: str) -> None:
    with pytest.raises((pickle.UnpicklingError, TypeError)):
        build(CALLS[call]("builtins", "getattr", ("text", "format")))


def test_getattr_is_refused_for_what_is_trusted_too() -> None:
    for owner, attribute in ((Point, "__init__"), (uuid.UUID, "__class__")):
        body = calling("builtins", "getattr", owner, attribute)
        with pytest.raises(pickle.UnpicklingError, match="getattr is not trusted"):
            build(body, Point)


def test_nothing_is_imported_on_behalf_of_a_message() -> None:
    name = "this"
    assert name not in sys.modules
    with pytest.raises(pickle.UnpicklingError, match="not trusted"):
        build(f"c{name}\nd\n.".encode())
    assert name not in sys.modules


def test_codecs_encode_serves_only_to_write_bytes() -> None:
    assert build(pickle.dumps(b"\xff", 2)) == b"\xff"
    with pytest.raises(pickle.UnpicklingError, match="latin1"):
        build(calling("_codecs", "encode", "x", "rot13"))


@pytest.mark.parametrize("target", [Point, OwnError, uuid.UUID, collections.Counter, ValueError])
def test_what_a_message_names_it_can_not_change(target: type) -> None:
    before = dict(vars(target))
    named = b"c" + target.__module__.encode() + b"\n" + target.__qualname__.encode() + b"\n"
    for state in (b"}X\x05\x00\x00\x00shadeK\x01s", b"N}X\x05\x00\x00\x00shadeK\x01s\x86"):
        with pytest.raises((pickle.UnpicklingError, TypeError, AttributeError)):
            build(b"\x80\x02" + named + state + b"b.", Point)
    assert dict(vars(target)) == before


OF_TRUSTED_CLASSES = [
    *(Pair(1, "a"), [Names([1, 2]), Names()], Outer.Shade.DARK, [Outer.Shade.DARK] * 2),
    datetime.datetime(2026, 1, 2, tzinfo=Zone()),
    {Frozen((1, Frozen("a"))): Pair(2, "b"), Frozen(2): [Frozen(3)]},
    [Frozen(n) for n in range(1000)],
    *([slotted(1)] * 2, slotted("x")),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", OF_TRUSTED_CLASSES, ids=lambda value: type(value).__name__)
def test_values_of_trusted_classes_are_built_in_every_protocol(value: Any, protocol: int) -> None:
    built = build(pickle.dumps(value, protocol), __name__)
    assert type(built) is type(value)
    assert built == value


def test_a_trusted_module_may_have_a_name_that_python_2_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("commands")  # which is subprocess python_3_name
    exec("class Command:\n    pass", vars(module))
    monkeypatch.setitem(sys.modules, "commands", module)
    body = pickle.dumps(module.Command(), 4)
    assert type(build(body, module)) is module.Command
    with pytest.raises(pickle.UnpicklingError, match="not trusted"):
        build(body)


def test_what_is_one_for_the_whole_process_is_not_changed_by_a_message() -> None:
    state = pickle.dumps({"_value_": "admin"}, 2)[2:-1] + b"b."
    zone = pickle.dumps(zoneinfo.ZoneInfo("UTC"), 2)[:-1]
    utc = pickle.dumps(datetime.UTC, 2)[:-1]
    bodies = [
        calling(__name__, "Role", "user")[:-1],
        calling("uuid", "SafeUUID", 0)[:-1],
        zone,
        utc,
    ]
    for body in bodies:
        with pytest.raises(pickle.UnpicklingError, match="a message may not change"):
            build(body + state, Role)
    assert Role.USER.value == "user"
    assert uuid.SafeUUID(0).value == 0
    assert build(pickle.dumps([Role.USER, Role.ADMIN]), Role) == [Role.USER, Role.ADMIN]


def test_an_exception_stays_what_it_is() -> None:
    made = calling("builtins", "ValueError")[:-1]
    other = b"}" + b"X\x09\x00\x00\x00__class__" + b"cbuiltins\nOSError\nsb."
    cause = b"}" + b"X\x09\x00\x00\x00__cause__" + made[2:] + b"sb."
    for state in (other, cause):
        with pytest.raises(pickle.UnpicklingError, match="special attributes"):
            build(made + state)


def test_a_message_calls_only_what_it_names_and_fills_only_containers() -> None:
    made = pickle.dumps(Point(1, 2), 2)[2:-1]
    called = b"\x80\x02" + made + b")R."
    appended = b"\x80\x02" + made + b"K\x01a."
    put = b"\x80\x02" + made + b"K\x01K\x02s."
    special = b"\x80\x02" + made + b"N}X\x09\x00\x00\x00__class__K\x01s\x86b."
    for body in (called, appended, put, special):
        with pytest.raises(pickle.UnpicklingError, match="a message may"):
            build(body, Point)


def test_bombs_are_refused_before_they_cost_anything() -> None:
    # In a process with bounded memory, because one that went off could not be stopped in this one.
    def bound_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.hostile_pickles"],
        capture_output=True,
        text=True,
        timeout=280,
        preexec_fn=bound_memory,
    )
    outcomes = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(outcomes) == list(BOMBS), done.stderr
    assert {name for name in outcomes if not outcomes[name].startswith("refused")} == set()


def _whole_number(octets: int) -> bytes:
    """What puts a number of so many bytes on the stack, and leaves it in the memo."""
    return b"\x8b" + struct.pack("<i", octets) + b"\1" * octets + b"q\0"


def _many(made: bytes, times: int = 12_000) -> bytes:
    return b"](" + made * times + b"e"


_NAMESPACE, _ERROR = b"ctypes\nSimpleNamespace\n", b"cbuiltins\nValueError\n"
_POINT = f"c{__name__}\nPoint\n".encode()
_LONG = _whole_number(10_000)
# Each has a number of some kilobytes, and that in many places.
OFTEN_THERE = {
    "got by its place": _LONG + _many(b"h\0"),
    "got by its line": _LONG + _many(b"g0\n"),
    "doubled": b"](" + _LONG + b"2" * 12_000 + b"e",
    "in a state": b"}X\1\0\0\0a" + _LONG + b"sq\0" + _many(_NAMESPACE + b")Rh\0b"),
    "in what is trusted": _LONG + b"K\1\x86q\0" + _many(_POINT + b"h\0R"),
    "in errors": b"(" + _whole_number(250) * 900 + b"tq\0" + _many(_ERROR + b"h\0R", 400),
}


@pytest.mark.parametrize("way", OFTEN_THERE)
def test_what_is_built_is_not_much_longer_when_it_is_encoded_again(way: str) -> None:
    """As the result of a method that returns what it was given."""
    body = b"\x80\x02" + OFTEN_THERE[way] + b"."
    try:
        size = len(pickle.dumps(build(body, Point)))
    except pickle.UnpicklingError:
        return
    assert size <= 64 * 2**20 + 80 * len(body)


def test_a_number_that_picklers_write_may_stand_in_many_places() -> None:
    numbers = [2**64 + number for number in range(1000)]
    assert build(pickle.dumps([numbers, *numbers, numbers])) == [numbers, *numbers, numbers]


def test_pairs_of_one_hash_have_one_hash() -> None:
    """Else the bombs made of them would be none."""
    pairs = [pickle.loads(b"\x80\x04" + pair + b"\x86.") for pair in pairs_of_one_hash(100)]
    assert len(set(pairs)) == 100
    assert len(set(map(hash, pairs))) == 1


def test_deep_nesting_harms_nobody(broker: Broker, server_id: str) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    body = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    assert len(build(body)) == 1
    with make_server(Service(), server_id=server_id, **broker.kwargs) as server:
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs) as proxy:
            with pytest.raises(QAMSerializationException):
                proxy.echo(deep)
            assert proxy.add(1, 2) == 3
    while deep:
        deep = deep[0]


@examples(300)
@given(st.binary(max_size=200))
def test_random_bytes_build_nothing_but_values(body: bytes) -> None:
    _build_or_refuse(body)


@examples(300)
@given(st.data())
def test_mutated_messages_build_nothing_but_values(data: st.DataObject) -> None:
    request = {"id": 1, "method_name": "add", "params": (uuid.UUID(int=1), [b"x"], {"a": 1.5})}
    body = bytearray(pickle.dumps(request, data.draw(st.sampled_from(list(PROTOCOLS)))))
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    _build_or_refuse(bytes(body))


def _build_or_refuse(body: bytes) -> None:
    try:
        built = build(body)
    except Exception:
        return
    assert not callable(built) or isinstance(built, type)


# --- trust ---------------------------------------------------------------------------------


@pytest.fixture
def trust_again() -> Iterator[None]:
    """What a test trusts everywhere is not trusted after it."""
    things, modules = dict(EVERYWHERE._things), dict(EVERYWHERE._modules)
    yield
    EVERYWHERE._things, EVERYWHERE._modules = things, modules


def test_trust_is_for_classes_functions_modules_and_names(trust_again: None) -> None:
    assert trust(Point, "uuid", f"{__name__}.Slotted", f"{__name__}.Outer.Inner") is Point
    assert type(loads(pickle.dumps(Outer.Inner()), EVERYWHERE)) is Outer.Inner
    trust(sys.modules[__name__])
    assert loads(pickle.dumps(Role.USER), EVERYWHERE) is Role.USER
    for wrong in ("", ".models", "a b", "x:y"):
        with pytest.raises(ValueError, match="is not the name"):
            trust(wrong)
    with pytest.raises(TypeError, match=r"write the decorator as @qam\.trust"):
        trust()
    for things in (Point, "uuid"):
        with pytest.raises(TypeError, match="trusted must be a list"):
            QAMProxy("server", "memory://trust", trusted=things)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="trust takes"):
        trust(3)
    with pytest.raises(ImportError):
        trust("no_such_module")
    with pytest.raises(ValueError, match="neither"):
        trust(f"{__name__}.Missing")
    with pytest.raises(ValueError, match="local"):
        trust(lambda: 0)


@pytest.mark.parametrize("how", ["everywhere", "here", "module"])
def test_an_application_object_travels_after_one_trust(
    broker: Broker, server_id: str, how: str, trust_again: None, caplog: pytest.LogCaptureFixture
) -> None:
    def shift(point: Point) -> Point:
        return Point(point.x + 1, point.y)

    options: dict[str, Any] = {"trusted": [Point]} if how == "here" else {}
    with make_server(Service(), server_id=server_id, **broker.kwargs, **options) as server:
        server.register_function(shift)
        server.start()
        with QAMProxy(server_id, timeout=60, **broker.kwargs, **options) as proxy:
            if how != "here":
                # without it, receiver and caller are told what to do
                name = f"{__name__}.Point"
                advice = f"trust {name}: call qam.trust({name}) in the server's process"
                with pytest.raises(QAMSerializationException) as no:
                    proxy.shift(Point(1, 2))
                assert no.value.executed == "no"
                assert str(no.value).endswith(f"the server {server_id!r} does not {advice}")
                assert advice in caplog.text
                server.register_function(lambda: Point(1, 2), "origin")
                with pytest.raises(QAMSerializationException) as yes:
                    proxy.origin()
                assert yes.value.executed == "yes"
                trust(Point if how == "everywhere" else __name__)
            assert proxy.shift(Point(1, 2)) == Point(2, 2)


def test_text_from_elsewhere_is_made_fit_for_a_line() -> None:
    assert printable("a\nb\x1b[0m") == "a\\nb\\x1b[0m"
    assert len(printable("x" * 1000)) == 501


def test_the_names_of_builtins_are_no_way_in() -> None:
    for name in vars(builtins):
        if callable(getattr(builtins, name)) and not isinstance(getattr(builtins, name), type):
            with pytest.raises(pickle.UnpicklingError):
                build(calling("builtins", name, "x"))
