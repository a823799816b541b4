"""The request queue of a server, as its consumer thread uses it."""

from math import inf

from qam._broker.connection import Connection
from qam._broker.events import Consumer
from qam._broker.messages import QueueState
from qam._protocol.entities import request_binding
from qam._server.messages import declare_server
from qam._server.prefetch import Prefetch
from qam._server.settings import ServerSettings
from qam.exceptions import QAMConnectionException

#: Seconds for which room for deliveries that need no worker stays after it was needed.
_ROOM_STAYS = 10.0


class RequestQueue:
    """The request queue, and the consumer on it.

    :param settings: the settings of the server.
    :param prefetch: how many unacknowledged requests the broker delivers.
    """

    def __init__(self, settings: ServerSettings, prefetch: Prefetch) -> None:
        self._settings = settings
        self._prefetch = prefetch
        self._name = request_binding(settings.server_id).queue
        self._consumer: Consumer | None = None
        #: The prefetch of the consumer, or of the last one.
        self.consumer_prefetch = 0
        #: True while requests are left to other servers, since no worker is free.
        self.stands_back = False
        self._room_needed_at = -inf

    @property
    def is_consumed(self) -> bool:
        """True while this server has a consumer on the queue."""
        return self._consumer is not None

    @property
    def is_attached(self) -> bool:
        """True while requests come, or would come if a worker were free."""
        return self.is_consumed or self.stands_back

    @property
    def is_as_wanted(self) -> bool:
        """True if there is a consumer with the prefetch that is wanted now, or is to be none."""
        if self.stands_back:
            return not self.is_consumed
        return self.is_consumed and self._prefetch.wanted == self.consumer_prefetch

    def declare(self, connection: Connection) -> None:
        """Declare the exchanges and the queue, or do so again: somebody may have deleted them."""
        declare_server(connection, self._settings.server_id, self._settings.queue_arguments)

    def lost(self) -> None:
        """The connection was lost, and the consumer with it."""
        self._consumer = None

    def consume(self, connection: Connection) -> None:
        """Start a consumer with the prefetch that is wanted now, then cancel the one before."""
        before, self.consumer_prefetch = self._consumer, self._prefetch.wanted
        self._consumer = connection.consume(
            self._name, prefetch=self.consumer_prefetch, max_bytes=self._settings.max_message_bytes
        )
        if before is not None:
            connection.cancel(before)

    def cancel(self, connection: Connection) -> None:
        """Cancel the consumer, if there is one: no more requests come."""
        if self._consumer is not None:
            connection.cancel(self._consumer)
            self._consumer = None

    def inspect(self, connection: Connection) -> QueueState:
        """Ask the broker for the state of the queue; its answer also shows that it has all acks.

        :raises QAMConnectionException: the queue does not exist.
        """
        state = connection.inspect_queue(self._name)
        if state is None:
            raise self.deleted()
        return state

    def deleted(self) -> QAMConnectionException:
        """Return the error to raise when the queue was deleted."""
        server_id = self._settings.server_id
        return QAMConnectionException(
            f"the request queue of {server_id!r} was deleted, perhaps with requests in it, whose "
            "calls end by their timeouts"
        )

    def is_there(self, connection: Connection | None) -> bool:
        """Return True if the broker has the queue, and its node is not down."""
        return connection is not None and connection.has_queue(self._name)

    def cancelled(self) -> QAMConnectionException:
        """Return the error to raise when the broker ends the consumer of a queue that is there."""
        failure = QAMConnectionException(
            f"the consumer on the request queue of {self._settings.server_id!r} was cancelled, "
            "and the queue is there: a method ran longer than the broker's consumer_timeout, "
            "or the queue is being deleted, perhaps with requests in it"
        )
        # RabbitMQ 4.3 does that where earlier ones close the channel: because of a delivery.
        failure.by_message = True
        return failure

    def make_room(self, kept: int, now: float) -> None:
        """Let the prefetch leave room for so many deliveries that need no worker.

        Room that was needed just now stays: each change is another consumer.
        """
        if kept:
            self._room_needed_at = now
        if kept > self._prefetch.kept or now - self._room_needed_at > _ROOM_STAYS:
            self._prefetch.kept = kept

    def adapt_prefetch(self, calls_seconds: list[float]) -> None:
        """Adapt the prefetch to the seconds that methods took."""
        self._prefetch.adapt(calls_seconds)
