"""The events, beside deliveries, that a connection to the broker reports to its owner."""

from dataclasses import dataclass
from typing import NamedTuple

from qam._broker.messages import Delivery, Publish


@dataclass(slots=True, frozen=True)
class Confirmed:
    """The broker has taken responsibility for these messages."""

    messages: list[Publish]


@dataclass(slots=True, frozen=True)
class Refused:
    """The broker could not take this message (a nack)."""

    message: Publish


@dataclass(slots=True, frozen=True)
class Returned:
    """The broker returned this message: no queue is bound for its route."""

    message: Publish


@dataclass(slots=True, frozen=True)
class Unroutable:
    """An unconfirmed message could not be routed to any queue."""

    correlation_id: str | None


@dataclass(slots=True, frozen=True)
class Cancelled:
    """The broker cancelled this consumer, because its queue was deleted."""

    consumer: str


@dataclass(slots=True, frozen=True)
class Blocked:
    """The broker has raised an alarm and accepts no messages, or has ended the alarm."""

    blocked: bool


Event = Delivery | Confirmed | Refused | Returned | Unroutable | Cancelled | Blocked


class Consumer(NamedTuple):
    """A started consumer: the queue that it consumes from, and its tag."""

    queue: str
    tag: str
