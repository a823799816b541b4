"""Sees what the interpreter does that no message may lead to."""

import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.hostile_pickles import MARK


class Watch:
    """Notes what the interpreter reports that no message may lead to.

    Python has no way to take such a hook away again; so there is one, which mostly sleeps, in a
    process that has begun to watch. Who does that is marked as `watched`.
    """

    # Looks at this process alone; and a traceback parses the lines that it shows.
    _HARMLESS = frozenset({"builtins.id", "compile", "object.__getattr__", "sys.setprofile"})
    _RUNS_CODE = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pty.spawn")

    def __init__(self) -> None:
        assert sys.gettrace() is None, "threads may not begin to trace beside it: mark as `watched`"
        self.awake = False
        self.strict = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.strict and not self._is_harmless(event, arguments):
            self.seen.append(f"{event} {arguments}"[:500])
        elif self.awake and (event in self._RUNS_CODE or self._is_marked(event, arguments)):
            self.seen.append(f"{event} {arguments} in {threading.current_thread().name}")

    def _is_harmless(self, event: str, arguments: tuple[Any, ...]) -> bool:
        # Python 3.13 looks for the program of a line in a traceback that it can't parse alone.
        return event in self._HARMLESS or (event, *arguments[:1]) == ("open", "<unknown>")

    def _is_marked(self, event: str, arguments: tuple[Any, ...]) -> bool:
        marked = event in ("open", "compile", "exec", "ctypes.dlopen") and MARK in repr(arguments)
        return marked or (event == "import" and arguments[0] == "this")


_the_watch = functools.cache(Watch)


@contextmanager
def nothing_but_values() -> Iterator[None]:
    """Fails if a message ran or imported something meanwhile."""
    watch = _the_watch()
    watch.seen.clear()
    watch.awake = True
    try:
        yield
    finally:
        watch.awake = False
    assert watch.seen == [], watch.seen
    assert "this" not in sys.modules


@contextmanager
def nothing_but_computing() -> Iterator[None]:
    """Fails if anything was imported, opened, changed, connected or started meanwhile."""
    watch, modules = _the_watch(), dict(sys.modules)
    watch.seen.clear()
    watch.strict = True
    try:
        yield
    finally:
        watch.strict = False
    assert watch.seen == [], f"an exception acted: {watch.seen[:5]}"
    assert sys.modules == modules, f"imported: {sys.modules.keys() ^ modules.keys()}"
