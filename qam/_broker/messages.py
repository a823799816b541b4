"""What an owner hands to its connection, and what it gets from it.  No I/O here."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

TRANSIENT, PERSISTENT = 1, 2

#: The largest body that is sent if nothing else is said: what RabbitMQ 4 takes.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Route(NamedTuple):
    """Where a message is published: an exchange, and the key it is routed by."""

    exchange: str
    routing_key: str


class QueueBinding(NamedTuple):
    """A queue, bound to an exchange with a routing key."""

    queue: str
    exchange: str
    routing_key: str

    @property
    def route(self) -> Route:
        """The way into this queue."""
        return Route(self.exchange, self.routing_key)


# What an owner writes before it looks at what came, and at the time.
_BATCH_MESSAGES, _BATCH_BYTES = 1000, 1024 * 1024


def batch_length(bodies: Iterable[bytes]) -> int:
    """Return how many of *bodies* make a batch: at least one, if there is one."""
    length = size = 0
    for body in islice(bodies, _BATCH_MESSAGES):
        length, size = length + 1, size + len(body)
        if size >= _BATCH_BYTES:
            break
    return length


@dataclass(slots=True, eq=False)
class Publish:
    """One message on its way to the broker.

    *context* belongs to whoever publishes: it comes back with the confirm.
    """

    route: Route
    body: bytes
    properties: dict[str, Any]
    mandatory: bool = True
    #: Whether the broker is to say that it has taken it.
    confirm: bool = True
    context: Any = None


@dataclass(slots=True, eq=False)
class Delivery:
    """One message that the broker handed to a consumer."""

    body: bytes
    delivery_tag: int
    redelivered: bool = False
    properties: dict[str, Any] = field(default_factory=dict)
    #: The consumer that it came to.
    consumer_tag: str = ""

    @property
    def correlation_id(self) -> str | None:
        """The call that this message belongs to, where its sender says so."""
        return self.properties.get("correlation_id")

    @property
    def persistent(self) -> bool:
        """False where its sender would rather lose it than wait for a disk."""
        return self.properties.get("delivery_mode") != TRANSIENT

    @property
    def time_to_live(self) -> float | None:
        """Seconds that its sender gave it; None for no end."""
        expiration = self.properties.get("expiration")
        try:
            return None if expiration is None else int(expiration) / 1000
        except (ValueError, OverflowError):
            return None

    @property
    def headers(self) -> dict[str, Any]:
        """What its sender put into its headers."""
        return self.properties.get("headers") or {}


class QueueState(NamedTuple):
    """What the broker says of a queue: messages that wait in it, and consumers."""

    messages: int
    consumers: int
