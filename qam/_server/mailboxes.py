"""What the threads of a server hand over to those that own its connections.

Each mailbox has a lock, which guards what is in it, and the waker of the thread that
empties it.  They are made before the threads are.
"""

import threading
from collections.abc import Iterable, Sequence

from qam._broker.messages import Publish, batch_length
from qam._broker.waker import Waker
from qam._server.call import Call
from qam._server.messages import Message


class ResultQueue:
    """The messages of a server that are not written yet, oldest first."""

    def __init__(self) -> None:
        #: Wakes the thread that writes them.
        self.waker = Waker()
        self.messages: list[Publish] = []
        # Guards messages.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.messages)

    def put(self, message: Message) -> None:
        """Append *message*; does not wait for it to be sent."""
        with self._lock:
            self.messages.append(message)
            first = len(self.messages) == 1
        if first:  # for the others the thread is awake, or comes back to them by itself
            self.waker.wake()

    def put_first(self, messages: Sequence[Message]) -> None:
        """Put *messages* before all others; by the thread that writes them."""
        with self._lock:
            self.messages[:0] = messages

    def take(self, alone: bool) -> list[Publish]:
        """Take out what is to be written next: a batch, or one message *alone*."""
        if not self.messages:  # what comes after this look comes with a wake
            return []
        with self._lock:
            length = batch_length(message.body for message in self.messages)
            batch = self.messages[: min(length, 1) if alone else length]
            del self.messages[: len(batch)]
        return batch


class SettledCalls:
    """The calls for which everything is done: they may be acknowledged.

    They are acknowledged with others, when the thread that does it wakes next.  It is not
    woken for each, but when the broker would soon deliver no more, or when the server
    closes; and some milliseconds later by the thread that publishes.
    """

    def __init__(self) -> None:
        #: Wakes the thread that acknowledges.
        self.waker = Waker()
        self._calls: list[Call] = []
        # Guards _calls.
        self._lock = threading.Lock()
        self._prefetch = 0
        self._is_urgent = False

    def put(self, calls: Iterable[Call]) -> None:
        """Add *calls*."""
        with self._lock:
            self._calls.extend(calls)
            many = 4 * len(self._calls) >= self._prefetch
        if many or self._is_urgent:
            self.waker.wake()

    def put_now(self, call: Call) -> None:
        """Add *call*, where nobody wakes that thread before long."""
        self.put([call])
        self.waker.wake()

    def take_all(self) -> list[Call]:
        """Take out all of them; by the thread that acknowledges them."""
        with self._lock:
            calls, self._calls = self._calls, []
        return calls

    def expect(self, prefetch: int) -> None:
        """The broker delivers so many requests before it waits for acknowledgements."""
        self._prefetch = prefetch

    def hurry(self) -> None:
        """Have each acknowledged at once from now on: the server closes.

        Only sets a flag, so a signal handler may call it.
        """
        self._is_urgent = True
