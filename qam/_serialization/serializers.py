"""The serializers, which encode and decode bodies, by name and content type.

kombu has one registry of serializers for the whole process: to change it would change the
behaviour of every other user of kombu in the process.  So this module encodes and decodes
bodies itself, and leaves kombu's registry alone.
"""

import builtins
import copyreg
import io
import pickle  # only to encode  # nosec B403
from _compat_pickle import PYTHON2_EXCEPTIONS
from collections.abc import Iterable
from typing import Any, Protocol

from kombu.utils import json as kombu_json

from qam._common.static_inspection import Name, name_of
from qam._serialization.envelope import load_envelope
from qam._serialization.plain_bounds import loads_json, loads_msgpack, loads_plain_json
from qam._serialization.trust import EVERYWHERE, Trusted
from qam._serialization.unpickler import loads

_PYTHON_2_PROTOCOL = 2  # the highest protocol that Python 2 reads
# Protocols by the first two bytes of a pickle of protocol 2 or later: an opcode and a number.
_PROTOCOLS = {bytes((0x80, number)): min(number, pickle.HIGHEST_PROTOCOL) for number in range(256)}


class Serializer(Protocol):
    """Encodes and decodes the bodies of a proxy or a server."""

    name: str
    content_type: str
    content_encoding: str

    def encode(self, value: Any, like: bytes | None = None) -> bytes:
        """Return *value* as bytes.

        :param like: a received body; the sender of that must be able to decode the result.
        """
        ...

    def decode(self, body: bytes, strangers: list[Name] | None = None) -> Any:
        """Return the value that *body* encodes.

        :param strangers: None to refuse a class that this process does not have or trust.  Given
            a list, its instances are replaced by :class:`Stranger`, and the list gets its name.
        :raises NotTrustedError: *body* names such classes.
        """
        ...

    def decode_envelope(self, body: bytes) -> Any:
        """Return the plain values in *body*; build no instances, not even of trusted classes."""
        ...


class PickleSerializer:
    """Pickle; a reply to a Python 2 peer is written so that Python 2 can read it.

    It decodes plain values and trusted classes only: see :mod:`qam._serialization.unpickler`.

    :param protocol: the protocol to write; None for this Python's default.
    :param trusted: classes, functions, modules and names to trust, in addition to those that
        :func:`qam.trust` trusts for the whole process.
    """

    name = "pickle"
    content_type = "application/x-python-serialize"
    content_encoding = "binary"

    def __init__(self, protocol: int | None = None, trusted: Iterable[Any] = ()) -> None:
        self._trusted = Trusted(trusted, parent=EVERYWHERE)
        self._protocol = pickle.DEFAULT_PROTOCOL if protocol is None else protocol

    def encode(self, value: Any, like: bytes | None = None) -> bytes:
        """Pickle *value*, in the protocol of the body *like* if that is given."""
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
        """Return True if *cls* is trusted, so that its instances are built by its own code."""
        return self._trusted.find(name_of(cls)) is cls

    def decode(self, body: bytes, strangers: list[Name] | None = None) -> Any:
        """Unpickle *body*; a byte string of Python 2 becomes text if it is UTF-8."""
        return loads(body, self._trusted, strangers)

    def decode_envelope(self, body: bytes) -> Any:
        """Unpickle the plain values in *body*."""
        return load_envelope(body)


#: From this size on a pickler passes bytes to its file uncopied.
_LONG = 65536
_TEXTS = frozenset((bytes, str))


class _Pieces(list[bytes]):
    """A file for a pickler: long bytes are not copied, which takes a tenth of the time."""

    write = list.append


def _dump_long(value: Any, protocol: int) -> bytes:
    pieces = _Pieces()
    pickle.Pickler(pieces, protocol).dump(value)
    return b"".join(pieces)


def _has_long(value: Any) -> bool:
    """Return True if a parameter of a request, or the result of a reply, is long."""
    if type(value) is not dict:
        return False
    params = value.get("params")
    for each in params if type(params) is tuple else (value.get("result"),):
        if type(each) in _TEXTS and len(each) >= _LONG:
            return True
    return False


def _nearest_of_python_2(kind: type) -> type:
    known = {*PYTHON2_EXCEPTIONS, "OSError", "ImportError"}
    return next(base for base in kind.__mro__ if base.__name__ in known)


def _as_python_2(error: Exception) -> tuple[type, tuple[Any, ...]]:
    return _nearest_of_python_2(type(error)), error.args


# An exception that Python 2 does not have is written as its nearest base that Python 2 has.
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

    def decode(self, body: bytes, strangers: list[Name] | None = None) -> Any:
        """Return the value that the UTF-8 JSON in *body* encodes.

        :raises ValueError: *body* is no JSON, or its value would cost more than its size allows.
        """
        return loads_json(body)

    def decode_envelope(self, body: bytes) -> Any:
        """Return the value of the UTF-8 JSON in *body*, without the types of kombu's codec."""
        return loads_plain_json(body)


class MsgpackSerializer:
    """msgpack, a small and fast format of numbers, text, bytes, lists and dicts.

    :raises ImportError: the package msgpack is not installed.
    """

    name = "msgpack"
    content_type = "application/x-msgpack"
    content_encoding = "binary"

    def __init__(self) -> None:
        try:
            import msgpack  # only installed with the extra
        except ImportError as error:
            raise ImportError(
                "serializer='msgpack' needs the package msgpack: pip install 'qam[msgpack]'"
            ) from error
        self._msgpack = msgpack

    def encode(self, value: Any, like: bytes | None = None) -> bytes:
        """Return *value* as msgpack."""
        return bytes(self._msgpack.packb(value, use_bin_type=True))

    def decode(self, body: bytes, strangers: list[Name] | None = None) -> Any:
        """Return the value that the msgpack in *body* encodes; a tuple has become a list.

        A Timestamp becomes its seconds, a float.

        :raises ValueError: *body* is no msgpack, or its value would cost more than its size allows.
        """
        return loads_msgpack(self._msgpack, body)

    def decode_envelope(self, body: bytes) -> Any:
        """Return the same as :meth:`decode`: msgpack has plain values only."""
        return self.decode(body)


_NAMES = (PickleSerializer.name, JSONSerializer.name, MsgpackSerializer.name)


def get_serializer(
    name: str, pickle_protocol: int | None = None, trusted: Iterable[Any] = ()
) -> Serializer:
    """Return a new serializer.

    :param name: ``"pickle"``, ``"json"`` or ``"msgpack"``.
    :param pickle_protocol: the protocol that pickle writes; None for this Python's default.
    :param trusted: classes, functions, modules and names that pickle trusts in addition.
    :raises TypeError: *name* is no str, *pickle_protocol* is no whole number, or *trusted*
        contains something that can't be trusted.
    :raises ValueError: there is no such serializer or protocol, or pickle can't find a trusted
        thing by its name.
    :raises ImportError: msgpack is not installed, or a trusted module can't be imported.
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
    """Return *serializer* itself, or the one of that name; raises like :func:`get_serializer`."""
    return get_serializer(serializer) if isinstance(serializer, str) else serializer


def _check_pickle_protocol(protocol: int | None) -> None:
    if protocol is None:
        return
    if isinstance(protocol, bool) or not isinstance(protocol, int):
        raise TypeError(f"pickle_protocol must be a whole number, not {protocol!r}")
    if not 0 <= protocol <= pickle.HIGHEST_PROTOCOL:
        raise ValueError(f"pickle_protocol must be 0 to {pickle.HIGHEST_PROTOCOL}, not {protocol}")
