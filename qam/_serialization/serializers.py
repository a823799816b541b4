"""How bodies become bytes: the serializers, by name and content type.

kombu keeps one registry of serializers for the whole process; changing it would
change every other user of kombu there.  So bodies are encoded and decoded here,
and kombu's registry stays as it is.
"""

import builtins
import copyreg
import io
import pickle  # what it builds is restricted  # nosec B403
from _compat_pickle import PYTHON2_EXCEPTIONS
from collections.abc import Iterable
from typing import Any, Protocol

from kombu.utils import json as kombu_json

from qam._common.static_inspection import name_of
from qam._serialization.envelope import load_envelope
from qam._serialization.plain_bounds import loads_json, loads_msgpack, loads_plain_json
from qam._serialization.trust import EVERYWHERE, Trusted
from qam._serialization.unpickler import loads

_PYTHON_2_PROTOCOL = 2  # the highest that it reads
# By how a pickle begins, if it is of protocol 2 or later: an opcode, and the protocol.
_PROTOCOLS = {bytes((0x80, number)): min(number, pickle.HIGHEST_PROTOCOL) for number in range(256)}


class Serializer(Protocol):
    """What a proxy or a server is configured with."""

    name: str
    content_type: str
    content_encoding: str

    def encode(self, value: Any, like: bytes | None = None) -> bytes:
        """Return *value* as bytes; *like* is a body whose sender must be able to read it."""
        ...

    def decode(self, body: bytes, strangers: list[str] | None = None) -> Any:
        """Return the value that *body* stands for.

        A class that this process does not have, or trust, is an error; or, with *strangers*, it
        is replaced by a :class:`Stranger`, and its name added to that list.
        """
        ...

    def decode_envelope(self, body: bytes) -> Any:
        """Return the plain values in *body*; no class of anybody is built, whoever trusts it."""
        ...


class PickleSerializer:
    """Pickle, readable by Python 2 peers where they ask in their protocol.

    It builds values and what is trusted, and nothing else: see :mod:`qam._serialization.unpickler`.

    :param protocol: the protocol to write; None for this Python's default.
    :param trusted: classes and names that it builds beside those that are trusted
        everywhere, see :func:`qam.trust`.
    """

    name = "pickle"
    content_type = "application/x-python-serialize"
    content_encoding = "binary"

    def __init__(self, protocol: int | None = None, trusted: Iterable[Any] = ()) -> None:
        self._trusted = Trusted(trusted, parent=EVERYWHERE)
        self._protocol = pickle.DEFAULT_PROTOCOL if protocol is None else protocol

    def encode(self, value: Any, like: bytes | None = None) -> bytes:
        """Pickle *value*, in the protocol of *like* where that is given."""
        protocol = self._protocol if like is None else _PROTOCOLS.get(like[:2], 0)
        if protocol > _PYTHON_2_PROTOCOL:
            return (
                _dump_long(value, protocol) if _has_long(value) else pickle.dumps(value, protocol)
            )
        stream = io.BytesIO()
        pickler = pickle.Pickler(stream, protocol=protocol)
        pickler.dispatch_table = {**copyreg.dispatch_table, **_AS_PYTHON_2}
        pickler.dump(value)
        return stream.getvalue()

    def trusts(self, cls: type) -> bool:
        """Return True if instances of *cls* are built as their class says."""
        return self._trusted.find(name_of(cls)) is cls

    def decode(self, body: bytes, strangers: list[str] | None = None) -> Any:
        """Unpickle *body*; byte strings of Python 2 are text where they are UTF-8."""
        return loads(body, self._trusted, strangers)

    def decode_envelope(self, body: bytes) -> Any:
        """Unpickle what is plain in *body*."""
        return load_envelope(body)


#: From this size on a pickler hands bytes over as they are, to what it writes to.
_LONG = 65536
_TEXTS = frozenset((bytes, str))


class _Pieces(list[bytes]):
    """A file to a pickler; what is long comes here uncopied, which takes a tenth of the time."""

    write = list.append


def _dump_long(value: Any, protocol: int) -> bytes:
    pieces = _Pieces()
    pickle.Pickler(pieces, protocol).dump(value)
    return b"".join(pieces)


def _has_long(value: Any) -> bool:
    """Return True if a glance at the body of a message finds something long in it."""
    if type(value) is not dict:
        return False
    params = value.get("params")  # a request has them, a reply a result
    for each in params if type(params) is tuple else (value.get("result"),):
        if type(each) in _TEXTS and len(each) >= _LONG:
            return True
    return False


def _nearest_of_python_2(kind: type) -> type:
    known = {*PYTHON2_EXCEPTIONS, "OSError", "ImportError"}
    return next(base for base in kind.__mro__ if base.__name__ in known)


def _as_python_2(error: Exception) -> tuple[type, tuple[Any, ...]]:
    return _nearest_of_python_2(type(error)), error.args


# What Python 2 does not have is written as what it is derived from.
_AS_PYTHON_2: Any = {
    kind: _as_python_2
    for kind in vars(builtins).values()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and kind.__name__ not in PYTHON2_EXCEPTIONS
    and not issubclass(kind, (OSError, ImportError))  # pickle translates these itself
}


class JSONSerializer:
    """JSON with kombu's codec: datetime, Decimal, UUID and bytes travel too."""

    name = "json"
    content_type = "application/json"
    content_encoding = "utf-8"

    def encode(self, value: Any, like: bytes | None = None) -> bytes:
        """Return *value* as UTF-8 JSON."""
        text: str = kombu_json.dumps(value)
        return text.encode("utf-8")

    def decode(self, body: bytes, strangers: list[str] | None = None) -> Any:
        """Return what the UTF-8 JSON in *body* stands for.

        :raises ValueError: it is none, or would cost more than its size allows.
        """
        return loads_json(body)

    def decode_envelope(self, body: bytes) -> Any:
        """Return the UTF-8 JSON in *body*, without what kombu's codec would make of it."""
        return loads_plain_json(body)


class MsgpackSerializer:
    """msgpack: small and quick; it has numbers, text, bytes, lists and dicts.

    :raises ImportError: the package msgpack is not installed.
    """

    name = "msgpack"
    content_type = "application/x-msgpack"
    content_encoding = "binary"

    def __init__(self) -> None:
        try:
            import msgpack  # an extra
        except ImportError as error:
            raise ImportError(
                "serializer='msgpack' needs the package msgpack: pip install 'qam[msgpack]'"
            ) from error
        self._msgpack = msgpack

    def encode(self, value: Any, like: bytes | None = None) -> bytes:
        """Return *value* as msgpack."""
        return bytes(self._msgpack.packb(value, use_bin_type=True))

    def decode(self, body: bytes, strangers: list[str] | None = None) -> Any:
        """Return what the msgpack in *body* stands for; a tuple has become a list.

        A Timestamp becomes its seconds, a float.

        :raises ValueError: it is none, or would cost more than its size allows.
        """
        return loads_msgpack(self._msgpack, body)

    def decode_envelope(self, body: bytes) -> Any:
        """Return the same as :meth:`decode`: all that msgpack has is plain."""
        return self.decode(body)


_NAMES = (PickleSerializer.name, JSONSerializer.name, MsgpackSerializer.name)


def get_serializer(
    name: str, pickle_protocol: int | None = None, trusted: Iterable[Any] = ()
) -> Serializer:
    """Return the serializer called *name*.

    :raises TypeError: *name* is no str, *pickle_protocol* no whole number, or *trusted*
        has what can't be trusted.
    :raises ValueError: there is no such serializer, or no such protocol.
    :raises ImportError: the package that it needs is not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"serializer must be a str, not {name!r}")
    _check_pickle_protocol(pickle_protocol)
    match name:
        case PickleSerializer.name:
            return PickleSerializer(pickle_protocol, trusted)
        case JSONSerializer.name:
            return JSONSerializer()
        case MsgpackSerializer.name:
            return MsgpackSerializer()
    raise ValueError(f"serializer must be one of {', '.join(_NAMES)}, not {name!r}")


def as_serializer(serializer: str | Serializer) -> Serializer:
    """Return *serializer*, or the one of that name; raises as :func:`get_serializer` does."""
    return get_serializer(serializer) if isinstance(serializer, str) else serializer


def _check_pickle_protocol(protocol: int | None) -> None:
    if protocol is None:
        return
    if isinstance(protocol, bool) or not isinstance(protocol, int):
        raise TypeError(f"pickle_protocol must be a whole number, not {protocol!r}")
    if not 0 <= protocol <= pickle.HIGHEST_PROTOCOL:
        raise ValueError(f"pickle_protocol must be 0 to {pickle.HIGHEST_PROTOCOL}, not {protocol}")
