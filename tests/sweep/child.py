"""A process with limits, which receives exceptions of each class of a distribution.

``python -m tests.sweep.child python`` says each class before it begins with it, and at the end,
in a line of JSON, what it did.  With ``few`` each class gets some of the cases in its turn.
"""

import contextlib
import faulthandler
import itertools
import json
import linecache
import math
import pickle
import resource
import sys
import time
import types
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from qam._broker.messages import Delivery
from qam._common.error_inspection import MAX_TEXT, find_class, full_name, may_be_raised
from qam._common.static_inspection import name_of
from qam._protocol.bodies import decode
from qam._protocol.replies import exception_reply
from qam._serialization.refusals import Receiver
from qam._serialization.serializers import Serializer, get_serializer
from qam.exceptions import QAMSerializationException, RemoteException
from tests.support.hostile_errors import (
    WAYS,
    OwnTextError,
    filled_late,
    forged,
    pickled,
    raised_by,
    show,
)
from tests.support.hostile_pickles import calling
from tests.support.watch import nothing_but_computing
from tests.sweep.cases import Case, adds_code, cases_of, own_functions
from tests.sweep.packages import PREPARE, PYTHON, classes_of, error_classes, import_all, top_modules

MAX_SECONDS = 10  # of CPU for one body, from its bytes to all that is shown of the exception
MAX_GROWTH = 192 * 2**20  # of the process, in bytes, by all bodies together
MAX_ADDRESSES = 2 * 2**30  # in bytes, beside what the process has when it begins
# The modules whose lines are in a traceback of what came.
_SHOW_THEIR_LINES = ("qam", "tests", "json", "pickle", "kombu.utils.json", "msgpack", "enum")

PICKLE, JSON, MSGPACK = map(get_serializer, ("pickle", "json", "msgpack"))
# What makes Python import what it needs, each with some class.
_WARMING_UP = (
    Case(("a", [ValueError(1)], b"b")),
    Case(("a", 1), {"name": "x"}),
    Case(("a", ("file", 1, 1, "text"))),
)
_MOST_PARTS = 6_000  # of what is sent by a serializer that writes all of it
_BASE = {"id": 1, "exception": True, "exception_text": "t"}
#: What nobody may import, find or call because a message names it.
NAMES = [
    *(("this", "x"), ("antigravity", "fly"), ("os", "system"), ("builtins", "eval")),
    *(("builtins", "object"), ("qam.no_such", "Error"), ("os", "path.join"), ("", "")),
    *(("builtins", "Exception.mro"), ("sys", "modules"), ("__main__", "Exception")),
]


# --- limits -------------------------------------------------------------------------------


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory() -> None:
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MAX_ADDRESSES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()


class Bounds:
    """What one body may use: CPU by a signal that ends the process, memory by what it has taken."""

    def __init__(self) -> None:
        self._begin = _memory()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        seconds = math.ceil(time.process_time()) + MAX_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        with nothing_but_computing():
            yield
        assert self.grown() < MAX_GROWTH, "much more memory was taken"

    def grown(self) -> int:
        """How much more memory the process takes at most than when this was made, in bytes."""
        return _memory() - self._begin


@contextlib.contextmanager
def running_none_of(functions: dict[types.CodeType, types.FunctionType]) -> Iterator[None]:
    """Fails if one of *functions* is called."""
    ran: list[str] = []

    def watch(frame: types.FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code in functions:
            ran.append(f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}")

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert ran == [], f"code of the class ran: {ran[:5]}"


def _is_made_here(cls: type) -> bool:
    """Return True if the library, or the unpickler below it, makes such exceptions itself."""
    name = name_of(cls)
    return name[0].partition(".")[0] == "qam" or name in _MADE_HERE


_MADE_HERE = (("json.decoder", "JSONDecodeError"), ("pickle", "_Stop"))


# --- bodies -------------------------------------------------------------------------------


def bodies_of(cls: type, case: Case, way: str) -> Iterator[tuple[Serializer, bytes]]:
    """What a peer sends by each serializer that can carry it."""
    yield PICKLE, pickled(name_of(cls), case.args, case.state, way)
    if case.state is None and _is_small(case.args):  # the others have no memo
        reply = _BASE | {"exception_type": ".".join(name_of(cls)), "result": list(case.args)}
        for serializer in (JSON, MSGPACK):
            with contextlib.suppress(Exception):  # a value that it does not have
                yield serializer, serializer.encode(reply)


def _is_small(value: Any) -> bool:
    """Return True if *value* has few parts, each counted as often as it is there."""
    left = [value]
    for _ in range(_MOST_PARTS):
        if not left:
            return True
        part = left.pop()
        if type(part) in (list, tuple):
            left += part
        elif type(part) is dict:
            left += part.values()
    return False


def whole_bodies_of(cls: type) -> Iterator[bytes]:
    """An exception as a pickler writes it, in each way; and one that is filled when it is made."""
    for way in WAYS:
        yield pickled(name_of(cls), ("text", 1), {"a": 1}, way)
    for protocol in range(2, 6):
        with contextlib.suppress(pickle.PicklingError, AttributeError):  # not found by its name
            yield forged(cls, ("text", [1] * 100, "x" * 1_000), {"a": "x" * 60_000}, protocol)
    yield filled_late(name_of(cls))


# --- the sweep ----------------------------------------------------------------------------


class Sweep:
    """Receives exceptions, and counts what becomes of them.

    :param few: whether each class gets some of the cases, in its turn.
    """

    def __init__(self, few: bool) -> None:
        self.came: Counter[str] = Counter()
        #: The classes by whose own code the text of an exception has no bounds.
        self.own_texts: set[str] = set()
        self._few = few
        self._turns = defaultdict[str, Iterator[int]](itertools.count)
        self._ways = itertools.cycle(WAYS)
        self._warm_up()
        limit_memory()
        self.bounds = Bounds()

    def _warm_up(self) -> None:
        """Import and read what Python itself needs to show an exception of this process."""
        for name, module in [*sys.modules.items()]:
            if name.startswith(_SHOW_THEIR_LINES):
                linecache.getlines(getattr(module, "__file__", None) or "")
        for cls in (ImportError, SyntaxError, AttributeError, NameError, OSError, ExceptionGroup):
            for case in _WARMING_UP:
                for way in WAYS:
                    for serializer, body in bodies_of(cls, case, way):
                        self._receive(serializer, body)

    def receive_all_of(self, classes: Iterable[type]) -> None:
        for cls in classes:
            print(".".join(name_of(cls)), flush=True)
            # where a class adds no code, its cases differ from its base's by nothing but its name
            acts = adds_code(cls) or name_of(cls)[0] == "builtins"
            self._receive_whole(cls, 12 if self._few else 1)
            for _ in self._some("arguments", [cls], 5 if self._few else 1):
                self._receive_as_argument(cls)
            step = 1 if acts else 5
            for case in self._some("cases", cases_of(cls), 60 * step if self._few else step):
                for serializer, body in bodies_of(cls, case, next(self._ways)):
                    with self.bounds():
                        self._note(cls, self._receive(serializer, body))

    def _some(self, what: str, cases: Iterable[Any], step: int) -> Iterator[Any]:
        """One in *step* of the *cases*, for each class others."""
        return itertools.islice(cases, next(self._turns[what]) % step, None, step)

    def _receive_whole(self, cls: type, step: int) -> None:
        functions = {} if _is_made_here(cls) else own_functions(cls)
        first, *others = whole_bodies_of(cls)
        for body in [first, *self._some("whole", others, step)]:
            with self.bounds():
                with running_none_of(functions) if functions else contextlib.nullcontext():
                    error = raised_by(PICKLE, body)
                show(error)
            self._note(cls, error)
        for serializer in self._some("serializers", (PICKLE, JSON, MSGPACK), step):
            with self.bounds():
                sent = serializer.encode(exception_reply(1, error, serializer))
            assert len(sent) < 6 * MAX_TEXT, f"{len(sent)} bytes are sent on"

    def _receive_as_argument(self, cls: type) -> None:
        """In a request the builtin ones arrive, and no other."""
        name = name_of(cls)
        body = pickle.dumps({"id": 1}, 2)[:-1] + b"X\x06\x00\x00\x00params"
        body += calling(*name, "x")[2:-1] + b"s."
        delivery = Delivery(body, 1, properties={"content_type": PICKLE.content_type})
        arrived = False
        with self.bounds(), contextlib.suppress(QAMSerializationException):
            decode(PICKLE, delivery, Receiver("server", "shop"))
            arrived = True
        assert arrived is (name[0] == "builtins" and issubclass(cls, Exception)), "as an argument"

    def receive_names(self) -> None:
        """The same of names that are no classes of exceptions here."""
        for name in NAMES:
            print("names:", name, flush=True)
            bodies = [(PICKLE, pickled(name, ("this", 1), {"a": 1}, way)) for way in WAYS]
            reply = _BASE | {"exception_type": ".".join(name), "result": ["this", 1]}
            bodies += [(each, each.encode(reply)) for each in (JSON, MSGPACK)]
            for serializer, body in bodies:
                with self.bounds():
                    error = self._receive(serializer, body)
                assert type(error) in (RemoteException, QAMSerializationException), error

    def _receive(self, serializer: Serializer, body: bytes) -> Exception:
        error = raised_by(serializer, body)
        try:
            show(error)
        except OwnTextError:
            self.own_texts.add(full_name(type(error)))
        return error

    def _note(self, cls: type, error: Exception) -> None:
        found = find_class(name_of(cls))  # perhaps another of the same name
        if type(error) is RemoteException:
            self.came["as RemoteException"] += 1
        elif found and issubclass(type(error), found) and may_be_raised(type(error)):
            self.came["as itself"] += 1
        else:
            assert type(error) is QAMSerializationException, f"{type(error)} came"
            self.came["refused"] += 1


def main() -> None:
    distribution, few = sys.argv[1], "few" in sys.argv
    before = [] if distribution == PYTHON else error_classes()
    PREPARE.get(distribution, lambda: None)()
    not_imported = import_all(top_modules(distribution))
    classes = classes_of(distribution, before)
    began = time.process_time()
    sweep = Sweep(few)
    sweep.receive_all_of(classes)
    sweep.receive_names()
    print(
        json.dumps(
            {
                "classes": len(classes),
                "came": sweep.came,
                "seconds": time.process_time() - began,
                "grown": sweep.bounds.grown(),
                "own_texts": sorted(sweep.own_texts),
                "not_imported": not_imported,
            }
        )
    )


if __name__ == "__main__":
    main()
