"""The queue of a server's requests, as the thread uses it that consumes from it."""

from qam._broker.connection import Connection
from qam._broker.events import Consumer
from qam._broker.messages import QueueState
from qam._protocol.entities import request_binding
from qam._server.messages import declare_server
from qam._server.prefetch import Prefetch
from qam._server.settings import ServerSettings
from qam.exceptions import QAMConnectionException


class RequestQueue:
    """The queue, and the consumer on it.

    :param settings: of the server.
    :param prefetch: how many requests the consumer holds.
    """

    def __init__(self, settings: ServerSettings, prefetch: Prefetch) -> None:
        self._settings = settings
        self._prefetch = prefetch
        self._name = request_binding(settings.server_id).queue
        self._consumer: Consumer | None = None
        #: How many requests the consumer holds, or the last one held.
        self.consumer_prefetch = 0

    @property
    def is_consumed(self) -> bool:
        """True while there is a consumer."""
        return self._consumer is not None

    @property
    def has_right_prefetch(self) -> bool:
        """True if there is a consumer, and it holds as many requests as it should."""
        return self.is_consumed and self._prefetch.wanted == self.consumer_prefetch

    def declare(self, connection: Connection) -> None:
        """Declare all that a server needs, on a new connection."""
        self._consumer = None
        declare_server(connection, self._settings.server_id, self._settings.queue_arguments)

    def lost(self) -> None:
        """The consumer went with its connection."""
        self._consumer = None

    def consume(self, connection: Connection) -> None:
        """Consume with the prefetch that is wanted now, in place of what went before."""
        before, self.consumer_prefetch = self._consumer, self._prefetch.wanted
        self._consumer = connection.consume(
            self._name, prefetch=self.consumer_prefetch, max_bytes=self._settings.max_message_bytes
        )
        if before is not None:
            connection.cancel(before)

    def cancel(self, connection: Connection) -> None:
        """Take no more requests."""
        if self._consumer is not None:
            connection.cancel(self._consumer)
            self._consumer = None

    def inspect(self, connection: Connection) -> QueueState:
        """Ask the broker what waits in the queue; its answer tells that it has all acks, too.

        :raises QAMConnectionException: the queue is not there.
        """
        state = connection.inspect_queue(self._name)
        if state is None:
            raise self.deleted()
        return state

    def deleted(self) -> QAMConnectionException:
        """Return the error to raise when the queue is not there any more."""
        server_id = self._settings.server_id
        return QAMConnectionException(f"the request queue of {server_id!r} was deleted")

    def ran(self, calls_seconds: list[float]) -> None:
        """Methods took so many seconds: the prefetch follows them."""
        self._prefetch.ran(calls_seconds)
