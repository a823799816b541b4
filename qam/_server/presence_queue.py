"""The queue by which the servers of one server_id are counted.

Each consumes from it for as long as it is connected, and no message is ever in it.  So the number
of its consumers is that of the servers that are there, also of those that take no requests any
more, and of those that can't speak at the moment.
"""

from qam._broker.connection import Connection, QueueIsDown
from qam._broker.events import Consumer
from qam._broker.silence import Silence
from qam._protocol.entities import presence_binding
from qam._server.settings import ServerSettings
from qam._server.siblings_queue import arguments_of_siblings
from qam.exceptions import QAMConnectionException


class PresenceQueue:
    """The queue, and the consumer on it.

    The broker deletes it a few seconds after the last server went.

    :param settings: the settings of the server.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._binding = presence_binding(settings.server_id)
        self._arguments = arguments_of_siblings(settings)
        self._consumer: Consumer | None = None
        self._is_down = False
        self._silence = Silence()

    @property
    def consumer_tag(self) -> str | None:
        """The tag of the consumer; None if there is none."""
        return self._consumer.tag if self._consumer else None

    def declare(self, connection: Connection) -> bool:
        """Declare the queue; return True if the last server may have gone just before."""
        self._is_down = self._silence.rests
        if self._is_down:  # without it, servers are not counted
            return False
        with self._silence.counted():
            before = connection.inspect_queue(self._binding.queue)
            self._declare(connection)
        return before is not None and before.consumers == 0

    def declare_again(self, connection: Connection) -> None:
        """Declare the queue again, unless it is down: somebody may have deleted it."""
        if not self._silence.rests:
            with self._silence.counted():
                self._declare(connection)

    def _declare(self, connection: Connection) -> None:
        connection.declare_exchange(self._binding.exchange)
        try:
            connection.declare_queue(self._binding, self._arguments)
        except QueueIsDown:  # on a cluster: the node of the queue is down
            self._is_down = True
        else:
            self._is_down = False

    def consume(self, connection: Connection) -> None:
        """Be counted from now on, if the queue can be used."""
        self._consumer = None
        if not self._is_down:
            self._consumer = connection.consume(self._binding.queue, no_ack=True, max_bytes=0)

    def count_others(self, connection: Connection) -> int | None:
        """Return how many other servers are there; None if they can't be counted."""
        if self._consumer is None:
            return None
        state = connection.inspect_queue(self._binding.queue)
        if state is None:
            raise self.deleted()
        return state.consumers - 1

    def deleted(self) -> QAMConnectionException:
        """Return the error to raise when the queue was deleted."""
        return QAMConnectionException(f"the queue {self._binding.queue} was deleted")
