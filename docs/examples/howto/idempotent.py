"""Methods that may run again for the same call: by their nature, or by a key."""

import threading
from typing import Any

from qam import expose


class Orders:
    """Orders by their keys, which the callers make: `str(uuid.uuid4())`, one for each order.

    A real one keeps them in a database, in a table whose key is unique.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: dict[str, dict[str, Any]] = {}
        self._prices: dict[str, float] = {}

    @expose(idempotent=True)
    def set_price(self, item: str, price: float) -> None:
        """Set a price. To do that twice is the same as once."""
        self._prices[item] = price

    @expose(idempotent=True)
    def order(self, key: str, item: str, number: int) -> int:
        """Order something; return the number of the order. The same key is the same order."""
        with self._lock:
            new = {"item": item, "number": number, "order": len(self._orders) + 1}
            order = self._orders.setdefault(key, new)
            return int(order["order"])

    @expose
    def count(self) -> int:
        """Return how many orders there are."""
        return len(self._orders)


orders = Orders()
