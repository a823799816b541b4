"""Who makes a call: the user as whom its client is connected to the broker.  No I/O here."""

from qam._broker.messages import Delivery


def user_of(delivery: Delivery) -> str | None:
    """Return the user who sent a request, as RabbitMQ has verified; None if it does not say."""
    user = delivery.properties.get("user_id")
    return user if isinstance(user, str) and user else None
