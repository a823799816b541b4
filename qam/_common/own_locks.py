"""The locks of this library, all known here, so that a thread can tell whether it holds one.

A finalizer or a signal handler may run in the middle of a section.  If it waited there for the
result of a call, it could wait for a thread that waits for the lock of that section.
"""

import os
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
#: What calls code of the application and holds no lock then, nor does what has called it.
_RUN_USER_CODE = {"ExecuteMethodThread._call", "CallbackObserverThread._execute_callback_of"}

_locks: set["weakref.ref[Any]"] = set()


def own_lock() -> Any:
    """Return a new reentrant lock, which :func:`holds_own_lock` knows."""
    lock = threading.RLock()
    _locks.add(weakref.ref(lock, _locks.discard))
    return lock


def holds_own_lock() -> bool:
    """Return True if the calling code runs inside a section of this library.

    To ask all locks takes time, so that is done only where the application's code was called by
    this library's, or interrupts it.
    """
    return _is_inside() and any(_is_held(known()) for known in tuple(_locks))


def _is_inside() -> bool:
    """Return True if code of this library called the application's code that has called it."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_qualname not in _RUN_USER_CODE


def _is_held(lock: Any) -> bool:
    return lock is not None and lock._is_owned()
