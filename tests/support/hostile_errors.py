"""Exceptions as a hostile peer writes them, and a process that receives and shows them all.

``python -m tests.support.hostile_errors builtins`` for those of Python itself, ``… library``
for those that the modules of the standard library define.
"""

import builtins
import contextlib
import importlib
import inspect
import io
import itertools
import pickle
import pkgutil
import resource
import sys
import time
import traceback
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from qam._broker.messages import Delivery
from qam._common.error_texts import _ends, describe, text_of, traceback_of
from qam._protocol.bodies import decode
from qam._protocol.replies import decode_reply, outcome
from qam._serialization.serializers import Serializer, get_serializer
from qam.exceptions import QAMSerializationException
from tests.support.hostile_pickles import calling

MAX_SECONDS = 2.0  # of one error, from its bytes to all that is shown of it
MAX_SHOWN = 1_500_000  # characters of each text; a surrogate is written in six
MAX_MEMORY = 2 * 2**30

NOT_IMPORTED = {"antigravity", "this", "idlelib", "tkinter", "turtle", "turtledemo", "test"}
NOT_IMPORTED |= {"lib2to3", "__main__", "ensurepip", "venv", "pydoc_data", "asyncio"}


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


LARGE, FAR = "x" * 200_000, 2**62
PARTS: list[Any] = [
    *(None, True, -(2**45), FAR, 10**5000, 1.5, "", "text", "\ud800", b"", b"octets", LARGE),
    *([], [1] * 5000, shared(40), in_itself(), {"a": shared(40)}, (1, (2, (3,))), {1: 2}),
    *(errors(40), groups(40), [ValueError("a")], [SystemExit(3)], range(10**8)),
]
ARGS: list[tuple[Any, ...]] = [
    (),
    *((part,) for part in PARTS),
    *(("text", part) for part in PARTS),
    ("a", "b", "c"),
]
PLACES: dict[type, list[tuple[Any, ...]]] = {
    # what points outside of a text, in each way that there is
    UnicodeError: [
        *(
            ("utf-8", text, start, end, "why")
            for text in (b"x", "x", b"")
            for start in (-(2**45), -1, 0, 1, 2, FAR, True, None)
            for end in (-(2**45), -1, 0, 1, 2, FAR)
        ),
        *(("x", start, end, "why") for start in (-(2**45), 0, FAR) for end in (-1, 1, 2, FAR)),
        ("utf-8", LARGE, 0, 200_000, "why"),
        ("utf-8", LARGE.encode(), 0, 1, LARGE),
    ],
    OSError: [
        *((2, "no such", part) for part in PARTS),
        *((11, part, "a", None, part) for part in PARTS),
        *((shared(30), "no such", "a"), (FAR, "no such"), (-FAR, None, b"a", 3, 4)),
    ],
    SyntaxError: [
        *(
            ("why", ("file", line, column, text, line, end))
            for line in (0, FAR, 10**5000, "1", None)
            for column in (-FAR, 9_999, 10**8, FAR, "1", None)
            for text, end in (("text", 1), ("text", FAR), (None, 0), ([], -1))
        ),
        *(("why", (part, 1, 1, part)) for part in PARTS),
        *(("why", place) for place in (["f", 1, 1, "t"], ("f",), "file", ("f", 1, 1, "t", 1))),
    ],
    BaseExceptionGroup: [
        *(("group", each) for each in ([], [1], [ValueError()], [KeyError], [groups(20)], "text")),
        ("group", [ValueError(n) for n in range(1500)]),
        ("group", [ValueError("x" * 60_000), ExceptionGroup("in", [KeyError(1)])]),
    ],
}


OF_THEIR_OWN_KIND = {
    *(Exception, SystemExit, StopIteration, KeyError, ImportError, AttributeError, NameError),
    *(OSError, BlockingIOError, SyntaxError, ExceptionGroup, BaseExceptionGroup),
    *(UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError),
}


def args_for(cls: type) -> list[tuple[Any, ...]]:
    """What to try with *cls*: anything, and what its builtin base keeps in C."""
    return ARGS + [args for base in PLACES if issubclass(cls, base) for args in PLACES[base]]


STATES: list[Any] = [
    None,
    *({"args": args} for args in ((), shared(40), [1], (LARGE,), 5)),
    *({"name": name, "path": "p", "name_from": "antigravity"} for name in ("x", LARGE, [1])),
    *({"start": -(2**45)}, {"end": FAR}, {"object": b"", "start": 0}, {"object": 5}),
    *({"filename": LARGE}, {"filename": [1]}, {"errno": 10**5000}, {"characters_written": FAR}),
    *({"offset": FAR}, {"lineno": FAR}, {"text": LARGE, "end_offset": FAR}, {"msg": shared(40)}),
    *({"exceptions": 3}, {"message": LARGE}, {"value": shared(40)}, {"code": shared(40)}),
    *({"__notes__": ["n" * 10_000] * 5_000}, {"__notes__": [LARGE]}, {"__notes__": 5}),
    *({"__notes__": ["n"]}, {"__cause__": 5}, {"__context__": 5}, {"__class__": 5}, {"a": LARGE}),
    *({f"a{n}": [n] for n in range(2_000)}, {"a": shared(40)}, {"add_note": 5}, [], "text"),
    *({"with_traceback": 5, "__traceback__": 5}, {3: 4}, {"print_file_and_line": LARGE}),
]


def pickled(name: tuple[str, str], args: tuple[Any, ...], state: Any = None) -> bytes:
    """The body of a reply with an exception, as no pickler would write it."""
    made = calling(*name)[2:-4] + pickle.dumps(args, 3)[2:-1] + b"R"
    if state is not None:
        made += pickle.dumps(state, 3)[2:-1] + b"b"
    reply = pickle.dumps({"id": 1, "exception": True, "internal_exception": -1}, 3)[:-1]
    return reply + b"X\x06\x00\x00\x00result" + made + b"s."


def raised_by(serializer: Serializer, body: bytes) -> Exception:
    """What a caller gets."""
    delivery = Delivery(body, 1, properties={"content_type": serializer.content_type})
    try:
        outcome(decode_reply(serializer, delivery))
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def show(error: Exception) -> None:
    """All that Python or this library shows of *error*, and what they do to send it on."""
    shown = [text_of(error), traceback_of(error, error.__traceback__), describe(error)]
    # the class's own __str__ or __repr__ may fail, since nobody called its __init__
    for show_it in (str, repr, lambda each: pickle.dumps(each).decode("latin-1")):
        with contextlib.suppress(Exception):
            shown.append(show_it(error))
    error.__cause__ = None
    shown.append("".join(traceback.format_exception(error)))
    assert max(map(len, shown)) <= MAX_SHOWN, [len(each) for each in shown]


# --- the processes -----------------------------------------------------------------------------

PICKLE = get_serializer("pickle")
OTHERS = [get_serializer(name) for name in ("json", "msgpack")]


def receive(name: tuple[str, str], args: tuple[Any, ...], state: Any = None) -> None:
    """Get an exception by each serializer that can carry it, and show it."""
    fields = {"id": 1, "exception": True, "exception_type": ".".join(name), "exception_text": "t"}
    bodies = [(PICKLE, pickled(name, args, state))]
    for serializer in OTHERS if state is None and _ends(args) else ():  # they have no memo
        with contextlib.suppress(Exception):  # a value that it does not have
            bodies.append((serializer, serializer.encode(fields | {"result": list(args)})))
    for serializer, body in bodies:
        started = time.process_time()
        show(raised_by(serializer, body))
        seconds = time.process_time() - started
        assert seconds < MAX_SECONDS, (serializer.name, name, seconds)


_turns = itertools.count()


def some(cases: list[Any], step: int) -> list[Any]:
    """One in *step* of the *cases*, and others for each class; all, if all were asked for."""
    return cases if "all" in sys.argv else cases[next(_turns) % step :: step]


def cases_of_builtins() -> Iterator[tuple[tuple[str, str], tuple[Any, ...], Any]]:
    right: dict[str, tuple[Any, ...]] = {
        "UnicodeDecodeError": ("utf-8", b"abc", 0, 1, "why"),
        "UnicodeEncodeError": ("utf-8", "abc", 0, 1, "why"),
        "UnicodeTranslateError": ("abc", 0, 1, "why"),
        "ExceptionGroup": ("g", [ValueError(1)]),
        "BaseExceptionGroup": ("g", [ValueError(1)]),
    }
    for name, cls in vars(builtins).items():
        if isinstance(cls, type) and issubclass(cls, BaseException):
            cases = [(args, None) for args in args_for(cls)]
            cases += [(right.get(name, ()), state) for state in STATES]
            few = some(cases, 4 if cls in OF_THEIR_OWN_KIND else 40)
            yield from ((("builtins", name), *case) for case in few)


def import_the_library() -> None:
    """Import what can be imported of the standard library."""
    warnings.simplefilter("ignore")
    top = [name for name in sys.stdlib_module_names if name not in NOT_IMPORTED]
    inner = [
        f"{package}.{module.name}"
        for package in (
            "asyncio",
            "concurrent.futures",
            "email",
            "http",
            "json",
            "urllib",
            "xml.sax",
        )
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
    ]
    for name in sorted([*top, *inner]):
        with contextlib.suppress(ImportError), contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(name)


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(each) for each in type.__subclasses__(cls)))


def codes_of(classes: Iterable[type]) -> set[types.CodeType]:
    """The code of all methods of *classes*."""
    return {
        getattr(method, "__func__", method).__code__
        for cls in classes
        for method in vars(cls).values()
        if inspect.isfunction(getattr(method, "__func__", method))
    }


@contextlib.contextmanager
def running_none_of(codes: set[types.CodeType]) -> Iterator[None]:
    ran: list[str] = []

    def watch(frame: types.FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code in codes:
            ran.append(f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}")

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert ran == [], ran


def receive_the_library() -> int:
    """Get an exception of each class that the standard library defines; return their number."""
    import_the_library()
    classes = sorted(
        (cls for cls in subclasses(BaseException) if cls.__module__ != "builtins"),
        key=lambda cls: (cls.__module__, cls.__qualname__),
    )
    # pickle's own end of its work by one of its own
    exempt = ("qam", "json.decoder", "pickle", "_pickle")
    own = {cls for cls in classes if not cls.__module__.startswith(exempt)}
    codes = codes_of(own)
    for cls in classes:
        name = cls.__module__, cls.__qualname__
        with running_none_of(codes):
            error = raised_by(PICKLE, pickled(name, ("text", 1), {"a": 1, "msg": "m"}))
        show(error)
        for args in some(args_for(cls), 40):
            show(raised_by(PICKLE, pickled(name, args, {"a": 1})))
    return len(own)


def receive_requests() -> None:
    """The same as arguments, by a server: the builtin ones arrive, and no other."""
    for cls in subclasses(BaseException):
        error = calling(cls.__module__, cls.__qualname__, "x")
        delivery = Delivery(
            b"\x80\x02}X\x06\x00\x00\x00params" + error[2:-1] + b"s.",
            1,
            properties={"content_type": PICKLE.content_type},
        )
        builtin = cls.__module__ == "builtins"
        try:
            show(decode(PICKLE, delivery)["params"])
        except QAMSerializationException:
            refused = True
        else:
            refused = False
        assert refused is not (builtin and issubclass(cls, Exception)), cls


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    if sys.argv[1] == "builtins":
        cases = list(cases_of_builtins())
        for case in cases:
            receive(*case)
        done = len(cases)
    else:
        done = receive_the_library()
        receive_requests()
    print(done)


if __name__ == "__main__":
    main()
