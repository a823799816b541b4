"""Wakes one thread that sleeps until there is something to do."""

import threading

from qam._common.own_locks import own_lock


class Bell:
    """A flag with one waiting thread: any thread may ring, which ends the current or next wait."""

    def __init__(self) -> None:
        # Guards _rung.  Reentrant, because a finalizer that rings may run while it is held.
        # Held by itself and not by the condition, whose methods Ctrl-C could interrupt after
        # they have acquired it, or before they release it.
        self._lock = own_lock()
        # Notified when the bell rings.
        self._condition = threading.Condition(self._lock)
        self._rung = False

    def ring(self) -> None:
        """Wake the waiting thread; if it does not wait now, its next wait returns at once."""
        if not self._rung:  # else it is already awake, and will look for work after this
            with self._lock:
                self._condition.notify()
                self._rung = True  # last: after Ctrl-C in between, the next ring does it again

    def wait(self, seconds: float) -> None:
        """Wait for a ring, *seconds* at most; several rings before the wait count as one."""
        with self._lock:
            if not self._rung:
                self._condition.wait(min(seconds, threading.TIMEOUT_MAX))
            self._rung = False

    def renew_lock(self) -> None:
        """Replace the lock, which a thread of the parent may have held; in a forked child."""
        self._lock = own_lock()
        self._condition = threading.Condition(self._lock)
