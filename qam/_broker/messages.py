"""What an owner hands to its connection, and what it gets from it.  No I/O here."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

TRANSIENT, PERSISTENT = 1, 2

#: The largest body that is sent or received if nothing else is said: what RabbitMQ 4 takes.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# RabbitMQ closes the channel on an expiration of more than 32 bits of milliseconds.
MAX_EXPIRATION = 2**32 - 1
_EXPIRATION = re.compile("[0-9]{1,10}")


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


class TooLarge(NamedTuple):
    """Bytes of a body that was not taken in, and how many would have been."""

    size: int
    limit: int

    def __str__(self) -> str:
        return f"has {self.size} bytes, more than max_message_bytes={self.limit}"


@dataclass(slots=True, eq=False)
class Delivery:
    """One message that the broker handed to a consumer."""

    body: bytes
    delivery_tag: int
    redelivered: bool = False
    properties: dict[str, Any] = field(default_factory=dict)
    #: The consumer that it came to.
    consumer_tag: str = ""
    #: Set where its consumer does not take so much: *body* is empty then.
    too_large: TooLarge | None = None

    @property
    def correlation_id(self) -> str | None:
        """The call that this message belongs to, where its sender says so."""
        return self._text("correlation_id")

    @property
    def reply_to(self) -> str | None:
        """The routing key by which its sender is answered, where it says so."""
        return self._text("reply_to")

    def _text(self, name: str) -> str | None:
        value = self.properties.get(name)
        return value if isinstance(value, str) else None

    @property
    def persistent(self) -> bool:
        """False where its sender would rather lose it than wait for a disk."""
        return self.properties.get("delivery_mode") != TRANSIENT

    @property
    def time_to_live(self) -> float | None:
        """Seconds that its sender gave it; None for no end.

        Also for what no broker takes as an expiration.
        """
        expiration = self._text("expiration")
        if expiration is None or not _EXPIRATION.fullmatch(expiration):
            return None
        milliseconds = int(expiration)
        return milliseconds / 1000 if milliseconds <= MAX_EXPIRATION else None

    @property
    def headers(self) -> dict[str, Any]:
        """What its sender put into its headers."""
        headers = self.properties.get("headers")
        return headers if isinstance(headers, dict) else {}


class QueueState(NamedTuple):
    """What the broker says of a queue: messages that wait in it, and consumers."""

    messages: int
    consumers: int
