"""The interface of a connection to the broker, for the one thread that owns it.

Four methods carry the traffic: ``write`` publishes a batch of messages, ``read`` returns
received events, ``tick`` sends heartbeats, and ``wait`` sleeps until there is more to do.  A
connection belongs to the thread that opened it; but while that thread waits, another one may
borrow it.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from qam._broker.events import Consumer, Event
from qam._broker.messages import Publish, QueueBinding, QueueState
from qam._broker.waker import Waker
from qam.exceptions import QAMConnectionException


class QueueIsDown(QAMConnectionException):
    """The node of a cluster that has the queue is down."""


class NotPermitted(QAMConnectionException):
    """The user may not declare a queue."""


class Connection(Protocol):
    """A connection to a broker.

    Every method raises :class:`~qam.exceptions.QAMConnectionException` when the connection is
    lost; it can't be used any more then.
    """

    def declare_exchange(self, name: str) -> None:
        """Declare a durable direct exchange."""

    def declare_queue(self, binding: QueueBinding, arguments: dict[str, Any] | None = None) -> None:
        """Declare a durable queue and bind it to its exchange.

        :raises QueueIsDown: its node is down; the connection is still usable, with a new channel.
        :raises NotPermitted: the user may not declare it.
        """

    def inspect_queue(self, queue: str) -> QueueState | None:
        """Return how many messages and consumers *queue* has; None if it does not exist.

        If it may not exist, call this before :meth:`confirm` and :meth:`consume`: the broker
        then closes the channel.
        """

    def has_queue(self, name: str) -> bool:
        """Return True if there is that queue; it may be called at any time."""

    def unbind_queue(self, binding: QueueBinding) -> None:
        """Delete a binding: what is published from now on does not come to its queue."""

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all its messages."""

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange with its bindings; do nothing if there is none."""

    def consume(
        self,
        queue: str,
        prefetch: int = 0,
        priority: int = 0,
        no_ack: bool = False,
        max_bytes: int | None = None,
    ) -> Consumer:
        """Start a consumer that holds up to *prefetch* unacknowledged messages (0: any).

        :param no_ack: deliveries count as acknowledged.
        :param max_bytes: a delivery with a larger body comes without the body; None for no limit.
        """

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer; its deliveries can still be acknowledged."""

    def confirm(self, also_plain: bool = False) -> None:
        """Request confirms for the messages written from now on.

        :param also_plain: whether messages without a confirm will be written, too.
        """

    def write(self, messages: Iterable[Publish]) -> None:
        """Publish *messages*; the fate of a message with a confirm is reported by events.

        A message without a confirm is reported only if it is mandatory and unroutable.
        """

    def acknowledge(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge a delivery, or with *multiple* all up to it; :meth:`flush` sends the ack."""

    def reject(self, tag: int) -> None:
        """Make the broker drop a delivery."""

    def flush(self) -> bool:
        """Send buffered bytes as far as the network takes them; return whether it took all."""

    def read(self) -> list[Event]:
        """Return the received events; does not wait for more.

        If this raises the loss of the connection, :meth:`take_events` returns the events that
        came before.
        """

    def wait(self, timeout: float | None, waker: Waker, read_delay: float = 0.0) -> None:
        """Wait up to *timeout* seconds until there is something to :meth:`read`, or *waker* wakes.

        Another thread may write meanwhile; if it can't :meth:`flush` everything, it has to wake
        this one.

        :param read_delay: seconds for which incoming data may stay unread, so that they are read
            together with later data.
        """

    def rest(self) -> None:
        """Keep incoming data from ending the current :meth:`wait`, or the next one.

        Called by another thread, which will wake the waiting one.  The loss of the connection
        still ends the wait.
        """

    @property
    def rests(self) -> bool:
        """True from :meth:`rest` until the next :meth:`read`."""

    def take_events(self) -> list[Event]:
        """Return the events that were not returned yet; also after the loss of the connection."""

    def tick(self) -> float | None:
        """Send a heartbeat if one is due; return the seconds until the next call is needed.

        :returns: None if no other call is needed.
        """

    @property
    def congested(self) -> bool:
        """True while the network takes no more; :meth:`wait` returns when it does again."""

    def take_unconfirmed(self) -> list[Publish]:
        """Return the messages without a fate; also after the loss of the connection."""

    def close(self) -> None:
        """Close the connection and free its resources; never raises, takes a second at most."""

    def detach(self) -> None:
        """Close the descriptors only; in a forked child, whose parent uses the connection."""
