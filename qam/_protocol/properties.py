"""The AMQP properties and headers of requests and replies."""

from typing import Any

from qam._broker.messages import MAX_EXPIRATION, PERSISTENT, TRANSIENT
from qam._serialization.serializers import Serializer

RESENT, RUNS, GIVEN_BACK = "x-qam-resent", "x-qam-runs", "x-qam-given-back"
ONE_WAY, USER = "x-qam-oneway", "x-qam-user"


def properties(serializer: Serializer, persistent: bool = True, **more: Any) -> dict[str, Any]:
    """Return the properties of a message, and those of *more* that are not None."""
    basic = {
        "content_type": serializer.content_type,
        "content_encoding": serializer.content_encoding,
        "delivery_mode": PERSISTENT if persistent else TRANSIENT,
    }
    return basic | {name: value for name, value in more.items() if value is not None}


def expiration(seconds: float | None) -> str | None:
    """Return *seconds* as the property expiration: a text, in whole milliseconds, at least 1.

    Returns None, which means no end, for None and for more than RabbitMQ takes.
    """
    if seconds is None:
        return None
    milliseconds = max(1, round(seconds * 1000))
    return str(milliseconds) if milliseconds <= MAX_EXPIRATION else None
