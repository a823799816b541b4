"""Shows the requests of `stock` that were not started, as a policy of the broker collects them."""

import os
from typing import Any

import kombu

exchange = kombu.Exchange("dead", type="fanout", durable=True)
dead = kombu.Queue("dead_requests", exchange, durable=True)


def show(message: Any) -> None:
    """Print which call it was, and why it came here; then forget it."""
    reason = message.headers.get("x-first-death-reason")
    print(message.properties.get("correlation_id"), reason, flush=True)
    message.ack()


with kombu.Connection(os.environ["QAM_BROKER_URL"]) as connection:
    channel = connection.channel()
    dead(channel).declare()
    with kombu.Consumer(channel, [dead], on_message=show, accept=[]):
        print("waiting", flush=True)
        while True:
            connection.drain_events()
