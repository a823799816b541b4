"""Makes a forked child give up the connections and locks that it inherits from its parent.

The threads that own the connections do not exist in the child, but their sockets and their
locks do.  The parent still uses the sockets, and a lock may have been held by a thread that
the child does not have.  kombu handles only the forks of multiprocessing; this module handles
every fork.
"""

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """An object that a forked child inherits and cannot use as it is."""

    def _in_forked_child(self) -> None:
        """Make the object harmless in the child: take no lock, use nothing of the parent's."""


_inherited: "weakref.WeakSet[Inherited]" = weakref.WeakSet()


def disown_in_child(thing: Inherited) -> None:
    """Register *thing*: a forked child calls its ``_in_forked_child`` before it runs other code."""
    _inherited.add(thing)


def _tell_all() -> None:
    for thing in list(_inherited):
        thing._in_forked_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_all)
