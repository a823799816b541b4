"""What is said of an exception: arguments and states as no honest peer would send them."""

import inspect
import random
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qam._common.error_inspection import BUILTIN
from qam._common.static_inspection import mro_of, name_of, namespace_of
from tests.support.hostile_errors import errors, groups, in_itself, shared


@dataclass(frozen=True)
class Case:
    """An exception of some class is said to have these."""

    args: tuple[Any, ...]
    state: Any = None


LARGE, FAR = "x" * 200_000, 2**62
PARTS: list[Any] = [
    *(None, True, -(2**45), FAR, 10**5000, 1.5, "", "text", "\ud800", b"", b"octets", LARGE),
    *([], [1] * 5000, shared(40), in_itself(), {"a": shared(40)}, (1, (2, (3,))), {1: 2}),
    *(errors(6), groups(6), [ValueError("a")], [SystemExit(3)], range(10**8)),
]
# Takes long, since it is copied until there is too much; by what does not depend on the class.
MANY: list[Any] = [errors(40), groups(40)]
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
        # since Python 3.14 a traceback reads that file, to guess which keyword was meant
        ("invalid syntax", ("/etc/passwd", 1, 1, "whle", 1, 5, (1, 1, None))),
    ],
    BaseExceptionGroup: [
        *(("group", each) for each in ([], [1], [ValueError()], [KeyError], [groups(6)], "text")),
        ("group", [ValueError(n) for n in range(1500)]),
        ("group", [ValueError("x" * 60_000), ExceptionGroup("in", [KeyError(1)])]),
    ],
}

STATES: list[Any] = [
    None,
    *({"args": args} for args in ((), shared(40), [1], (LARGE,), 5)),
    *({"name": name, "path": "p", "name_from": "antigravity"} for name in ("x", LARGE, [1])),
    *({"start": -(2**45)}, {"end": FAR}, {"object": b"", "start": 0}, {"object": 5}),
    *({"filename": LARGE}, {"filename": [1]}, {"errno": 10**5000}, {"characters_written": FAR}),
    {"_metadata": (1, 1, None), "msg": "invalid syntax", "filename": "/etc/passwd"},
    *({"offset": FAR}, {"lineno": FAR}, {"text": LARGE, "end_offset": FAR}, {"msg": shared(40)}),
    *({"exceptions": 3}, {"message": LARGE}, {"value": shared(40)}, {"code": shared(40)}),
    *({"__notes__": ["n" * 10_000] * 5_000}, {"__notes__": [LARGE]}, {"__notes__": 5}),
    *({"__notes__": ["n"]}, {"__cause__": 5}, {"__context__": 5}, {"__class__": 5}, {"a": LARGE}),
    *({f"a{n}": [n] for n in range(2_000)}, {"a": shared(40)}, {"add_note": 5}, [], "text"),
    *({"with_traceback": 5, "__traceback__": 5}, {3: 4}, {"print_file_and_line": LARGE}),
]

# What each name that a class knows is set to, and its `__init__` would be called with: values that
# arrive, as texts to multiply, places to look at, formats to fill, and names to import.
KEPT: list[Any] = [
    *(None, True, -1, -(2**45), FAR, 10**600, 1e308, float("nan"), "", "\ud800", b"\xff"),
    *("this", "antigravity", "os.system", "/etc/passwd", "/dev/zero", "%s{0}%(a)s\n" * 100),
    *("x" * 60_000, "\n" * 60_000, b"x" * 60_000, [], [1] * 900, ("a", (1, [2])), {"a": {"b": 1}}),
    *({1: 2}, [["a", "b"]] * 100, ValueError("a"), [KeyError("this")]),
]
_MIXES = 12  # of these, for each class

#: With what the builtin classes can be made that want particular arguments.
RIGHT: dict[type, tuple[Any, ...]] = {
    UnicodeDecodeError: ("utf-8", b"abc", 0, 1, "why"),
    UnicodeEncodeError: ("utf-8", "abc", 0, 1, "why"),
    UnicodeTranslateError: ("abc", 0, 1, "why"),
    BaseExceptionGroup: ("g", [ValueError(1)]),
}


# --- what a class knows -------------------------------------------------------------------


def own_functions(cls: type) -> dict[types.CodeType, types.FunctionType]:
    """All functions that *cls*, its bases and their metaclasses define in Python, by their code."""
    namespaces = [
        namespace_of(each) or {} for one in mro_of(cls) for each in (one, *mro_of(type(one)))
    ]
    return {
        function.__code__: function
        for namespace in namespaces
        for found in namespace.values()
        for function in _functions_of(found)
    }


def _functions_of(found: Any) -> list[types.FunctionType]:
    if type(found) is property:
        return [each for each in (found.fget, found.fset) if type(each) is types.FunctionType]
    function = getattr(found, "__func__", found) if type(found) in _METHODS else found
    return [function] if type(function) is types.FunctionType else []


_METHODS = (staticmethod, classmethod)


def adds_code(cls: type) -> bool:
    """Return True if *cls* defines something that its bases don't, by code."""
    return any(map(_functions_of, (namespace_of(cls) or {}).values()))


def own_names(cls: type) -> list[str]:
    """The attributes that *cls* knows: those in its namespaces, and those its methods use."""
    own = [each for each in mro_of(cls) if id(each) not in BUILTIN]
    found = {name for each in own for name in (namespace_of(each) or {})}
    for code in own_functions(cls):
        found.update(code.co_names, code.co_varnames[1 : code.co_argcount])
    for each in mro_of(cls)[len(own) :]:
        found.difference_update(namespace_of(each) or {})
    return sorted(name for name in found if not name.startswith("__"))


def fields_in_c(cls: type) -> list[str]:
    """What the builtin classes that *cls* stands on keep in C."""
    kinds = (types.GetSetDescriptorType, types.MemberDescriptorType)
    return sorted(
        name
        for each in mro_of(cls)
        if id(each) in BUILTIN
        for name, value in (namespace_of(each) or {}).items()
        if type(value) in kinds and not name.startswith("__")
    )


def _number_of_args(cls: type) -> int:
    """How many arguments the class takes, as far as it says so."""
    init = next((vars(each)["__init__"] for each in mro_of(cls) if "__init__" in vars(each)), None)
    if type(init) is not types.FunctionType:
        return 2
    return max(1, len(inspect.signature(init).parameters) - 1)


# --- cases --------------------------------------------------------------------------------


def cases_of(cls: type) -> Iterator[Case]:
    """What to try with *cls*: anything, what its builtin base keeps in C, and what it knows."""
    right = next((args for base, args in RIGHT.items() if issubclass(cls, base)), ())
    yield from (Case(args) for args in ARGS)
    yield from (Case(args) for base in PLACES if issubclass(cls, base) for args in PLACES[base])
    if cls in (ValueError, OSError, ExceptionGroup, StopIteration):
        yield from (Case(("text", *MANY[:number], *MANY)) for number in (0, 2))
    yield from (Case(right, state) for state in STATES)
    yield from _cases_of_fields(cls, right)
    yield from _cases_of_own_names(cls, right)


def _cases_of_fields(cls: type, right: tuple[Any, ...]) -> Iterator[Case]:
    for name in fields_in_c(cls):
        yield from (Case(right, {name: value}) for value in (None, FAR, "x" * 60_000, "this", [1]))


def _cases_of_own_names(cls: type, right: tuple[Any, ...]) -> Iterator[Case]:
    """All attributes and arguments are the same, and then mixed as chance has it."""
    names, number = own_names(cls), _number_of_args(cls)
    if not names:
        return
    for value in KEPT:
        yield Case((value,) * number, dict.fromkeys(names, value))
    chance = random.Random(".".join(name_of(cls)))
    for turn in range(_MIXES):
        args = tuple(chance.choice(KEPT) for _ in range(number))
        state = {name: chance.choice(KEPT) for name in names}
        yield Case(right if turn % 2 else args, state)
