"""Wakes one thread that sleeps until there is something to do."""

import threading


class Bell:
    """Rung by any thread; ends the wait of the one that listens, or the next one it begins."""

    def __init__(self) -> None:
        # Reentrant, because a finalizer that rings may run inside.
        self._condition = threading.Condition(threading.RLock())
        self._rung = False

    def ring(self) -> None:
        """Wake the thread that waits, or keep it from waiting."""
        if not self._rung:  # else it is awake already, and looks after this
            with self._condition:
                self._rung = True
                self._condition.notify()

    def wait(self, seconds: float) -> None:
        """Wait until it rings, *seconds* at most; what rang before counts once."""
        with self._condition:
            if not self._rung:
                self._condition.wait(min(seconds, threading.TIMEOUT_MAX))
            self._rung = False

    def renew_lock(self) -> None:
        """Have a lock that nobody holds; in a forked child."""
        self._condition = threading.Condition(threading.RLock())
