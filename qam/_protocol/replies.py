"""The bodies of replies: made, checked and understood.  No I/O here."""

import builtins
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import NoneType
from typing import Any

from qam._broker.messages import Delivery
from qam._common.printable import describe, text_of
from qam._protocol.bodies import decode
from qam._serialization.serializers import Serializer
from qam._serialization.unpickler import Stranger
from qam.exceptions import (
    QAMException,
    QAMMethodNotFoundException,
    QAMSerializationException,
    QAMServerLostException,
    RemoteException,
)

# Values of internal_exception.
NOT_INTERNAL = -1
METHOD_NOT_FOUND = 1
SERVER_LOST = 2
REQUEST_UNREADABLE = 3
RESULT_NOT_SERIALIZABLE = 4
SERVER_FAILED = 5

_TYPES_OF_REPLY = {
    "exception": (int, NoneType),  # a bool is an int
    "internal_exception": (int, NoneType),
    "exception_type": (str, NoneType),
    "exception_text": (str, NoneType),
    "traceback": (str, NoneType),
}
# How many names of classes that are not trusted an error lists.
_SHOWN = 5


def decode_reply(serializer: Serializer, delivery: Delivery) -> dict[str, Any]:
    """Return the body of a reply, in which an exception may be of a class unknown here.

    :raises QAMSerializationException: as :func:`decode`; it says whether the method ran.
    """
    strangers: list[str] = []
    try:
        body = decode(serializer, delivery, strangers)
        _check_reply(body)
    except QAMSerializationException as error:
        # A server takes requests in its own serializer only: it refused this one.
        same = delivery.properties.get("content_type") == serializer.content_type
        error.executed = "yes" if same else "no"
        raise
    if strangers and not (body.get("exception") and isinstance(body.get("result"), Stranger)):
        raise QAMSerializationException(
            f"the result can't be decoded: {_some_of(strangers)}", executed="yes"
        )
    return body


def _check_reply(body: dict[str, Any]) -> None:
    """Refuse fields of a type that no peer sends; whoever uses them need not look again."""
    for name, value in body.items():
        if name in _TYPES_OF_REPLY and not isinstance(value, _TYPES_OF_REPLY[name]):
            kind = _TYPES_OF_REPLY[name][0].__name__
            raise QAMSerializationException(f"a reply whose field {name!r} is no {kind}")


def _some_of(refusals: list[str]) -> str:
    different = list(dict.fromkeys(refusals))
    more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    return "; ".join(different[:_SHOWN]) + more


def result_reply(request_id: Any, result: Any) -> dict[str, Any]:
    """Return the reply of a method that returned *result*."""
    return _reply(request_id, result, exception=False, internal_exception=NOT_INTERNAL)


def internal_reply(request_id: Any, code: int, text: str) -> dict[str, Any]:
    """Return the reply of a server that could not run the method: *text* says why."""
    return _reply(request_id, text, exception=True, internal_exception=code)


def _reply(
    request_id: Any, result: Any, *, exception: bool, internal_exception: int
) -> dict[str, Any]:
    return {
        "id": request_id,
        "result": result,
        "exception": exception,
        "internal_exception": internal_exception,
    }


def exception_reply(
    request_id: Any, error: BaseException, serializer: Serializer
) -> dict[str, Any]:
    """Return the reply of a method that raised *error*."""
    portable = _portable_json if serializer.name != "pickle" else _portable_pickle
    reply = _reply(
        request_id, portable(error, serializer), exception=True, internal_exception=NOT_INTERNAL
    )
    reply["exception_type"] = type_name(type(error))
    reply["exception_text"] = text_of(error)
    reply["traceback"] = _traceback_of(error)
    return reply


def _traceback_of(error: BaseException) -> str:
    # without the frame of this library that called the method
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # an exception with odd attributes
        return "".join(traceback.format_tb(frames)) + describe(error)


def type_name(cls: type) -> str:
    """Return the name of *cls* as the wire carries it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _portable_pickle(error: BaseException, serializer: Serializer) -> BaseException:
    """Return *error* if it survives the round trip, else a plain Exception with its text."""
    if not isinstance(error, Exception) or isinstance(error, QAMException):
        return Exception(text_of(error))
    try:
        copy = serializer.decode(serializer.encode(error))
    except Exception:
        return Exception(text_of(error))
    return error if type(copy) is type(error) else Exception(text_of(error))


def _portable_json(error: BaseException, serializer: Serializer) -> list[Any]:
    """Return the args of *error*, each as text where it can't travel as it is."""
    return [_portable_value(value, serializer) for value in error.args]


def _portable_value(value: Any, serializer: Serializer) -> Any:
    with suppress(Exception):
        serializer.encode(value)
        return value
    with suppress(Exception):
        return repr(value)
    return f"<{type(value).__name__}>"


def outcome(reply: dict[str, Any]) -> Any:
    """Return the result that *reply* carries, or raise what it says."""
    if not reply.get("exception"):
        return reply.get("result")
    code = reply.get("internal_exception", NOT_INTERNAL)
    if code is not None and code > 0:
        raise _internal_exception(code, reply.get("result"))
    error = _remote_exception(reply)
    if reply.get("traceback") is not None:
        BaseException.add_note(error, f"Remote traceback:\n{reply['traceback'].rstrip()}")
    raise error


_INTERNAL: dict[int, Callable[[str], QAMException]] = {
    METHOD_NOT_FOUND: QAMMethodNotFoundException,
    SERVER_LOST: QAMServerLostException,
    REQUEST_UNREADABLE: QAMSerializationException,
    SERVER_FAILED: QAMException,
    RESULT_NOT_SERIALIZABLE: lambda text: QAMSerializationException(text, executed="yes"),
}


def _internal_exception(code: int, text: Any) -> QAMException:
    # A peer newer than this library may send codes that it does not know.
    return _INTERNAL.get(code, QAMException)(text if isinstance(text, str) else f"error {code}")


def _remote_exception(reply: dict[str, Any]) -> Exception:
    result, name = reply.get("result"), reply.get("exception_type")
    text = reply.get("exception_text") or ""
    if isinstance(result, Stranger):
        return RemoteException(name or "an exception that is not known here", (), text)
    if isinstance(result, BaseException):
        return _from_object(result, name, text)
    args = tuple(result) if isinstance(result, (list, tuple)) else (result,)
    if name is None:  # a 0.2.x JSON server says the args and no more
        return Exception(*args)
    return _from_args(name, args, text)


def _from_object(error: BaseException, name: str | None, text: str) -> Exception:
    same = name is None or name == type_name(type(error))
    if same and isinstance(error, Exception) and not isinstance(error, QAMException):
        return error
    return RemoteException(name or type_name(type(error)), error.args, text or text_of(error))


def _from_args(name: str, args: tuple[Any, ...], text: str) -> Exception:
    module, _, short_name = name.rpartition(".")
    found = getattr(builtins, short_name, None) if module == "builtins" else None
    if isinstance(found, type) and issubclass(found, Exception):
        with suppress(Exception):  # UnicodeDecodeError and its like want args that JSON changed
            return found(*args)
    return RemoteException(name, args, text)
