"""The messages that an owner writes to its connection and reads from it.  No I/O here."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

TRANSIENT, PERSISTENT = 1, 2

#: Bytes of the largest body that is sent or received by default: the limit of RabbitMQ 4.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# RabbitMQ closes the channel on an expiration of more than 32 bits of milliseconds.
MAX_EXPIRATION = 2**32 - 1
_EXPIRATION = re.compile("[0-9]{1,10}")
# A header by which RabbitMQ says how often a message was dead-lettered, and why.
_DEATHS, _ORIGINAL_EXPIRATION = "x-death", "original-expiration"


class Route(NamedTuple):
    """Where a message is published: an exchange and a routing key."""

    exchange: str
    routing_key: str


class QueueBinding(NamedTuple):
    """A queue, bound to an exchange with a routing key."""

    queue: str
    exchange: str
    routing_key: str

    @property
    def route(self) -> Route:
        """The route that leads into this queue."""
        return Route(self.exchange, self.routing_key)


# The largest batch that an owner writes before it reads again and looks at the clock.
_BATCH_MESSAGES, _BATCH_BYTES = 1000, 1024 * 1024


class HasBody(Protocol):
    """A message, or what becomes one."""

    @property
    def body(self) -> bytes: ...


def batch_length(messages: Iterable[HasBody]) -> int:
    """Return how many of *messages* make a batch: at least one, if there is one."""
    length = size = 0
    for message in islice(messages, _BATCH_MESSAGES):
        length, size = length + 1, size + len(message.body)
        if size >= _BATCH_BYTES:
            break
    return length


@dataclass(slots=True, eq=False)
class Publish:
    """One message to publish.

    *context* belongs to the publisher, which gets it back with the fate of the message.
    """

    route: Route
    body: bytes
    properties: dict[str, Any]
    mandatory: bool = True
    #: Whether the broker is asked for a confirm.
    confirm: bool = True
    context: Any = None


class TooLarge(NamedTuple):
    """The size of a dropped body and the limit that it exceeds, both in bytes."""

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
    #: The tag of the consumer that it came to.
    consumer_tag: str = ""
    #: Set if the body was larger than the consumer takes; *body* is empty then.
    too_large: TooLarge | None = None

    @property
    def correlation_id(self) -> str | None:
        """The id of the call that this message belongs to; None if its sender set none."""
        value = self.properties.get("correlation_id")
        return value if isinstance(value, str) else None

    @property
    def reply_to(self) -> str | None:
        """The routing key of the reply; None if its sender set none."""
        value = self.properties.get("reply_to")
        return value if isinstance(value, str) else None

    @property
    def persistent(self) -> bool:
        """False if its sender lets the broker keep it in memory only."""
        return self.properties.get("delivery_mode") != TRANSIENT

    @property
    def time_to_live(self) -> float | None:
        """Seconds after which it expires; None for never, or for an invalid expiration.

        0 if it was dead-lettered with an expiration, which the broker takes away then: somebody
        has moved it back, and nothing tells how much of its time is left.
        """
        if self._lost_its_expiration:
            return 0.0
        expiration = self.properties.get("expiration")
        if not isinstance(expiration, str) or not _EXPIRATION.fullmatch(expiration):
            return None
        milliseconds = int(expiration)
        return milliseconds / 1000 if milliseconds <= MAX_EXPIRATION else None

    @property
    def _lost_its_expiration(self) -> bool:
        deaths = self.headers.get(_DEATHS)
        return isinstance(deaths, list) and any(
            isinstance(death, dict) and _ORIGINAL_EXPIRATION in death for death in deaths
        )

    @property
    def headers(self) -> dict[str, Any]:
        """Its headers; empty if its sender set none."""
        headers = self.properties.get("headers")
        return headers if isinstance(headers, dict) else {}


class QueueState(NamedTuple):
    """How many ready messages and how many consumers a queue has."""

    messages: int
    consumers: int
