"""The functions that the page on the command line serves: `qam serve calc`."""

import time


def add(a: int, b: int = 0) -> int:
    """Return the sum of two numbers."""
    return a + b


def divide(a: float, b: float) -> float:
    """Return the quotient of two numbers."""
    return a / b


def nap(seconds: float) -> str:
    """Sleep for some seconds."""
    time.sleep(seconds)
    return "rested"


class Counter:
    """Counts; the page serves an instance of it, too: `qam serve calc:counter`."""

    def __init__(self) -> None:
        self._total = 0

    def count(self, number: int = 1) -> int:
        """Add a number to the total, and return it."""
        self._total += number
        return self._total


counter = Counter()
