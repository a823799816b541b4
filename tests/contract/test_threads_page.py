"""The page of threads and locks has every lock of the library, and every place that waits."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
CODE = ROOT / "qam"
PAGE = (ROOT / "docs/topics/threads.md").read_text(encoding="utf-8")

LOCKS = {"Lock": False, "own_lock": True, "Semaphore": False, "BoundedSemaphore": False}
#: What a module may not make for itself, since `_common.own_locks` has to know it.
HIDDEN = "RLock"
#: What is set or notified in place of being held; a condition is a lock besides.
OTHERS = {"Condition", "Event", "Future", "Barrier"}


class Found(NamedTuple):
    """Something that threads hold, or wait on."""

    module: str
    name: str  #: "Class.attribute", or that of a local variable
    kind: str  #: "lock", "condition", "event" …
    reentrant: bool = False


def modules() -> Iterator[tuple[str, ast.Module]]:
    """The modules of the library; the commands are its users."""
    for path in sorted(CODE.rglob("*.py")):
        name = ".".join(path.relative_to(CODE).with_suffix("").parts)
        if not name.startswith("_cli.") and name != "_common.own_locks":
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def called(node: ast.expr | None) -> str:
    """The name that *node* calls, without what stands before its last dot."""
    while isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Subscript):  # as in Future[None]()
        node = node.value
    return getattr(node, "attr", getattr(node, "id", "")) if node is not None else ""


def scopes(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, str, ast.FunctionDef]]:
    """Each function: the class that it is in, its name with that, and itself."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from scopes(node, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield prefix, prefix + node.name, node


def found_in(module: str, tree: ast.AST, prefix: str = "") -> Iterator[Found]:
    """What is made in *module* for threads to hold, or to wait on."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from found_in(module, node, f"{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_made(node.value):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield _found(module, prefix, target, node.value)
        elif _is_made(node):  # without a name by which it could be listed
            yield _found(module, prefix, ast.Name(f"line {node.lineno}"), node)
        else:
            yield from found_in(module, node, prefix)


def _is_made(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and called(node) in {*LOCKS, *OTHERS}


def _found(module: str, prefix: str, target: ast.expr, made: ast.Call) -> Found:
    name = prefix + target.attr if isinstance(target, ast.Attribute) else target.id
    kind = called(made)
    if kind in LOCKS:
        return Found(module, name, "lock", LOCKS[kind])
    if kind != "Condition":
        return Found(module, name, kind.lower())
    # Its lock is reentrant, unless it is given another.  One that has a name is listed too.
    given = called(made.args[0]) if made.args else "own_lock"
    return Found(module, name, "lock", LOCKS.get(given, True))


FOUND = {each for module, tree in modules() for each in found_in(module, tree)}


def waits_in(tree: ast.Module, conditions: set[str]) -> Iterator[str]:
    """The functions in which a thread may be put to sleep, by what the system has for it."""
    for _, name, function in scopes(tree):
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        if any(_waits(call, conditions) for call in calls):
            yield name


def _waits(call: ast.Call, conditions: set[str]) -> bool:
    match called(call):
        case "acquire":
            return any(each.arg == "timeout" for each in call.keywords)
        case "wait":
            return called(getattr(call.func, "value", None)) in conditions
        case "join":  # of a thread, and not of a text
            return len(call.args) == 1 and called(call.args[0]) == "wait_time"
        case "select" | "poll" | "result":
            return isinstance(call.func, ast.Attribute)
    return False


def rows(below: str) -> list[list[str]]:
    """The cells of the first table after the words *below*."""
    table = re.search(r"^\|---.*\n((?:\|.*\n)+)", PAGE[PAGE.index(below) :], re.MULTILINE)
    assert table is not None, below
    lines = table[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def listed(module: str, what: str, kind: str) -> Found:
    """The entry of a table."""
    [name] = spans(what)
    return Found(spans(module)[0], name, kind, reentrant=what.endswith(", reentrant"))


def test_each_reentrant_lock_is_one_that_a_thread_can_tell_that_it_holds() -> None:
    calls = [node for _, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if called(call) == HIDDEN]


def test_the_table_of_locks_has_each_lock_and_no_other() -> None:
    table = [listed(module, lock, "lock") for module, lock, _ in rows("## The locks")]

    assert sorted(table) == sorted(each for each in FOUND if each.kind == "lock")


def test_each_event_and_future_is_listed_and_no_other() -> None:
    table = [
        listed(module, what, what.rpartition(" ")[2])
        for module, what, _ in rows("set once and for all")
    ]

    assert sorted(table) == sorted(each for each in FOUND if each.kind != "lock")


def test_each_place_that_waits_is_in_the_table_of_waits_and_no_other() -> None:
    conditions = {each.name.rpartition(".")[2] for each in FOUND}

    places = {name for _, tree in modules() for name in waits_in(tree, conditions)}

    named = {span for _, where, *_ in rows("## The waits") for span in spans(where)}
    # Where there is no epoll.
    assert places == named | {"_SelectorReadiness.wait"}


def test_what_threads_hold_and_wait_on_is_found_wherever_it_is_made() -> None:
    source = """
class Box:
    def __init__(self):
        self._lock: Any = own_lock()
        self._plain = Lock()
        self._full = threading.Condition(self._lock)
        self._done: Future[None] = Future[None]()
        self._narrow = threading.Condition(threading.Lock())
        self._other = make(Lock)
        self._hidden = make(Event())
def look_up():
    if True:
        bed = threading.Lock()
_all = Lock()
"""

    assert set(found_in("box", ast.parse(source))) == {
        Found("box", "Box._lock", "lock", reentrant=True),
        Found("box", "Box._plain", "lock"),
        Found("box", "Box._full", "lock", reentrant=True),
        Found("box", "Box._done", "future"),
        Found("box", "Box._narrow", "lock"),
        Found("box", "line 10", "event"),
        Found("box", "_all", "lock"),
        Found("box", "bed", "lock"),
    }


def test_a_wait_is_found_and_what_waits_for_nothing_is_not() -> None:
    source = """
class Box:
    def sleep(self): self._full.wait(1)
    def doze(self): bed.acquire(timeout=1)
    def end(self): thread.join(deadline.wait_time())
    def look(self): self._selector.select(None)
    def get(self): return self._done.result(1)
    def show(self): return ", ".join(names) + self._lock.acquire(blocking=False)
    def ask(self): return result(self.other.wait())
"""

    assert list(waits_in(ast.parse(source), {"_full"})) == [
        *("Box.sleep", "Box.doze", "Box.end", "Box.look", "Box.get"),
    ]
