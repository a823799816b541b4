"""The envelope of a request, of which nothing is built that could act."""

import enum
import pickle
import resource
import subprocess
import sys
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from qam._broker.messages import Delivery
from qam._protocol.bodies import decode
from qam._protocol.requests import Request
from qam._serialization.envelope import Nothing, load_envelope
from qam._serialization.refusals import Receiver
from qam._serialization.serializers import PickleSerializer, get_serializer
from qam.exceptions import QAMSerializationException
from tests.support.examples import examples
from tests.support.hostile_pickles import BOMBS, CALLS, GADGETS, Gadget
from tests.support.watch import nothing_but_values

#: What ran because something was built.
acted: list[str] = []


@pytest.fixture(autouse=True)
def nothing_acted_yet() -> None:
    acted.clear()


def act(*args: Any) -> Any:
    acted.append("it")
    return Plain()


class Plain:
    """Does nothing when it is built."""


class ActsBySetstate:
    def __getstate__(self) -> Any:
        return {"a": 1}

    def __setstate__(self, state: Any) -> None:
        act()


class ActsByConstructor:
    def __init__(self, *args: Any) -> None:
        if args:
            act()

    def __reduce__(self) -> Any:
        return ActsByConstructor, ("an argument",)


class ActsByNew:
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            act()
        return super().__new__(cls)

    def __getnewargs__(self) -> Any:
        return ("an argument",)


class ActsByNewWithKeywords(ActsByNew):
    def __getnewargs_ex__(self) -> Any:
        return (), {"named": "an argument"}


class ActsByFunction:
    def __reduce__(self) -> Any:
        return act, ()


class ActsByStateSetter(Plain):
    def __reduce__(self) -> Any:
        return Plain, (), {"a": 1}, None, None, act


class ActsAsKey:
    def __init__(self) -> None:
        self.set = True

    def __hash__(self) -> int:
        act()
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


class ActsByAttribute:
    __slots__ = ("a",)

    def __init__(self) -> None:
        object.__setattr__(self, "a", 1)

    def __setattr__(self, name: str, value: Any) -> None:
        act()


class ActsAsList(list[Any]):
    def append(self, item: Any) -> None:
        act()

    def extend(self, items: Any) -> None:
        act()


class ActsAsDict(dict[Any, Any]):
    def __setitem__(self, key: Any, value: Any) -> None:
        act()


class ActsAsSet(set[Any]):
    def __init__(self, items: Any = ()) -> None:
        super().__init__(items)
        if items:
            act()


class ActsAsException(Exception):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if args != ("made here",):
            act()


class ActsAsEnum(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        act()
        return cls.A

    def __reduce_ex__(self, protocol: Any) -> Any:
        return ActsAsEnum, ("missing",)


def _exception() -> Exception:
    error = ActsAsException("made here")
    error.args = ("why",)
    return error


ACTING: dict[str, Callable[[], Any]] = {
    **{
        kind.__name__: kind
        for kind in (
            *(ActsBySetstate, ActsByConstructor, ActsByNew, ActsByNewWithKeywords),
            *(ActsByFunction, ActsByStateSetter, ActsByAttribute),
        )
    },
    "ActsAsKey": lambda: {ActsAsKey(): 1},
    "ActsAsList": lambda: ActsAsList([1, 2]),
    "ActsAsList of one": lambda: ActsAsList([1]),
    "ActsAsDict": lambda: ActsAsDict(a=1, b=2),
    "ActsAsSet": lambda: ActsAsSet([1, 2]),
    "ActsAsException": _exception,
    "ActsAsEnum": lambda: ActsAsEnum.A,
}
TRUSTED = [each for each in vars().values() if getattr(each, "__module__", "") == __name__]
SERVER = Receiver("server", "shop")
SERIALIZER = PickleSerializer(trusted=TRUSTED)


def request(params: Any, method_name: str = "add", **more: Any) -> dict[str, Any]:
    return {"id": 7, "method_name": method_name, "params": params, "routing_key": "key", **more}


def dumps(body: Any, protocol: int = 4) -> bytes:
    """The body as pickle writes it; what acts by that too is forgotten."""
    written = pickle.dumps(body, protocol)
    acted.clear()
    return written


def delivery_of(body: bytes, content_type: str = PickleSerializer.content_type) -> Delivery:
    return Delivery(body, 1, properties={"content_type": content_type})


def envelope_of(body: bytes) -> Request:
    return Request.from_envelope(decode(SERIALIZER, delivery_of(body), SERVER, envelope=True))


@pytest.mark.parametrize("kind", ACTING)
def test_what_acts_acts_where_all_of_a_request_is_built(kind: str) -> None:
    """Else the tests that follow would show nothing."""
    SERIALIZER.decode(dumps(request((ACTING[kind](),))))

    assert acted


@pytest.mark.parametrize("kind", ACTING)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_acts_where_the_envelope_is_read(kind: str, protocol: int) -> None:
    it = ACTING[kind]()
    # given requests that have it in many a place, and before what is read
    params = (it, [it], {"a": (it,)}, {1: {2: [it, 5]}}, (1, "text", None))
    for body in (
        request(params),
        {"before": it, **request(params)},
        request(("name", [it], {"named": it}), "system.apply"),
    ):
        written = dumps(body, protocol)
        # when
        read = envelope_of(written)
        # then
        assert (read.id, read.method_name, read.routing_key) == (7, body["method_name"], "key")
        assert read.params == (("name",) if body["method_name"] == "system.apply" else ())
    assert not acted


@pytest.mark.parametrize("kind", sorted(ACTING.keys() - {"ActsByAttribute"}))  # they write no slots
@pytest.mark.parametrize("protocol", [0, 1])
def test_nothing_acts_in_the_old_protocols_either(kind: str, protocol: int) -> None:
    body = dumps(request((ACTING[kind](), {"a": ACTING[kind]()})), protocol)

    assert envelope_of(body) == Request(7, "add", "key", ())
    assert not acted


VALUES: dict[str, Any] = {
    "date": date(2020, 1, 1),
    "datetime": datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    "Decimal": Decimal("1.5"),
    "Fraction": Fraction(1, 3),
    "UUID": UUID(int=5),
    "path": PurePosixPath("a/b"),
    "complex": 1 + 2j,
    "range": range(5),
    "bytearray": bytearray(b"abc"),
    "bytes": b"abc",
    "Counter": Counter("abc"),
    "OrderedDict": OrderedDict(a=1),
    "defaultdict": defaultdict(list, a=[1]),
    "deque": deque([1, 2], maxlen=3),
    "builtin exception": ValueError("why", 5),
    "group": ExceptionGroup("why", [ValueError(1)]),
    "array": numpy.arange(6).reshape(2, 3),
    "array of objects": numpy.array([None, "a"], dtype=object),
    "scalar": numpy.float64(1.5),
    "named function": len,
    "class": dict,
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_value_that_has_a_name_hinders_reading(kind: str, protocol: int) -> None:
    value = VALUES[kind]
    params = (value, [value], {"a": value}, value)

    assert envelope_of(dumps(request(params), protocol)) == Request(7, "add", "key", ())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_request_may_have_many_of_them_as_keys(protocol: int) -> None:
    days = {date.fromordinal(n): {date.fromordinal(n)} for n in range(1, 1000)}

    assert envelope_of(dumps(request((days,)), protocol)).method_name == "add"


_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
_ACTING = st.sampled_from(sorted(ACTING.keys() - {"ActsAsKey"})).map(lambda kind: ACTING[kind]())
_PARAMS = st.recursive(
    _PLAIN | _ACTING,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@examples(30)
@given(params=st.lists(_PARAMS), name=st.text(), protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_whatever_a_request_is_made_of_the_envelope_is_read_and_nothing_acts(
    params: list[Any], name: str, protocol: int
) -> None:
    acted.clear()
    body = dumps(request(tuple(params), name), protocol)

    assert envelope_of(body).method_name == name
    assert not acted


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _parts(each)


_PLAIN_TYPES = {
    *(type(None), bool, int, float, str, bytes, bytearray),
    *(list, tuple, dict, set, frozenset, Nothing),
}


@pytest.mark.watched
@pytest.mark.xdist_group("fuzzing")  # which watches, too
@pytest.mark.parametrize("gadget", GADGETS, ids=lambda gadget: f"{gadget[0]}.{gadget[1]}")
@pytest.mark.parametrize("call", CALLS)
def test_no_name_is_looked_up_whatever_it_is(gadget: Gadget, call: str) -> None:
    with nothing_but_values():
        read = load_envelope(CALLS[call](*gadget))

    assert {type(part) for part in _parts(read)} <= _PLAIN_TYPES


@examples(200)
@given(data=st.data())
def test_a_spoilt_pickle_is_read_as_plain_values_or_refused(data: st.DataObject) -> None:
    acted.clear()
    kind = data.draw(st.sampled_from(sorted(ACTING)))
    body = bytearray(dumps(request((ACTING[kind](),)), data.draw(st.integers(2, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = load_envelope(bytes(body))
    except Exception:
        return
    finally:
        assert not acted

    assert {type(part) for part in _parts(read)} <= _PLAIN_TYPES


_READ_BOMBS = """
from qam._serialization.envelope import load_envelope
from tests.support.hostile_pickles import BOMBS
for name, body in BOMBS.items():
    try:
        load_envelope(body)
    except Exception:
        pass
    print(name, flush=True)
"""


def test_no_bomb_goes_off() -> None:
    # In a process with bounded memory and time, because one that went off could not be stopped.
    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    done = subprocess.run(
        [sys.executable, "-c", _READ_BOMBS],
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=bound,
    )

    assert done.stdout.splitlines() == list(BOMBS), done.stderr


@pytest.mark.parametrize(
    "body",
    [
        request((), method_name=Plain()),  # type: ignore[arg-type]
        request((), id=Plain()),
        request((), routing_key=Plain()),
        {"id": 7},
        [1],
        Plain(),
    ],
    ids=["method_name", "id", "routing_key", "fields missing", "list", "instance"],
)
def test_an_envelope_with_anything_else_than_text_in_it_is_refused(body: Any) -> None:
    with pytest.raises(QAMSerializationException):
        envelope_of(dumps(body))


@pytest.mark.parametrize("params", [(), [], 3, Plain(), (Plain(), (), {}), "name", None])
def test_system_apply_names_nothing_where_its_params_do_not(params: Any) -> None:
    read = envelope_of(dumps(request(params, "system.apply")))

    assert not read.params or isinstance(read.params[0], Nothing)


@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_the_envelope_is_the_same_by_the_other_serializers(name: str) -> None:
    serializer = get_serializer(name)
    body = serializer.encode(
        request(["inner", [datetime(2020, 1, 1)], {}], "system.apply")
        if name == "json"
        else request(["inner", [1.5], {}], "system.apply")
    )
    delivery = delivery_of(body, serializer.content_type)

    read = Request.from_envelope(decode(serializer, delivery, SERVER, envelope=True))

    assert read == Request(7, "system.apply", "key", ["inner"])


class Registered:
    """A type that the application has taught kombu's JSON."""


def test_what_the_application_taught_kombus_json_is_not_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kombu_json, "_decoders", dict(kombu_json._decoders))
    monkeypatch.setattr(kombu_json, "_encoders", dict(kombu_json._encoders))
    kombu_json.register_type(Registered, "registered", lambda value: "it", act)
    serializer = get_serializer("json")
    body = serializer.encode(request([Registered()]))
    delivery = delivery_of(body, serializer.content_type)

    read = Request.from_envelope(decode(serializer, delivery, SERVER, envelope=True))

    assert read == Request(7, "add", "key", ())
    assert not acted
    serializer.decode(body)
    assert acted
