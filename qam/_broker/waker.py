"""Wakes the one thread that waits on a selector."""

import os
import selectors
import socket
import threading
from contextlib import suppress
from typing import Any

from qam._common.fork import disown_in_child

_ONE = (1).to_bytes(8, "little")


class Waker:
    """Something that a thread can select on, and that any other thread can make ready.

    The owner clears it *before* it looks at what it was woken for: whatever is
    handed over before :meth:`wake` is then seen, and none is lost.
    """

    def __init__(self) -> None:
        self._closed = True  # until there is something to close
        # Written by wake() and clear() alone.  It saves the system call where a
        # wake is already on its way; a stale False costs one call, no wake.
        self._awake = False
        # Guards the descriptor: a late wake must not write to one that was closed,
        # and perhaps opened again by somebody else.  The write never blocks.
        # Reentrant, because a finalizer that wakes may run inside.
        self._lock: Any = threading.RLock()
        if hasattr(os, "eventfd"):
            self._reader = self._writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._sockets: tuple[socket.socket, ...] = ()
        else:
            self._sockets = socket.socketpair()
            for end in self._sockets:
                end.setblocking(False)
            self._reader, self._writer = (end.fileno() for end in self._sockets)
        self._closed = False
        # For a wait for nothing else; where it can, it takes no descriptor.
        self._selector = getattr(selectors, "PollSelector", selectors.DefaultSelector)()
        self._selector.register(self._reader, selectors.EVENT_READ)
        disown_in_child(self)

    def fileno(self) -> int:
        """The descriptor that is readable after :meth:`wake`."""
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
        """Whether the thread that asks is in the middle of :meth:`wake`: it is a finalizer."""
        return bool(self._lock._is_owned())

    def _write(self) -> None:
        self._awake = True
        try:
            with suppress(BlockingIOError):  # full, so it is awake
                os.write(self._writer, _ONE)
        except BaseException:  # Ctrl-C: perhaps nothing was written
            self._awake = False
            raise

    def wait(self, timeout: float | None) -> None:
        """Return once woken, or after *timeout* seconds (None: no end); by the owner."""
        self._selector.select(timeout)

    def clear(self) -> None:
        """Forget past wakes; by the owner, before it looks for work."""
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        # After the read: a wake in between then writes nothing, but what it is for is
        # handed over already and will be seen.  The other way round it would be read
        # away, and _awake stay True without anything to wake by.
        self._awake = False

    def close(self) -> None:
        """Give the descriptors back; by the owner, when it waits no more."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._selector.close()
            for end in self._sockets:
                end.close()
            if not self._sockets:
                os.close(self._reader)

    def _after_fork(self) -> None:
        """Give the descriptors back, with a lock that nobody holds; in a forked child."""
        self._lock = threading.RLock()
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):
            self.close()
