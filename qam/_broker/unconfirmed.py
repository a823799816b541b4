"""The written messages that are not confirmed yet, by delivery tag."""

from collections import Counter
from collections.abc import Sequence
from itertools import count

from qam._broker.events import Confirmed, Event, Refused, Returned
from qam._broker.messages import Publish


class Unconfirmed:
    """Matches the broker's confirms and returns with the messages of one channel.

    The broker numbers the published messages from 1.  An ack or nack names one number, or with
    *multiple* all up to it.  A message that no queue takes is first returned and then acked.  A
    return has no number, so it is kept until the ack shows which message it was.
    """

    def __init__(self) -> None:
        self._last_tag, self._lowest_tag = 0, 1
        self._messages: dict[int, Publish] = {}
        self._returned: Counter[str] = Counter()

    def add(self, messages: Sequence[Publish]) -> None:
        """Add *messages*, the next ones to be written."""
        self._messages.update(zip(count(self._last_tag + 1), messages))
        self._last_tag += len(messages)

    def returned(self, correlation_id: str | None) -> None:
        """Note that the broker has returned a message with this *correlation_id*."""
        if correlation_id is not None:
            self._returned[correlation_id] += 1

    def acked(self, tag: int, multiple: bool) -> list[Event]:
        """Return the events of an ack."""
        messages = self._settle(tag, multiple)
        if not self._returned:
            return [Confirmed(messages)]
        confirmed: list[Publish] = []
        events: list[Event] = [Confirmed(confirmed)]
        for message in messages:
            if self._was_returned(message):
                events.append(Returned(message))
            else:
                confirmed.append(message)
        return events

    def nacked(self, tag: int, multiple: bool) -> list[Event]:
        """Return the events of a nack."""
        return [Refused(message) for message in self._settle(tag, multiple)]

    def take_all(self) -> list[Publish]:
        """Remove and return all messages, the oldest first."""
        messages = list(self._messages.values())
        self._messages.clear()
        return messages

    def _settle(self, tag: int, multiple: bool) -> list[Publish]:
        if not multiple:
            settled = [self._messages.pop(tag)] if tag in self._messages else []
            if not self._messages:
                self._lowest_tag = self._last_tag + 1
            return settled
        # _lowest_tag only grows, so all multiple acks together visit each tag once.
        tags, self._lowest_tag = range(self._lowest_tag, tag + 1), max(self._lowest_tag, tag + 1)
        return [self._messages.pop(each) for each in tags if each in self._messages]

    def _was_returned(self, message: Publish) -> bool:
        correlation_id = message.properties.get("correlation_id")
        if correlation_id is None or correlation_id not in self._returned:
            return False
        # A message that was sent twice is returned twice.
        self._returned[correlation_id] -= 1
        if not self._returned[correlation_id]:
            del self._returned[correlation_id]
        return True
