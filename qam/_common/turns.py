"""Lets other threads run, for the loops of users that wait for a callback."""

import os
import time
from collections.abc import Callable
from typing import Any

# time.sleep waits, even for 0 seconds.
_yield_cpu: Callable[[], Any] = getattr(os, "sched_yield", lambda: time.sleep(0))

# They replace time.sleep, and let other greenlets run in it alone.
_GREENLETS = ("gevent", "eventlet")


def let_others_run() -> None:
    """Let other threads run, without a wait; or other greenlets, where these stand for threads."""
    sleep = time.sleep
    if str(getattr(sleep, "__module__", "")).startswith(_GREENLETS):
        sleep(0)
    else:
        _yield_cpu()
