"""Ctrl-C at a chosen step, where no user could hit it."""

import gc
import inspect
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import qam

_LIBRARY = str(Path(qam.__file__).parent)


class Interrupter:
    """Raises KeyboardInterrupt in this thread at the step number *at*.

    There the interpreter may look whether there was a signal; it may be anyone.

    :param modules: the ends of the names of files, of which each line and each begin of a function
        is a step; without any, each begin of a function of the library is one.
    """

    def __init__(self, at: int, *modules: str) -> None:
        self.left = at
        #: The function that was interrupted; "" before.
        self.where = ""
        self._modules = modules

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not self.left or not self._is_watched(frame.f_code.co_filename):
            return None
        if event == "call" or (event == "line" and self._modules and not _ends_with(frame)):
            self.left -= 1
            if not self.left:
                self.where = frame.f_code.co_qualname
                raise KeyboardInterrupt(f"{self.where}, line {frame.f_lineno}")
        return self

    def _is_watched(self, file: str) -> bool:
        return file.endswith(self._modules) if self._modules else "/qam/" in file


def _ends_with(frame: FrameType) -> bool:
    """Whether the next step of *frame* ends a `with`: before that is done, no signal is noticed."""
    code, number = frame.f_code, frame.f_lineno
    if not linecache.getline(code.co_filename, number).lstrip().startswith("with "):
        return False
    begin = min(start for start, _, line in code.co_lines() if line == number)
    return frame.f_lasti > begin


def interrupted_at(number: int, act: Callable[[], Any], *modules: str) -> str:
    """Act, interrupted at the step *number*; return in which function that was, "" for none.

    :param modules: see :class:`Interrupter`.
    """
    interrupter, trace = Interrupter(number, *modules), sys.gettrace()
    gc.disable()  # finalizers of what earlier tests left are not to be struck
    sys.settrace(interrupter)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(trace)
        gc.enable()
    return interrupter.where


class EachStep:
    """Raises KeyboardInterrupt in this thread at the step number *at*, of all of the library.

    Each call, line and return of one of its functions is a step, but for the line that ends a
    `with`: before that is done, no signal is noticed.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        #: Where it was raised; "" before.
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not self.left or not frame.f_code.co_filename.startswith(_LIBRARY):
            return None
        if event != "exception" and not _is_no_step(frame, event):
            self.left -= 1
            if not self.left:
                self.where = f"{event} {frame.f_code.co_qualname}:{frame.f_lineno}"
                raise KeyboardInterrupt(self.where)
        return self


def _is_no_step(frame: FrameType, event: str) -> bool:
    if event == "line":
        return _ends_with(frame)
    # One that is dropped is closed, by a finalizer: what is raised there, Python only prints.
    return bool(frame.f_code.co_flags & inspect.CO_GENERATOR)


def struck_at(number: int, act: Callable[[], Any]) -> str:
    """Act, struck by a signal at the step *number*; return where that was, "" for nowhere."""
    step, trace = EachStep(number), sys.gettrace()
    gc.disable()  # finalizers of what earlier tests left are not to be struck
    sys.settrace(step)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(trace)
        gc.enable()
    return step.where
