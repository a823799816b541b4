"""The locks of this library, all known here, so that a thread can tell whether it holds one.

A finalizer or a signal handler may run in the middle of a section.  If it waited there for the
result of a call, it could wait for a thread that waits for the lock of that section.
"""

import threading
import weakref
from typing import Any

_locks: set["weakref.ref[Any]"] = set()


def own_lock() -> Any:
    """Return a new reentrant lock, which :func:`holds_own_lock` knows."""
    lock = threading.RLock()
    _locks.add(weakref.ref(lock, _locks.discard))
    return lock


def holds_own_lock() -> bool:
    """Return True if the calling thread holds a lock of this library."""
    for known in tuple(_locks):  # a copy, made in one step: other threads make locks meanwhile
        lock = known()
        if lock is not None and lock._is_owned():
            return True
    return False
