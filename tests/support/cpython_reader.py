"""How CPython's own unpicklers read a body, in a process of its own that has limits.

What a body names is looked up in the tables of this library, and nothing else is; so nothing acts.
Run as a program, this file is that process: it reads bodies from its standard input, and writes
what each was read as to its standard output. It ends when its input does.
"""

import copyreg
import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import zoneinfo  # noqa: F401 - its names are found only where it is imported
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Self

from qam._serialization.known_names import (
    EXCEPTIONS,
    VALUES,
    attribute,
    named_zone,
    new_object,
    python_3_name,
    reconstructor,
    stand_in,
    unicode_decode_error,
    zone_info,
)
from qam._serialization.remote_errors import decode_error_of_python_2
from tests.support.described import STANDS_FOR, describe

_ROOT = Path(__file__).parent.parent.parent
# The length of a body, and whether it is read also by those that look its names up.
_HEAD = struct.Struct("<I?")
_MOST_MEMORY = 2**30

#: What a reading is if the reader could not be asked: the tables have not what it would look up.
NOT_ASKED = "not asked"
#: And if it has not read the body as anything.
REFUSED = "refused: "


class CPythonReader:
    """A process that reads bodies; it is started when it is needed, and again when it has died.

    As a context manager it ends with the block.

    :param seconds: how much CPU time a body may take; it is up to a second more.
    """

    def __init__(self, seconds: int = 4) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0  #: how often it was started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def read(self, body: bytes, naming: bool = True) -> dict[str, Any] | None:
        """Return how each of its unpicklers reads *body*; None if the process died of it.

        :param naming: False to ask those alone that make nothing of what a body names.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(_HEAD.pack(len(body), naming) + body)
            process.stdin.flush()
        except BrokenPipeError:
            self.close()
            return None
        answer = process.stdout.readline()
        if not answer.endswith(b"\n"):
            self.close()
            return None
        found: dict[str, Any] = json.loads(answer)
        return found

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__, str(self._seconds)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what a crash says
        )
        return self._process

    def close(self) -> None:
        """End the process; another one is started when the next body comes."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


# --- inside the process: what a name gives ---------------------------------------------------


class NotAskedError(Exception):
    """A name is none that this process looks up."""


_errors: dict[str, type] = {}


class _InertError(Exception):
    """Takes whatever it is made of, and whatever it is to become."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


def _inert_error(cls: type) -> type:
    # Of all that OSError stands for one, whatever name it was found by.
    cls = OSError if issubclass(cls, OSError) else cls
    if cls.__name__ not in _errors:
        names = {"__module__": "builtins", "__qualname__": cls.__name__}
        _errors[cls.__name__] = type(cls.__name__, (_InertError,), names)
    return _errors[cls.__name__]


def _unpickled_zone(owner: Any, name: str) -> Any:
    """In place of getattr."""
    if owner is not zone_info() or name != "_unpickle":
        raise NotAskedError
    return named_zone


def _decode_error(*args: Any) -> Exception:
    """In place of Python 2's UnicodeDecodeError."""
    return _inert_error(UnicodeDecodeError)(*decode_error_of_python_2(*args))  # type: ignore


# What does the work of a stand-in that does none itself.
_IN_PLACE_OF: dict[int, Callable[..., Any]] = {
    id(attribute): _unpickled_zone,
    id(new_object): copyreg.__newobj__,  # type: ignore
    id(reconstructor): copyreg._reconstructor,  # type: ignore
    id(unicode_decode_error): _decode_error,
}
STANDS_FOR |= {id(does): STANDS_FOR[stand_in] for stand_in, does in _IN_PLACE_OF.items()}


def _found(module: str, name: str) -> Any:
    if (module, name) == ("exceptions", "UnicodeDecodeError"):
        return _decode_error
    known = python_3_name((module, name))
    if (found := stand_in(known)) is not None:
        return _IN_PLACE_OF.get(id(found), found)
    if known in VALUES:
        return VALUES[known]
    if known in EXCEPTIONS:
        return _inert_error(EXCEPTIONS[known])
    raise NotAskedError


# --- inside the process: the unpicklers ------------------------------------------------------


class _Named(type):
    """A class that is made of nothing, and becomes another one like it when it is called."""

    is_named = True

    def append(cls, item: Any) -> None:
        pass

    extend = add = __setstate__ = append

    def __setitem__(cls, key: Any, item: Any) -> None:
        pass


def _named(*args: Any, **kwargs: Any) -> Any:
    return _Named("Named", (), {"__new__": _named})


class _InC(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _found(module, name)


class _InCNamingNothing(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _named()


class _InPython(pickle._Unpickler):  # type: ignore
    def __init__(self, body: bytes, encoding: str) -> None:
        super().__init__(io.BytesIO(body), encoding=encoding)
        self.has_names = False

    def find_class(self, module: str, name: str) -> Any:
        self.has_names = True
        return _found(module, name)

    def _decode_string(self, value: bytes) -> str | bytes:
        if self.encoding == "bytes":
            return value
        try:
            return value.decode(self.encoding)
        except UnicodeDecodeError:  # as this library does
            return value


class _InPythonNamingNothing(_InPython):
    def find_class(self, module: str, name: str) -> Any:
        return _named()


# The C unpickler of the whole bytes finds classes by itself, so it may only find what it may make.
_MAY_BE_FOUND = VALUES.keys() - {name for name in VALUES if stand_in(name) is not None}


def _check_names(event: str, args: tuple[Any, ...]) -> None:
    if event == "pickle.find_class" and args not in _MAY_BE_FOUND:
        raise NotAskedError


def _whole(body: bytes, encoding: str) -> Any:
    return pickle.loads(body, encoding=encoding)


def _stream(body: bytes, encoding: str) -> Any:
    return _InC(io.BytesIO(body), encoding=encoding).load()


def _inert_stream(body: bytes, encoding: str) -> Any:
    return _InCNamingNothing(io.BytesIO(body), encoding=encoding).load()


def _tell(read: Callable[..., Any], *args: Any) -> str:
    try:
        return describe(read(*args))
    except NotAskedError:
        return NOT_ASKED
    except Exception as error:
        return REFUSED + type(error).__name__


def _read(body: bytes, naming: bool) -> dict[str, Any]:
    """Return how each of the unpicklers reads *body*."""
    inert = _InPythonNamingNothing(body, "utf-8")
    found: dict[str, Any] = {
        "naming nothing": _tell(inert.load),
        "stream naming nothing": _tell(_inert_stream, body, "utf-8"),
    }
    if naming:
        found |= _read_naming(body)
    if REFUSED + "UnicodeDecodeError" in found.values():  # a byte string of Python 2, perhaps
        found["bytes"] = _read_as_bytes(body) if naming else {}
    return found


def _read_naming(body: bytes) -> dict[str, Any]:
    in_python = _InPython(body, "utf-8")
    return {
        "python": _tell(in_python.load),
        "whole": _tell(_whole, body, "utf-8"),
        "stream": _tell(_stream, body, "utf-8"),
        "has names": in_python.has_names,
    }


def _read_as_bytes(body: bytes) -> dict[str, Any]:
    return {
        "python": _tell(_InPython(body, "bytes").load),
        "whole": _tell(_whole, body, "bytes"),
        "stream": _tell(_stream, body, "bytes"),
    }


def _serve(came: BinaryIO, answers: BinaryIO, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_check_names)
    while octets := came.read(_HEAD.size):
        length, naming = _HEAD.unpack(octets)
        body = came.read(length)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        until = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
        answers.write(json.dumps(_read(body, naming)).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]))
