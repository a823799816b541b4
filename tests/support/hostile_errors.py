"""Exceptions as a hostile peer writes them, and how they are received and shown."""

import io
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qam._broker.messages import Delivery
from qam._common.error_texts import describe, text_of, traceback_of
from qam._protocol.replies import decode_reply, outcome
from qam._serialization.refusals import Receiver
from qam._serialization.serializers import Serializer

CLIENT = Receiver("client", "a1")
MAX_SHOWN = 1_500_000  # characters of each text; a surrogate is written in six


def shared(depth: int) -> list[Any]:
    """A list whose text would be 2 ** *depth* long."""
    inner: list[Any] = ["x"]
    for _ in range(depth):
        inner = [inner, inner]
    return inner


def in_itself() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def groups(depth: int) -> BaseException:
    """A group that has the one below twice, and so on."""
    inner: Exception = ValueError("x")
    for _ in range(depth):
        inner = ExceptionGroup("g", [inner, inner])
    return inner


def errors(depth: int) -> BaseException:
    """An error that has the one below twice, and so on."""
    inner = ValueError("x")
    for _ in range(depth):
        inner = ValueError(inner, inner)
    return inner


# --- as a pickle writes them ------------------------------------------------------------------


def _values(value: Any, protocol: int) -> bytes:
    """What puts *value* on the stack, as *protocol* has it."""
    try:
        return pickle.dumps(value, protocol)[2 if protocol > 1 else 0 : -1]
    except ValueError:  # a number whose digits would be too many
        return _values(value, 3)


def _each(args: tuple[Any, ...], protocol: int) -> bytes:
    return b"".join(_values(arg, protocol) for arg in args)


def _text(text: str) -> bytes:
    return _values(text, 2)


Name = tuple[str, str]  # module, qualified name


def _named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


_NEW_OBJECT = _named("copyreg", "__newobj__")
_RECONSTRUCTOR = _named("copyreg", "_reconstructor") + b"("
_OBJECT = _named("builtins", "object") + b"N"

#: The ways in which a pickle makes an exception, each with the protocol of its values.
WAYS: dict[str, tuple[int, Callable[[bytes, Name, tuple[Any, ...]], bytes]]] = {
    "REDUCE": (3, lambda cls, name, args: cls + _values(args, 3) + b"R"),
    "REDUCE, protocol 0": (0, lambda cls, name, args: cls + _values(args, 0) + b"R"),
    "OBJ": (1, lambda cls, name, args: b"(" + cls + _each(args, 1) + b"o"),
    "INST": (1, lambda cls, name, args: b"(" + _each(args, 1) + b"i" + cls[1:]),
    "NEWOBJ": (2, lambda cls, name, args: cls + _values(args, 2) + b"\x81"),
    "NEWOBJ_EX": (3, lambda cls, name, args: cls + _values(args, 3) + b"}\x92"),
    "STACK_GLOBAL": (
        3,
        lambda cls, name, args: _text(name[0]) + _text(name[1]) + b"\x93" + _values(args, 3) + b"R",
    ),
    "__newobj__": (
        2,
        lambda cls, name, args: _NEW_OBJECT + b"(" + cls + _each(args, 2) + b"tR",
    ),
    "_reconstructor": (0, lambda cls, name, args: _RECONSTRUCTOR + cls + _OBJECT + b"tR"),
}


def pickled(name: Name, args: tuple[Any, ...], state: Any = None, way: str = "REDUCE") -> bytes:
    """The body of a reply with an exception, as no pickler would write it."""
    protocol, call = WAYS[way]
    made = call(_named(*name), name, args)
    if state is not None:
        made += _values(state, protocol) + b"b"
    return _reply(made)


def _reply(made: bytes) -> bytes:
    reply = pickle.dumps({"id": 1, "exception": True, "internal_exception": -1}, 3)[:-1]
    return reply + _text("result") + made + b"s."


@dataclass
class _Forged:
    made_of: tuple[Any, ...]


class _Forger(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        return value.made_of if type(value) is _Forged else NotImplemented


def forged(cls: type, args: tuple[Any, ...], state: Any, protocol: int) -> bytes:
    """The same by a pickler, with its frames and its memo; it has to find *cls* by its name."""
    stream = io.BytesIO()
    reply = {"id": 1, "exception": True, "result": _Forged((cls, args, state))}
    _Forger(stream, protocol, fix_imports=False).dump(reply)
    return stream.getvalue()


def filled_late(name: Name) -> bytes:
    """The same, of a list and a dict that get their items, and the exception, when it is made."""
    more = b"h\x09h\x09h\x0ah\x0b" + _text("x" * 1_000) * 100
    args, late = b"]q\x09}q\x0a\x86", _named(*name)
    made = late + args + b"R}" + _text("a") + b"h\x09sbq\x0b"
    return _reply(made + b"h\x09(" + more + b"e0h\x0a" + _text("a") + b"h\x0bs0")


# --- received and shown ---------------------------------------------------------------------


def raised_by(serializer: Serializer, body: bytes) -> Exception:
    """What a caller gets."""
    delivery = Delivery(body, 1, properties={"content_type": serializer.content_type})
    try:
        outcome(decode_reply(serializer, delivery, CLIENT))
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


class OwnTextError(AssertionError):
    """The class of an exception makes a text of it that has no bounds."""


def show(error: Exception) -> None:
    """All that Python or this library shows of *error*, and what they do to send it on."""
    shown = [text_of(error), traceback_of(error, error.__traceback__), describe(error)]
    for show_it in (str, repr, lambda each: pickle.dumps(each).decode("latin-1")):
        try:
            shown.append(show_it(error))
        except MemoryError:
            raise OwnTextError("more memory was asked for than there is") from None
        except Exception:  # by the class's own code, since nobody called its __init__
            shown.append("")
    error.__cause__ = None
    try:
        shown.append("".join(traceback.format_exception(error)))
    except Exception as failure:  # by Python's own code
        raise AssertionError("its traceback can't be shown") from failure
    lengths = [len(each) for each in shown]
    assert max(lengths) <= MAX_SHOWN, f"too much is shown: {lengths}"
