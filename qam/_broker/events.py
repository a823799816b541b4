"""What a connection to the broker reports to its owner, beside deliveries."""

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
    """No queue is bound where this message was to go."""

    message: Publish


@dataclass(slots=True, frozen=True)
class Unroutable:
    """An unconfirmed message could not be routed to any queue."""

    correlation_id: str | None


@dataclass(slots=True, frozen=True)
class Cancelled:
    """The broker ended a consumer of ours: its queue was deleted."""

    consumer: str


@dataclass(slots=True, frozen=True)
class Blocked:
    """The broker has raised an alarm and takes no messages, or takes them again."""

    blocked: bool


Event = Delivery | Confirmed | Refused | Returned | Unroutable | Cancelled | Blocked


class Consumer(NamedTuple):
    """A consumer that was started: which queue it reads, under which tag."""

    queue: str
    tag: str
