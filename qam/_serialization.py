"""How bodies become bytes: the serializers, by name and content type.

kombu keeps one registry of serializers for the whole process; changing it would
change every other user of kombu there.  So bodies are encoded and decoded here,
and kombu's registry stays as it is.
"""

import io
import pickle
from typing import Any, Protocol

from kombu.utils import json as kombu_json

_PROTO = 0x80  # the opcode that opens a pickle of protocol 2 or later


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

        A class that this process does not have is an error; or, with *strangers*, it
        is replaced by a :class:`Stranger`, and its name added to that list.
        """
        ...


class PickleSerializer:
    """Pickle, readable by Python 2 peers where they ask in their protocol.

    :param protocol: the protocol to write; None for this Python's default.
    """

    name = "pickle"
    content_type = "application/x-python-serialize"
    content_encoding = "binary"

    def __init__(self, protocol: int | None = None) -> None:
        self._protocol = pickle.DEFAULT_PROTOCOL if protocol is None else protocol

    def encode(self, value: Any, like: bytes | None = None) -> bytes:
        """Pickle *value*, in the protocol of *like* where that is given."""
        protocol = self._protocol if like is None else _protocol_of(like)
        return pickle.dumps(value, protocol=protocol)

    def decode(self, body: bytes, strangers: list[str] | None = None) -> Any:
        """Unpickle *body*; byte strings of Python 2 are text where they are UTF-8."""
        try:
            return _Unpickler(body, "strict", strangers).load()
        except UnicodeDecodeError:
            return _restore_bytes(_Unpickler(body, "surrogateescape", strangers).load())


def _protocol_of(body: bytes) -> int:
    if len(body) < 2 or body[0] != _PROTO:
        return 0
    return min(body[1], pickle.HIGHEST_PROTOCOL)


class Stranger:
    """Stands for an instance of a class that this process does not have."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Stranger":
        """Take any arguments: whatever its class is built with."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Take any state, and keep none."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, body: bytes, errors: str, strangers: list[str] | None) -> None:
        # A BytesIO hands long strings out bit by bit; a BufferedReader over it does not.
        super().__init__(io.BufferedReader(io.BytesIO(body)), encoding="utf-8", errors=errors)
        self._strangers = strangers

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            if self._strangers is None:
                raise
            self._strangers.append(f"{module}.{name}")
            return Stranger


def _restore_bytes(value: Any) -> Any:
    """Turn each text that was no UTF-8 back into the bytes it came from."""
    if isinstance(value, str):
        return value if _is_text(value) else value.encode("utf-8", "surrogateescape")
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_restore_bytes(item) for item in value)
    if type(value) is dict:
        return {_restore_bytes(key): _restore_bytes(item) for key, item in value.items()}
    return value


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


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
        """Return what the UTF-8 JSON in *body* stands for."""
        return kombu_json.loads(body)


_NAMES = (PickleSerializer.name, JSONSerializer.name)


def get_serializer(name: str, pickle_protocol: int | None = None) -> Serializer:
    """Return the serializer called *name*.

    :raises TypeError: *name* is no str, or *pickle_protocol* no whole number.
    :raises ValueError: there is no such serializer, or no such protocol.
    """
    if not isinstance(name, str):
        raise TypeError(f"serializer must be a str, not {name!r}")
    if name not in _NAMES:
        raise ValueError(f"serializer must be one of {', '.join(_NAMES)}, not {name!r}")
    _check_pickle_protocol(pickle_protocol)
    return PickleSerializer(pickle_protocol) if name == "pickle" else JSONSerializer()


def _check_pickle_protocol(protocol: int | None) -> None:
    if protocol is None:
        return
    if isinstance(protocol, bool) or not isinstance(protocol, int):
        raise TypeError(f"pickle_protocol must be a whole number, not {protocol!r}")
    if not 0 <= protocol <= pickle.HIGHEST_PROTOCOL:
        raise ValueError(f"pickle_protocol must be 0 to {pickle.HIGHEST_PROTOCOL}, not {protocol}")
