"""The messages written recently without confirms.  No clock in here: the time comes in."""

from collections import deque

from qam._broker.messages import Publish

#: How many messages are kept, and how many bytes of them.
_MAX_MESSAGES, _MAX_BYTES = 10_000, 32 * 1024 * 1024


class RecentlyWritten:
    """The messages of one connection that may still be under way when it is lost.

    Nothing tells which of them arrived.  But messages that were written before the last sign
    of life can't be lost with the connection.

    :param seconds: for how long a connection may be dead before that is noticed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._messages: deque[tuple[float, Publish]] = deque()
        self._bytes = 0

    def add(self, messages: list[Publish], now: float) -> None:
        """*messages* are about to be written."""
        self._messages.extend([(now, message) for message in messages])
        self._bytes += sum([len(message.body) for message in messages])
        self._forget(now)

    def _forget(self, now: float) -> None:
        messages, too_old = self._messages, now - self._seconds
        while messages and (
            len(messages) > _MAX_MESSAGES or self._bytes > _MAX_BYTES or messages[0][0] < too_old
        ):
            self._bytes -= len(messages.popleft()[1].body)

    def take_all(self, now: float) -> list[Publish]:
        """Return the messages, oldest first, and forget them; the connection is lost."""
        self._forget(now)
        messages = [message for _, message in self._messages]
        self._messages.clear()
        self._bytes = 0
        return messages
