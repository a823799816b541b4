"""The lists through which the threads of a server give work to the owners of its connections.

Each mailbox has a lock, which guards its contents, and the waker of the thread that empties
it.  The mailboxes are made before the threads.
"""

from collections.abc import Iterable, Sequence

from qam._broker.messages import Publish, batch_length
from qam._broker.waker import Waker
from qam._common.own_locks import own_lock
from qam._server.call import Call
from qam._server.messages import Message

#: Seconds for which a settled call waits for others, to be acknowledged with them: for each
#: request that the broker delivers without acks, and at most.
_PATIENCE_PER_REQUEST, _MOST_PATIENCE = 0.0001, 0.02


class ResultQueue:
    """The messages of a server that are not written yet, oldest first."""

    def __init__(self) -> None:
        #: Wakes the thread that writes the messages.
        self.waker = Waker()
        self.messages: list[Publish] = []
        # Guards messages.
        self._lock = own_lock()

    def __len__(self) -> int:
        return len(self.messages)

    def put(self, message: Message) -> None:
        """Append *message*; does not wait for it to be sent."""
        with self._lock:
            self.messages.append(message)
            first = len(self.messages) == 1
        if first:  # for later ones the thread is awake already, or returns by itself
            self.waker.wake()

    def put_first(self, messages: Sequence[Message]) -> None:
        """Put *messages* before all others; called by the thread that writes them."""
        with self._lock:
            self.messages[:0] = messages

    def take(self, alone: bool) -> list[Publish]:
        """Take out the messages to be written next: a batch, or one *alone*."""
        if not self.messages:  # the first message that is added after this wakes the thread
            return []
        with self._lock:
            length = batch_length(self.messages)
            batch = self.messages[: min(length, 1) if alone else length]
            del self.messages[: len(batch)]
        return batch


class SettledCalls:
    """The settled calls, which may be acknowledged.

    They are acknowledged together, when the thread that acknowledges wakes next.  It is not
    woken for each call, but when the broker would soon deliver no more, or when the server
    closes; and a few milliseconds later by the publisher.
    """

    def __init__(self) -> None:
        #: Wakes the thread that acknowledges.
        self.waker = Waker()
        self._calls: list[Call] = []
        # Guards _calls.
        self._lock = own_lock()
        self._prefetch = 0
        self._is_urgent = False
        #: The latest connection of which all other servers will know.
        self.announced = 0

    def put(self, calls: Iterable[Call]) -> None:
        """Add *calls*."""
        with self._lock:
            self._calls.extend(calls)
            many = 4 * len(self._calls) >= self._prefetch
        if many or self._is_urgent:
            self.waker.wake()

    def put_now(self, call: Call) -> None:
        """Add *call*, which needs no reply, and wake the thread: the publisher will not."""
        self.put([call])
        self.waker.wake()

    def take_all(self) -> list[Call]:
        """Take out all calls; called by the thread that acknowledges them."""
        with self._lock:
            calls, self._calls = self._calls, []
        return calls

    def announce(self, number: int) -> None:
        """All other servers will know of the connection *number*; wake the thread that waits.

        The hello of an earlier connection may be sent again, and be confirmed later.
        """
        self.announced = max(self.announced, number)
        self.waker.wake()

    @property
    def patience(self) -> float:
        """Seconds for which a settled call waits for others.

        The more requests the broker delivers meanwhile, the later a worker misses one.
        """
        return min(self._prefetch * _PATIENCE_PER_REQUEST, _MOST_PATIENCE)

    def set_prefetch(self, prefetch: int) -> None:
        """Set how many unacknowledged requests the broker delivers."""
        self._prefetch = prefetch

    def hurry(self) -> None:
        """Wake the thread for each call from now on: the server closes.

        Only sets a flag, so a signal handler may call it.
        """
        self._is_urgent = True
