"""A connection to the broker, as its one owner sees it.

Four verbs carry the traffic: ``write`` a batch of messages, ``read`` what came as
events, ``tick`` for what time asks for, and ``wait`` until there is more.  All of a
connection belongs to the thread that opened it; but while that waits, another may
write in its place.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from qam._broker.events import Consumer, Event
from qam._broker.messages import Publish, QueueBinding, QueueState
from qam._broker.waker import Waker
from qam.exceptions import QAMConnectionException


class QueueIsDown(QAMConnectionException):
    """The node of a cluster that has the queue is not there."""


class Connection(Protocol):
    """What an owner can do with its connection.

    Every method raises :class:`~qam.exceptions.QAMConnectionException` when the
    connection is lost; it is of no use then.
    """

    def declare_exchange(self, name: str) -> None:
        """Declare a durable direct exchange."""

    def declare_queue(self, binding: QueueBinding, arguments: dict[str, Any] | None = None) -> None:
        """Declare a durable queue and bind it to its exchange.

        :raises QueueIsDown: the connection stands, and is as good as new.
        """

    def inspect_queue(self, queue: str) -> QueueState | None:
        """Return what waits in *queue*, and how many consumers it has; None if it is not there.

        Where it may be missing: to be called before :meth:`confirm` and :meth:`consume`.
        """

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all that is in it."""

    def consume(
        self,
        queue: str,
        prefetch: int = 0,
        priority: int = 0,
        no_ack: bool = False,
        max_bytes: int | None = None,
    ) -> Consumer:
        """Start a consumer that holds up to *prefetch* unacknowledged messages (0: any).

        :param no_ack: what it delivers counts as acknowledged.
        :param max_bytes: of a larger body only the size is delivered; None for any.
        """

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer; what it delivered can still be acknowledged."""

    def confirm(self, also_plain: bool = False) -> None:
        """Ask for confirms of what is written from now on.

        :param also_plain: messages that want no confirm will be written, too.
        """

    def write(self, messages: Iterable[Publish]) -> None:
        """Publish *messages*; the fate of those that want a confirm comes as events.

        Of the others comes only the fate of those that are mandatory and unroutable.
        """

    def acknowledge(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge a delivery, or with *multiple* all up to it; :meth:`flush` sends it."""

    def reject(self, tag: int) -> None:
        """Have the broker drop a delivery."""

    def flush(self) -> bool:
        """Send what waits, as far as the network takes it; return whether that was all."""

    def read(self) -> list[Event]:
        """Return what has come; does not wait for more.

        What came before a loss that it raises is left for :meth:`take_events`.
        """

    def wait(self, timeout: float | None, waker: Waker, read_delay: float = 0.0) -> None:
        """Wait up to *timeout* seconds for something to :meth:`read`, or until woken.

        What comes may be left to come for *read_delay* seconds, so that it is taken in with
        what comes after it.  Another thread may write meanwhile; if it can't
        :meth:`flush` all that it has written it has to wake this one.
        """

    def rest(self) -> None:
        """Let what comes not end the :meth:`wait` that goes on, or begins.

        For another thread, which wakes the one that waits.  The loss of the connection ends
        it all the same.
        """

    @property
    def rests(self) -> bool:
        """True from :meth:`rest` until the next :meth:`read`."""

    def take_events(self) -> list[Event]:
        """Return what came and was not returned yet; also after the loss of the connection."""

    def tick(self) -> float | None:
        """Do what time asks for; return the seconds until it has to be called again."""

    @property
    def congested(self) -> bool:
        """True while the network takes no more; :meth:`wait` returns when it does again."""

    def take_unconfirmed(self) -> list[Publish]:
        """Return the messages whose fate is open; also after the loss of the connection."""

    def close(self) -> None:
        """Say goodbye and give everything back; never raises, takes a second at most."""

    def detach(self) -> None:
        """Give back the descriptors alone; in a forked child, whose parent uses the connection."""
