"""The queue from which a proxy consumes its replies."""

from collections.abc import Mapping
from typing import Any

from qam._broker.connection import Connection, NotPermitted, QueueIsDown
from qam._broker.events import Consumer
from qam._broker.silence import Silence
from qam._protocol.entities import reply_binding
from qam.exceptions import QAMConnectionException

#: Seconds after which RabbitMQ deletes the reply queue of a client that crashed.
_EXPIRES = 30 * 60


class ReplyQueue:
    """Declares the reply queue of a proxy on each of its connections, and consumes from it.

    :param server_id: the server whose replies are received.
    :param client_id: names the queue and its routing key.
    :param arguments: the arguments of the queue, beside its expiry.
    :param max_message_bytes: the size of the largest reply that is received, in bytes.
    :param persistent: whether replies are acknowledged.
    """

    def __init__(
        self,
        server_id: str,
        client_id: str,
        arguments: Mapping[str, Any],
        max_message_bytes: int,
        persistent: bool,
    ) -> None:
        self._server_id = server_id
        self._client_id = client_id
        self._arguments = {"x-expires": _EXPIRES * 1000, **arguments}
        self._max_message_bytes = max_message_bytes
        self._persistent = persistent
        self._binding = reply_binding(server_id, client_id)
        self._old_queues: list[str] = []
        self._openings = 0
        self._was_deleted = False
        self._silence = Silence()

    def open(self, connection: Connection) -> tuple[Consumer, bool]:
        """Declare the queue and consume; return the consumer, and whether replies were lost."""
        connection.declare_exchange(self._binding.exchange)
        if self._openings and self._silence.is_down:
            self._silence.forget()
            self._was_deleted = True  # what is in the old queue can't be had
            self._take_another()
        with self._silence.counted():
            return self._open(connection)

    def _open(self, connection: Connection) -> tuple[Consumer, bool]:
        if self._openings and connection.inspect_queue(self._binding.queue) is None:
            self._was_deleted = True
        self._declare(connection)
        # Higher each time: if the network went silent, the broker still serves the consumer of
        # the lost connection, which would get every other reply.
        consumer = connection.consume(
            self._binding.queue,
            priority=self._openings,
            no_ack=not self._persistent,
            max_bytes=self._max_message_bytes,
        )
        self._openings += 1
        replies_lost, self._was_deleted = self._was_deleted, False
        return consumer, replies_lost

    def declare_again(self, connection: Connection) -> None:
        """Declare exchange and binding again: somebody may have deleted them.

        :raises QAMConnectionException: the queue can't be used any more.
        """
        connection.declare_exchange(self._binding.exchange)
        connection.declare_queue(self._binding, self._arguments)

    def _declare(self, connection: Connection) -> None:
        try:
            connection.declare_queue(self._binding, self._arguments)
        except NotPermitted as error:
            raise QAMConnectionException(
                f"{error}; its name begins with the client_id: "
                "pass client_id= where permissions are by name",
                executed="no",
            ) from error
        except QueueIsDown:
            self._take_another()
            connection.declare_queue(self._binding, self._arguments)

    def _take_another(self) -> None:
        """Leave the queue to its expiry, and use another one from now on.

        The routing key is the same, so all replies from now on go to the new queue.
        """
        self._old_queues.append(self._binding.queue)
        another = f"{self._client_id}.{len(self._old_queues)}"
        queue = reply_binding(self._server_id, another).queue
        self._binding = self._binding._replace(queue=queue)

    def deleted(self) -> QAMConnectionException:
        """Note that the queue was deleted; return the error that ends the connection."""
        self._was_deleted = True
        return QAMConnectionException(f"the reply queue {self._binding.queue} was deleted")

    def delete(self, connection: Connection) -> None:
        """Delete the queue, and the old ones that were left to their expiry."""
        for queue in (self._binding.queue, *self._old_queues):
            connection.delete_queue(queue)
