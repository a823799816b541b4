"""Calls whose results come to a function."""

import threading

from warehouse import make_server

from qam import QAMProxy

finished = threading.Event()


def success(result: int) -> None:
    """Get the result, in another thread."""
    print("result:", result)
    finished.set()


def error(exception: Exception) -> None:
    """Get the exception, if the call fails."""
    print("failed:", exception)
    finished.set()


with make_server("memory://warehouse") as server:
    server.start()
    with QAMProxy("warehouse", "memory://warehouse", timeout=10) as proxy:
        proxy.callback(success, error).add(2, 4)
        finished.wait()
