"""The exchanges and queues of a server and its clients: their names and bindings."""

from functools import lru_cache

from qam._broker.messages import QueueBinding

#: The routing key of replies for which nobody waits: no queue is bound with it.
NO_REPLY = "qam_no_reply"


def request_binding(server_id: str) -> QueueBinding:
    """Return the request queue of *server_id* and its binding."""
    return QueueBinding(
        f"{server_id}_server_queue",
        f"{server_id}_server_exchange",
        f"{server_id}_server_routing_key",
    )


def reply_binding(server_id: str, client_id: str) -> QueueBinding:
    """Return the queue in which *client_id* receives the replies of *server_id*."""
    return QueueBinding(
        f"{client_id}_client_queue", reply_exchange(server_id), reply_routing_key(client_id)
    )


def siblings_binding(server_id: str, instance: str) -> QueueBinding:
    """Return the queue in which one server receives the words of its siblings.

    All these queues are bound with the same routing key, so that a word reaches every server
    of the *server_id*.
    """
    return QueueBinding(
        f"{server_id}_server_siblings_queue.{instance}",
        f"{server_id}_server_siblings_exchange",
        f"{server_id}_server_siblings_routing_key",
    )


def presence_binding(server_id: str) -> QueueBinding:
    """Return the queue whose consumers are the servers of *server_id* that are there.

    Nothing is published with its routing key.
    """
    return QueueBinding(
        f"{server_id}_server_presence_queue",
        f"{server_id}_server_siblings_exchange",
        f"{server_id}_server_presence_routing_key",
    )


def reply_exchange(server_id: str) -> str:
    """Return the exchange to which *server_id* publishes its replies."""
    return f"{server_id}_client_exchange"


@lru_cache(maxsize=1024)  # so that all waiting calls of a client share one text
def reply_routing_key(client_id: str) -> str:
    """Return the routing key by which replies reach *client_id*."""
    return f"{client_id}_client_routing_key"
