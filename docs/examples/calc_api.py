"""The methods of a server, as `qam methods --stub` wrote them."""

from typing import Protocol


class Calc(Protocol):
    """Cast a QAMProxy to it, and the result of with_options."""

    def add(self, a: int, b: int = ...) -> int:
        """Return the sum of two numbers."""

    def divide(self, a: float, b: float) -> float:
        """Return the quotient of two numbers."""

    def nap(self, seconds: float) -> str:
        """Sleep for some seconds."""


class AsyncCalc(Protocol):
    """Cast an AsyncProxy to it."""

    async def add(self, a: int, b: int = ...) -> int:
        """Return the sum of two numbers."""

    async def divide(self, a: float, b: float) -> float:
        """Return the quotient of two numbers."""

    async def nap(self, seconds: float) -> str:
        """Sleep for some seconds."""
