"""Who makes a call: the user as whom its client is connected to the broker.  No I/O here."""

from typing import Any

from qam._broker.messages import Delivery
from qam._common.checks import is_short_text
from qam._protocol.properties import USER


def user_of(delivery: Delivery, own: str | None) -> str | None:
    """Return the user who made a call, as RabbitMQ has verified; None if nobody has said it.

    A request that a server has published anew names that server as its sender, and the user in
    a header.  The header is believed of nobody else.

    :param own: the user of this server, and of those that share its work; None if that is not
        certain.
    """
    sender = delivery.properties.get("user_id")
    is_from_server = own is not None and sender == own
    user = delivery.headers.get(USER, sender) if is_from_server else sender
    return user if is_short_text(user) and user else None


def carry_user(user: str | None, own: str | None, properties: dict[str, Any]) -> None:
    """Let the *properties* of a request that a server publishes anew name its *user*.

    :param own: the user of this server, as whom alone it may send; None if that is not certain.
    """
    if user is not None and own is not None:
        properties["user_id"] = own
        properties["headers"] = {**properties["headers"], USER: user}
