"""Waiting for what comes true by itself."""

import time
from collections.abc import Callable
from typing import Any

from qam import QAMProxy

_LONG = 60.0  # seconds; nothing takes that long unless it is broken
# Seconds, as the timeout of calls that are to outlive a restart of their broker: on a busy machine
# that alone may take more than a minute, and up to the 100 s that a RabbitMQNode has to start.
LONGER_THAN_A_RESTART = 200.0


def until(condition: Callable[[], Any], what: str = "it never came true") -> None:
    """Return when *condition* is true."""
    deadline = time.monotonic() + _LONG
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def finish(*proxies: QAMProxy) -> None:
    """Return when no callback of *proxies* waits any more."""
    for proxy in proxies:
        until(lambda proxy=proxy: not proxy.get_num_waiting_callbacks(), "callbacks still wait")
