"""Makes, checks and interprets the bodies of replies.  No I/O here."""

import pickle  # loads only pickles made here  # nosec B403
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import NoneType, TracebackType
from typing import Any

from qam._broker.messages import Delivery
from qam._common.error_inspection import (
    MAX_NAME,
    MAX_TEXT,
    args_and_state,
    args_of,
    find_class,
    frames_of,
    full_name,
    may_be_raised,
    notes_of,
    text_of_args,
)
from qam._common.error_texts import (
    bare_traceback_of,
    fit,
    free_locals,
    shown,
    text_of,
    traceback_of,
    without_middle,
)
from qam._common.plain_values import cut_octets
from qam._common.static_inspection import Name
from qam._protocol.bodies import decode
from qam._serialization.refusals import Receiver, advice
from qam._serialization.remote_errors import ErrorMaker
from qam._serialization.serializers import PickleSerializer, Serializer
from qam._serialization.strangers import Stranger
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


def decode_reply(serializer: Serializer, delivery: Delivery, receiver: Receiver) -> dict[str, Any]:
    """Return the body of a reply; a class that is unknown here is accepted in an exception only.

    An exception is never hidden by what it contains: if that can't be built, the reply has its
    type, its text and its traceback, and texts in place of its args.

    :param receiver: the client.
    :raises QAMSerializationException: like :func:`decode`, or a field has the wrong type; its
        ``executed`` says whether the method ran.
    """
    strangers: list[Name] = []
    try:
        body = decode(serializer, delivery, receiver, strangers)
        _check_reply(body)
    except QAMSerializationException as error:
        free_locals(error)  # what was built so far, before it is read again
        told = _told_exception(serializer, delivery, receiver)
        if told is not None:
            return told
        # A server accepts requests only in its own content type.  A reply in another one than
        # ours shows that it has refused the request.
        same = delivery.properties.get("content_type") == serializer.content_type
        error.executed = "yes" if same or delivery.too_large else "no"
        raise
    if not strangers:
        return body
    if body.get("exception"):
        return body if _is_made_of_plain_values(body, serializer) else _without_object(body)
    raise QAMSerializationException(
        f"the result can't be decoded: {advice(strangers, receiver)}", executed="yes"
    )


def _is_made_of_plain_values(body: dict[str, Any], serializer: Serializer) -> bool:
    """Return True if the reply *body* has an exception that no code of its class has made."""
    kind = type(body.get("result"))
    by_own_code = isinstance(serializer, PickleSerializer) and serializer.trusts(kind)
    return issubclass(kind, BaseException) and not by_own_code


def _told_exception(
    serializer: Serializer, delivery: Delivery, receiver: Receiver
) -> dict[str, Any] | None:
    """Return what an undecodable reply tells of an exception; None if it tells of none."""
    with suppress(QAMSerializationException):
        body = decode(serializer, delivery, receiver, envelope=True)
        _check_reply(body)
        if body.get("exception") and body.get("exception_type") is not None:
            return _without_object(body)
    return None


def _without_object(body: dict[str, Any]) -> dict[str, Any]:
    """Return the reply *body* without the exception in it, which has parts that are not built."""
    result: Any = body.get("result")
    name, args, text = map(body.get, ("exception_type", "exception_args", "exception_text"))
    if issubclass(type(result), BaseException):
        name, args = name or full_name(type(result)), args_of(result) if args is None else args
    elif type(result) is Stranger:
        args = result.args if args is None else args
    shown = Stranger(*_RECEIVER.plain_args(args or ()))
    return body | {"result": shown, "exception_type": name, "exception_text": text}


def _check_reply(body: dict[str, Any]) -> None:
    """Refuse a reply with a field of the wrong type, so that no later code has to check."""
    for name, value in body.items():
        if name in _TYPES_OF_REPLY and not isinstance(value, _TYPES_OF_REPLY[name]):
            kind = _TYPES_OF_REPLY[name][0].__name__
            raise QAMSerializationException(f"a reply is invalid: its field {name!r} is no {kind}")


def result_reply(request_id: Any, result: Any) -> dict[str, Any]:
    """Return the reply of a method that returned *result*."""
    return {
        "id": request_id,
        "result": result,
        "exception": False,
        "internal_exception": NOT_INTERNAL,
    }


def internal_reply(request_id: Any, code: int, text: str) -> dict[str, Any]:
    """Return the reply of a server that has no result of the method: *text* says why."""
    return _failure(request_id, fit(text), code)


def _failure(request_id: Any, result: Any, code: int = NOT_INTERNAL) -> dict[str, Any]:
    return {"id": request_id, "result": result, "exception": True, "internal_exception": code}


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
    reply = _failure(request_id, None)
    reply["exception_type"], reply["exception_text"] = _name_and_text(error)
    maker = _SENDER if send_traceback else _SENDER_WITHOUT_TRACEBACKS
    if isinstance(serializer, PickleSerializer):
        reply |= _portable_pickle(error, serializer, maker, by_plain_pickle)
    else:
        reply["result"] = _portable_args(error, serializer, maker)
    if send_traceback:
        reply["traceback"] = traceback_of(error, _frames_of(error))
    return reply


def bare_exception_reply(
    request_id: Any, error: BaseException, serializer: Serializer, send_traceback: bool = True
) -> dict[str, Any]:
    """Return the reply of a method that raised *error*; run no code of its class."""
    args = _RECEIVER.plain_args(args_of(error))
    shown_args = [_portable_value(each, serializer) for each in args]
    reply = _failure(request_id, shown_args)
    reply["exception_type"] = fit(full_name(type(error))[:MAX_NAME])
    reply["exception_text"] = fit(text_of_args(args))
    if send_traceback:
        reply["traceback"] = bare_traceback_of(error, _frames_of(error))
    return reply


def _frames_of(error: BaseException) -> TracebackType | None:
    """Return the frames of *error*, without the one of this library that called the method."""
    frames = frames_of(error)
    return frames.tb_next if frames else None


def shorter_replies(reply: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield replies that say less and less of the failure in *reply*, which can't be sent."""
    for most in (_MAX_SHORT_TEXT, 0):
        if is_exception_reply(reply):
            yield _shortened(reply, most)
        else:
            yield reply | {"result": cut_octets(reply["result"], most)}


def is_exception_reply(reply: dict[str, Any]) -> bool:
    """Return True if *reply* says what a method raised."""
    return "exception_type" in reply


def _shortened(reply: dict[str, Any], most: int) -> dict[str, Any]:
    """Return the reply of an exception with its type and a text of *most* octets."""
    text = cut_octets(reply["exception_text"], most)
    result = reply["result"]
    by_pickle = isinstance(result, BaseException)
    return {
        **_failure(reply["id"], None),
        "result": _SENDER.make(type(result) if most else Exception, (text,))
        if by_pickle
        else [text],
        "exception_type": reply["exception_type"][:MAX_NAME],
        "exception_text": text,
    }


_REMOTE_TRACEBACK = "Remote traceback:\n"

_RECEIVER = ErrorMaker()
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
        # The texts are for a caller that does not trust what is in the args.
        args, all_plain = maker.shown_args(error)
        return {"result": error} if all_plain else {"result": error, "exception_args": args}
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
    """Return the args of *error*; a text replaces each that the serializer can't encode.

    Those of an OSError include its file names.
    """
    is_os_error = issubclass(type(error), OSError)
    args = args_and_state(error)[0] if is_os_error else args_of(error)
    return [_portable_value(value, serializer) for value in maker.plain_args(args)]


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
