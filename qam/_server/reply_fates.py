"""Decides when requests are settled, and which replies are sent again, and when.

No I/O, no threads, no locks and no clock: fates and the time come in, decisions go out.  The
server's publisher carries them out.
"""

from collections.abc import Sized
from dataclasses import dataclass, replace
from typing import Protocol

from qam._broker.fates import Fate
from qam._common.deadline import backoff
from qam._protocol.properties import RESENT
from qam._protocol.replies import RESULT_NOT_SERIALIZABLE, internal_reply
from qam._serialization.serializers import Serializer
from qam._server.call import Answer, Call
from qam._server.messages import Message, Undelivered
from qam.exceptions import QAMConnectionException

#: Seconds for which a reply is sent again and again: if its queue is gone, and if the broker
#: refuses it, since the queue may come back, as with its node.
_RESEND_RETURNED_FOR, _RESEND_REFUSED_FOR = 60.0, 3600.0
#: Seconds before such a reply is sent again: the first time, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
#: Seconds before another refused message is sent again.
_PAUSE_OF_OTHERS = 1.0
#: How many such replies are kept, and how many bytes of them, at most.
_MAX_KEPT, _MAX_KEPT_BYTES = 10_000, 32 * 1024 * 1024


@dataclass(slots=True, frozen=True)
class Settle:
    """These requests are settled: they may be acknowledged."""

    calls: list[Call]


@dataclass(slots=True, frozen=True)
class SendAgain:
    """The message is sent again: before all queued ones, or *after* so many seconds."""

    message: Message
    after: float = 0.0


@dataclass(slots=True, frozen=True)
class Drop:
    """The reply is dropped."""

    message: Message


@dataclass(slots=True, frozen=True)
class Announce:
    """The other servers will know of this connection: its hello is safe."""

    number: int


Decision = Settle | SendAgain | Drop | Announce


class Kept(Sized, Protocol):
    """The messages that wait to be sent again later."""

    bytes: int


class ReplyFates:
    """Decides what becomes of the messages of one server.

    :param serializer: how replies are encoded.
    :param kept: the messages that wait to be sent again later.
    """

    def __init__(self, serializer: Serializer, kept: Kept) -> None:
        self._serializer = serializer
        self._kept = kept

    def decide(
        self,
        fate: Fate,
        messages: list[Message],
        now: float,
        error: QAMConnectionException | None = None,
    ) -> list[Decision]:
        """Return what follows from the *fate* of *messages*.

        :param now: the time, on the monotonic clock.
        :param error: why the connection was lost, if it was.
        """
        match fate:
            case Fate.WRITTEN:  # there will be no other sign
                return _settle(messages, now)
            case Fate.CONFIRMED:
                hellos = [Announce(each.hello) for each in messages if each.hello]
                return [*_settle(messages), *hellos]
            case Fate.RETURNED:
                return [each for message in messages for each in self._returned(message, now)]
            case Fate.REFUSED:
                return [each for message in messages for each in self._refused(message, now)]
            case Fate.UNKNOWN:
                return [each for message in messages for each in self._unknown(message)]
            case Fate.CULPRIT:
                return [each for message in messages for each in self._culprit(message, error)]

    def _returned(self, message: Message, now: float) -> list[Decision]:
        return self._retry_later(message, now, _RESEND_RETURNED_FOR)

    def _refused(self, message: Message, now: float) -> list[Decision]:
        if message.is_reply:
            return self._retry_later(message, now, _RESEND_REFUSED_FOR)
        # A request published anew, or a word to other servers: it has to arrive.
        _mark_copy(message)
        return [SendAgain(message, _PAUSE_OF_OTHERS)]

    def _retry_later(self, message: Message, now: float, seconds: float) -> list[Decision]:
        """Settle the request of a reply, and send the reply again later, or drop it.

        Its client may declare its queue again.  The request is settled now: otherwise the
        requests of a client that is gone could take up the whole prefetch of this server.

        :param seconds: for how long it is sent again.
        """
        settled = _settle([message], now)
        undelivered = message.undelivered
        if undelivered is None or self._is_to_be_dropped(undelivered, now - seconds):
            return [*settled, Drop(message)]
        pause = backoff(undelivered.tries, _FIRST_PAUSE, _LONGEST_PAUSE)
        undelivered.tries += 1
        return [*settled, SendAgain(message, pause)]

    def _is_to_be_dropped(self, undelivered: Undelivered, since: float) -> bool:
        too_many = len(self._kept) >= _MAX_KEPT or self._kept.bytes > _MAX_KEPT_BYTES
        return too_many or undelivered.since < since

    def _unknown(self, message: Message) -> list[Decision]:
        """Send a message again that may have arrived, unless a copy would do harm."""
        if message.is_reply and "correlation_id" not in message.properties:
            # A 0.2.x client would take the copy for the result of its next call.
            return [*_settle([message]), Drop(message)]
        _mark_copy(message)
        return [SendAgain(message)]

    def _culprit(self, message: Message, error: QAMConnectionException | None) -> list[Decision]:
        to = message.call or message.undelivered
        if message.is_reply and to is not None and not to.refused:
            to.refused = True  # if the replacement is refused too, nothing more is sent
            return [SendAgain(self._replacement_of(message, to, str(error)))]
        if message.call is None:
            return []
        message.call.answer = None
        return [Settle([message.call])]

    def _replacement_of(self, reply: Message, to: Call | Undelivered, why: str) -> Message:
        text = f"the broker refuses the result: {why}"
        failure = internal_reply(to.request_id, RESULT_NOT_SERIALIZABLE, text)
        body = self._serializer.encode(failure, reply.body)  # which is encoded as the request is
        if reply.call is not None:
            reply.call.answer = Answer(reply.route.routing_key, body)
        return replace(reply, body=body)


def _mark_copy(message: Message) -> None:
    """Mark a request that is published anew, again: another server may have the first copy.

    Also if the broker refused the first copy: it may have taken it all the same.
    """
    if message.call is not None and not message.is_reply:
        headers = message.properties["headers"]
        message.properties["headers"] = {RESENT: 0, **headers}


def _settle(messages: list[Message], free_at: float | None = None) -> list[Decision]:
    """Settle the calls of *messages*.

    :param free_at: the time, if the messages may be sent again after their calls are freed;
        else None.
    """
    calls = [each.call for each in messages if each.call is not None]
    if free_at is not None:
        for message in messages:
            if (call := message.call) is not None:
                message.undelivered = Undelivered(call.request_id, call.refused, free_at)
                message.call = None
    return [Settle(calls)] if calls else []
