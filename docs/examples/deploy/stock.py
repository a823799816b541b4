"""What the unit and the container of this folder serve: `qam serve stock`."""

import threading

_lock = threading.Lock()  # methods run in several threads at once
_stock = {"apple": 100, "pear": 40}


def count(item: str) -> int:
    """Return how many there are of an item."""
    return _stock[item]


def take(item: str, number: int) -> int:
    """Take some of an item; return how many are left."""
    with _lock:
        if _stock[item] < number:
            raise ValueError(f"there are only {_stock[item]} of {item}")
        _stock[item] -= number
        return _stock[item]
