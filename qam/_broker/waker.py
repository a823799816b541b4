"""Wakes a thread that waits on a selector."""

import os
import selectors
import socket
from contextlib import suppress

from qam._common.fork import disown_in_child
from qam._common.own_locks import own_lock

_ONE = (1).to_bytes(8, "little")


class Waker:
    """A descriptor for the selector of one thread, the owner; any other thread can make it ready.

    The owner clears it *before* it looks for work, so that it sees all work that was handed over
    before a :meth:`wake`.
    """

    def __init__(self) -> None:
        self._closed = True  # until there is something to close
        # Written by wake() and clear() alone.  It saves the system call if the descriptor is
        # ready already.  A stale False costs one call, and loses no wake.
        self._awake = False
        # Guards the descriptor: a late wake must not write to a closed descriptor, whose number
        # another file may have by now.  The write never blocks.
        # Reentrant, because a finalizer that wakes may run inside.
        self._lock = own_lock()
        if hasattr(os, "eventfd"):
            self._reader = self._writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._sockets: tuple[socket.socket, ...] = ()
        else:
            self._sockets = socket.socketpair()
            for end in self._sockets:
                end.setblocking(False)
            self._reader, self._writer = (end.fileno() for end in self._sockets)
        self._closed = False
        # For wait(), which waits for nothing else.  poll() needs no descriptor of its own.
        self._selector = getattr(selectors, "PollSelector", selectors.DefaultSelector)()
        self._selector.register(self._reader, selectors.EVENT_READ)
        disown_in_child(self)

    def fileno(self) -> int:
        """Return the descriptor that is readable after :meth:`wake`."""
        return self._reader

    def wake(self) -> None:
        """Make the owner's wait return; from any thread, never blocks."""
        if self._awake:
            return
        with self._lock:
            if not self._closed:
                self._write()

    @property
    def is_in_use_here(self) -> bool:
        """Whether the calling thread is inside :meth:`wake` or :meth:`close`, as a finalizer is."""
        return bool(self._lock._is_owned())

    def _write(self) -> None:
        try:
            self._awake = True
            with suppress(BlockingIOError):  # full, so the descriptor is ready
                os.write(self._writer, _ONE)
        except BaseException:  # Ctrl-C: perhaps nothing was written
            self._awake = False
            raise

    def wait(self, timeout: float | None) -> None:
        """Block until woken, *timeout* seconds at most (None: no end); by the owner."""
        self._selector.select(timeout)

    def clear(self) -> None:
        """Forget past wakes; by the owner, before it looks for work."""
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        # After the read.  A wake between the two writes nothing, but its work is already handed
        # over, and the owner will see it.  In the other order, the read could consume a wake
        # that came between the two: _awake would stay True with nothing to read.
        self._awake = False

    def close(self) -> None:
        """Close the descriptors; by the owner, when it waits no more."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._selector.close()
            for end in self._sockets:
                end.close()
            if not self._sockets:
                os.close(self._reader)

    def _in_forked_child(self) -> None:
        """Replace the lock, which a thread of the parent may hold, and close; in a forked child."""
        self._lock = own_lock()
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):
            self.close()
