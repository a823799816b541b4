"""The queue from which a server consumes the words of its siblings."""

from typing import Any

from qam._broker.connection import Connection, QueueIsDown
from qam._broker.events import Consumer
from qam._broker.messages import PERSISTENT
from qam._broker.silence import Silence
from qam._protocol.entities import siblings_binding
from qam._server.messages import Message
from qam._server.settings import ServerSettings
from qam._server.sibling_words import MAX_BYTES
from qam.exceptions import QAMConnectionException

#: Seconds for which the queue of a server that lost its connection stays.  A server that is
#: away for longer is taken for dead, and knows that it has missed words.
_EXPIRES = 10
_PROPERTIES = {"content_type": "application/json", "delivery_mode": PERSISTENT}


def arguments_of_siblings(settings: ServerSettings) -> dict[str, Any]:
    """Return with what a queue between servers is declared: it is of the request queue's type."""
    arguments: dict[str, Any] = {"x-expires": _EXPIRES * 1000}
    if "x-queue-type" in settings.queue_arguments:
        arguments["x-queue-type"] = settings.queue_arguments["x-queue-type"]
    return arguments


class SiblingsQueue:
    """The queue, the consumer on it, and the route to all such queues.

    :param settings: the settings of the server.
    :param instance: the name of the server among its siblings.
    """

    def __init__(self, settings: ServerSettings, instance: str) -> None:
        self._binding = siblings_binding(settings.server_id, instance)
        self._first_name = self._binding.queue
        self._consumer: Consumer | None = None
        # How often the queue was opened, and another one taken, and whether words were missed since
        # the last success.
        self._openings = 0
        self._others = 0
        self._has_gap = True
        self._silence = Silence()
        self._arguments = arguments_of_siblings(settings)

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self._binding.queue

    @property
    def consumer_tag(self) -> str | None:
        """The tag of the deliveries from this queue; None before :meth:`open`."""
        return self._consumer.tag if self._consumer else None

    def open(self, connection: Connection) -> bool:
        """Declare the queue, and consume from it; return True if no word was missed meanwhile."""
        connection.declare_exchange(self._binding.exchange)
        if self._openings and self._silence.is_down:
            self._silence.forget()
            self._take_another()
        with self._silence.counted():
            self._declare(connection)
        self._openings += 1
        # Higher each time: the broker may still serve the consumer of the lost connection.
        self._consumer = connection.consume(
            self._binding.queue, priority=self._openings, max_bytes=MAX_BYTES
        )
        without_gap, self._has_gap = not self._has_gap, False
        return without_gap

    def declare_again(self, connection: Connection) -> None:
        """Declare exchange and binding again: somebody may have deleted them."""
        connection.declare_exchange(self._binding.exchange)
        connection.declare_queue(self._binding, self._arguments)

    def _declare(self, connection: Connection) -> None:
        # If this attempt fails, the next one finds a queue, which is a new one.
        self._has_gap = self._has_gap or connection.inspect_queue(self._binding.queue) is None
        try:
            connection.declare_queue(self._binding, self._arguments)
        except QueueIsDown:  # on a cluster: the node of the queue is down
            self._take_another()
            connection.declare_queue(self._binding, self._arguments)

    def _take_another(self) -> None:
        self._has_gap = True
        self._others += 1
        queue = f"{self._first_name}.{self._others}"
        self._binding = self._binding._replace(queue=queue)

    def message(self, word: bytes, hello: int = 0) -> Message:
        """Return *word* as a message to all servers of the server_id, this one included.

        :param hello: the number of the connection that it announces, if it does.
        """
        return Message(self._binding.route, word, _PROPERTIES, mandatory=False, hello=hello)

    def deleted(self) -> QAMConnectionException:
        """Return the error to raise when the queue was deleted."""
        return QAMConnectionException(f"the queue {self._binding.queue} was deleted")

    def unbind(self, connection: Connection) -> None:
        """Take no more words; those of this server itself do not come back either."""
        connection.unbind_queue(self._binding)

    def delete(self, connection: Connection) -> None:
        """Delete the queue: this server needs no more words."""
        connection.delete_queue(self._binding.queue)
