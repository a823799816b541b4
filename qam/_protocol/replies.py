"""Makes, checks and interprets the bodies of replies.  No I/O here."""

import pickle  # loads only pickles made here  # nosec B403
from collections.abc import Callable
from contextlib import suppress
from types import NoneType
from typing import Any

from qam._broker.messages import Delivery
from qam._common.error_inspection import (
    MAX_NAME,
    MAX_TEXT,
    args_of,
    find_class,
    full_name,
    may_be_raised,
    notes_of,
)
from qam._common.error_texts import fit, shown, text_of, traceback_of, without_middle
from qam._common.plain_values import cut_octets
from qam._protocol.bodies import decode
from qam._serialization.remote_errors import ErrorMaker
from qam._serialization.serializers import PickleSerializer, Serializer
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
    "exception_args": (tuple, NoneType),
    "traceback": (str, NoneType),
}
# Octets of an error's text in a shortened reply.
_MAX_SHORT_TEXT = 500
# How many names of classes that are not trusted the text of an error lists.
_SHOWN = 5


def decode_reply(serializer: Serializer, delivery: Delivery) -> dict[str, Any]:
    """Return the body of a reply; a class that is unknown here is accepted in an exception only.

    :raises QAMSerializationException: like :func:`decode`, or a field has the wrong type; its
        ``executed`` says whether the method ran.
    """
    strangers: list[str] = []
    try:
        body = decode(serializer, delivery, strangers)
        _check_reply(body)
    except QAMSerializationException as error:
        # A server accepts requests only in its own content type.  A reply in another one than
        # ours shows that it has refused the request.
        same = delivery.properties.get("content_type") == serializer.content_type
        error.executed = "yes" if same or delivery.too_large else "no"
        raise
    if strangers and not body.get("exception"):
        raise QAMSerializationException(
            f"the result can't be decoded: {_some_of(strangers)}", executed="yes"
        )
    return body


def _check_reply(body: dict[str, Any]) -> None:
    """Refuse a reply with a field of the wrong type, so that no later code has to check."""
    for name, value in body.items():
        if name in _TYPES_OF_REPLY and not isinstance(value, _TYPES_OF_REPLY[name]):
            kind = _TYPES_OF_REPLY[name][0].__name__
            raise QAMSerializationException(f"a reply is invalid: its field {name!r} is no {kind}")


def _some_of(refusals: list[str]) -> str:
    different = list(dict.fromkeys(refusals))
    more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    return "; ".join(different[:_SHOWN]) + more


def result_reply(request_id: Any, result: Any) -> dict[str, Any]:
    """Return the reply of a method that returned *result*."""
    return _reply(request_id, result, exception=False, internal_exception=NOT_INTERNAL)


def internal_reply(request_id: Any, code: int, text: str) -> dict[str, Any]:
    """Return the reply of a server that has no result of the method: *text* says why."""
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
    request_id: Any,
    error: BaseException,
    serializer: Serializer,
    *,
    send_traceback: bool = True,
    by_plain_pickle: bool = False,
) -> dict[str, Any]:
    """Return the reply of a method that raised *error*: it can be encoded, and is not large.

    :param send_traceback: whether the caller gets the traceback.
    :param by_plain_pickle: whether the caller is a 0.2.x client, which uses an unrestricted
        unpickler.
    """
    reply = _reply(request_id, None, exception=True, internal_exception=NOT_INTERNAL)
    reply["exception_type"], reply["exception_text"] = _name_and_text(error)
    maker = _SENDER if send_traceback else _SENDER_WITHOUT_TRACEBACKS
    if isinstance(serializer, PickleSerializer):
        reply |= _portable_pickle(error, serializer, maker, by_plain_pickle)
    else:
        reply["result"] = _portable_args(error, serializer, maker)
    if send_traceback:
        # without the frame of this library that called the method
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        reply["traceback"] = traceback_of(error, frames)
    return reply


def is_exception_reply(reply: dict[str, Any]) -> bool:
    """Return True if *reply* was made by :func:`exception_reply`."""
    return "exception_type" in reply


def shortened_reply(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the reply of an exception with its type and a short text, if *reply* is too large."""
    text = cut_octets(reply["exception_text"], _MAX_SHORT_TEXT)
    result = reply["result"]
    by_pickle = isinstance(result, BaseException)
    return {
        **_reply(reply["id"], None, exception=True, internal_exception=NOT_INTERNAL),
        "result": _SENDER.make(type(result), (text,)) if by_pickle else [text],
        "exception_type": reply["exception_type"][:MAX_NAME],
        "exception_text": text,
    }


_REMOTE_TRACEBACK = "Remote traceback:\n"

_SENDER = ErrorMaker(show=shown)
_SENDER_WITHOUT_TRACEBACKS = ErrorMaker(
    show=shown, keep_note=lambda note: not note.startswith(_REMOTE_TRACEBACK)
)


def _name_and_text(error: BaseException) -> tuple[str, str]:
    if type(error) is RemoteException:  # the caller gets the exception that it stands for
        return fit(error.type_name), fit(error.text)
    return fit(full_name(type(error))), text_of(error)


def _portable_pickle(
    error: BaseException, serializer: PickleSerializer, maker: ErrorMaker, by_plain_pickle: bool
) -> dict[str, Any]:
    """Return the fields for *error*: itself if the caller can build it, else its parts."""
    if serializer.trusts(type(error)) and maker is _SENDER and _survives(error, serializer):
        return {"result": error}
    copied = maker.copy(error)
    if serializer.trusts(type(copied)) and not _survives(copied, serializer):
        # A caller that trusts its class, too, would build it by the same code.
        notes = {"__notes__": notes_of(error)}
        copied = maker.stand_for(full_name(type(copied)), args_of(copied), notes, text_of(error))
    if type(copied) is RemoteException:
        stand_in = maker.make(Exception, (str(copied),), {"__notes__": notes_of(copied)})
        return {"result": stand_in, "exception_args": copied.args}
    if by_plain_pickle and not _survives_plain_pickle(copied):
        return {"result": maker.make(Exception, (text_of(error),))}
    return {"result": copied}


def _survives(error: BaseException, serializer: PickleSerializer) -> bool:
    with suppress(Exception):
        return type(serializer.decode(serializer.encode(error))) is type(error)
    return False


def _survives_plain_pickle(error: BaseException) -> bool:
    with suppress(Exception):
        return type(pickle.loads(pickle.dumps(error))) is type(error)  # nosec B301
    return False


def _portable_args(error: BaseException, serializer: Serializer, maker: ErrorMaker) -> list[Any]:
    """Return the args of *error*; a text replaces each that the serializer can't encode."""
    return [_portable_value(value, serializer) for value in maker.plain_args(args_of(error))]


def _portable_value(value: Any, serializer: Serializer) -> Any:
    with suppress(Exception):
        serializer.encode(value)
        return value
    return fit(value) if isinstance(value, str) else shown(value)


def outcome(reply: dict[str, Any]) -> Any:
    """Return the result in *reply*, or raise the exception that it describes."""
    if not reply.get("exception"):
        return reply.get("result")
    code = reply.get("internal_exception", NOT_INTERNAL)
    if code is not None and code > 0:
        raise _internal_exception(code, reply.get("result"))
    error = _remote_exception(reply)
    if reply.get("traceback") is not None:
        text = without_middle(reply["traceback"].rstrip())
        BaseException.add_note(error, f"{_REMOTE_TRACEBACK}{text}")
    raise error


_INTERNAL: dict[int, Callable[[str], QAMException]] = {
    METHOD_NOT_FOUND: QAMMethodNotFoundException,
    SERVER_LOST: QAMServerLostException,
    REQUEST_UNREADABLE: QAMSerializationException,
    SERVER_FAILED: QAMException,
    RESULT_NOT_SERIALIZABLE: lambda text: QAMSerializationException(text, executed="yes"),
}


def _internal_exception(code: int, text: Any) -> QAMException:
    # A newer peer may send codes that are unknown here.
    said = cut_octets(text, MAX_TEXT) if isinstance(text, str) else f"error {shown(code)}"
    return _INTERNAL.get(code, QAMException)(said)


# --- the exception that the method raised, rebuilt for the caller ------------------------

_RECEIVER = ErrorMaker()


def _remote_exception(reply: dict[str, Any]) -> Exception:
    result, name = reply.get("result"), reply.get("exception_type")
    text = reply.get("exception_text") or None
    if type(result) is Stranger:
        name = name or "an exception that is not known here"
        return _RECEIVER.stand_for(name, result.args, text=text)
    if issubclass(type(result), BaseException):
        return _from_object(result, name, reply.get("exception_args"), text)
    args = tuple(result) if isinstance(result, (list, tuple)) else (result,)
    if name is None:  # a 0.2.x JSON server sends the args and no type
        return _RECEIVER.make(Exception, args)
    return _from_args(name, args, text)


def _from_object(error: Any, name: str | None, args: Any, text: str | None) -> Exception:
    """Return *error*, or the RemoteException for the type *name* if *error* replaces that type."""
    if type(error) is RemoteException and name is None:
        return error
    if may_be_raised(type(error)) and name in (None, full_name(type(error))):
        return error  # type: ignore[no-any-return]
    if type(error) is RemoteException:
        text = text or error.text
    args = args_of(error) if args is None else args
    notes = {"__notes__": notes_of(error)}
    return _RECEIVER.stand_for(name or full_name(type(error)), args, notes, text)


def _from_args(name: str, args: tuple[Any, ...], text: str | None) -> Exception:
    module, _, short_name = name.rpartition(".")
    found = find_class((module, short_name)) if module == "builtins" else None
    made = None if found is None else _RECEIVER.make(found, _with_tuple(found, args))
    if made is None or type(made) is RemoteException:
        return _RECEIVER.stand_for(name, args, text=text)
    return made


def _with_tuple(cls: type, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return *args*; the position of a SyntaxError becomes a tuple, which JSON made a list."""
    if issubclass(cls, SyntaxError) and len(args) == 2 and isinstance(args[1], list):
        return args[0], tuple(args[1])
    return args
