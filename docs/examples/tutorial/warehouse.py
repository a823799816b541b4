"""The server of the tutorial: it knows what a warehouse has."""

import logging
import os
import threading
import time

from items import Item

from qam import QAMServer


def add(a: int, b: int = 0) -> int:
    """Return the sum of two numbers."""
    return a + b


def nap(seconds: float) -> str:
    """Sleep for some seconds."""
    time.sleep(seconds)
    return "rested"


class Stock:
    """How many things of each kind the warehouse has."""

    def __init__(self) -> None:
        self._numbers = {"bolt": 40}
        self._lock = threading.Lock()

    def count(self, name: str) -> int:
        """Return how many there are."""
        return self._numbers[name]

    def store(self, item: Item) -> Item:
        """Add some; return how many there are now."""
        with self._lock:
            total = self._numbers.get(item.name, 0) + item.number
            self._numbers[item.name] = total
        return Item(item.name, total)


def make_server(hostname: str) -> QAMServer:
    """Return a server of the warehouse, which does not serve yet."""
    server = QAMServer(hostname, server_id="warehouse", expected_exceptions=[KeyError])
    server.register_function(add)
    server.register_function(nap)
    server.register_class(Stock(), "stock")
    return server


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_server(os.environ["QAM_BROKER_URL"]).serve()
