"""Has a forked child leave alone what its parent goes on using.

Of the threads that own the connections none exists in the child, but their sockets and
their locks do: the sockets are the parent's too, and a lock may have been held by a
thread that is not there any more.  kombu minds only the forks of multiprocessing, so
this is done here, for each of them.
"""

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """Something that a forked child gets and cannot use as it is."""

    def _after_fork(self) -> None:
        """Take no lock, and touch nothing that is shared with the parent; in the child."""


_inherited: "weakref.WeakSet[Inherited]" = weakref.WeakSet()


def disown_in_child(thing: Inherited) -> None:
    """Have *thing* told when this process is the child of a fork."""
    _inherited.add(thing)


def _after_fork() -> None:
    for thing in list(_inherited):
        thing._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
