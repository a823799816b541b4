"""What becomes of replies: when their requests are settled, and which are sent again, and when.

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

#: Seconds for which a reply that nobody takes is sent again and again.
_RESEND_FOR = 60.0
#: Seconds before such a reply is sent again, first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
#: Seconds before something else is sent again that the broker refused.
_PAUSE_OF_OTHERS = 1.0
#: How many such replies are kept, and how many bytes of them.
_MAX_KEPT, _MAX_KEPT_BYTES = 10_000, 32 * 1024 * 1024


@dataclass(slots=True, frozen=True)
class Settle:
    """Nothing more is to be done for these requests: they may be acknowledged."""

    calls: list[Call]


@dataclass(slots=True, frozen=True)
class SendAgain:
    """The message is sent again: before all that waits, or *after* so many seconds."""

    message: Message
    after: float = 0.0


@dataclass(slots=True, frozen=True)
class Drop:
    """The reply is given up."""

    message: Message


Decision = Settle | SendAgain | Drop


class Kept(Sized, Protocol):
    """What is kept to be sent again later."""

    bytes: int


class ReplyFates:
    """Decides what becomes of the messages of one server.

    :param serializer: how replies are encoded.
    :param kept: what waits to be sent again later.
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
                return _settle(messages)
            case Fate.RETURNED:
                return [each for message in messages for each in self._keep(message, now)]
            case Fate.REFUSED:
                return [each for message in messages for each in self._refused(message, now)]
            case Fate.UNKNOWN:
                return [each for message in messages for each in self._unknown(message)]
            case Fate.CULPRIT:
                return [each for message in messages for each in self._culprit(message, error)]

    def _refused(self, message: Message, now: float) -> list[Decision]:
        if message.is_reply:
            return self._keep(message, now)
        # A request that was not started, or a word to other servers: it has to arrive.
        return [SendAgain(message, _PAUSE_OF_OTHERS)]

    def _keep(self, message: Message, now: float) -> list[Decision]:
        """Send a reply again later: its client may declare its queue again.

        Its request is settled now; else the requests of one client that is gone would
        be all that this server holds.
        """
        settled = _settle([message], now)
        undelivered = message.undelivered
        if undelivered is None or self._is_to_be_dropped(undelivered, now):
            return [*settled, Drop(message)]
        pause = backoff(undelivered.tries, _FIRST_PAUSE, _LONGEST_PAUSE)
        undelivered.tries += 1
        return [*settled, SendAgain(message, pause)]

    def _is_to_be_dropped(self, undelivered: Undelivered, now: float) -> bool:
        too_many = len(self._kept) >= _MAX_KEPT or self._kept.bytes > _MAX_KEPT_BYTES
        return too_many or now - undelivered.since > _RESEND_FOR

    def _unknown(self, message: Message) -> list[Decision]:
        """Send again what may have arrived, except where a copy of it would do harm."""
        if message.is_reply and "correlation_id" not in message.properties:
            # A 0.2.x client would take the copy for the result of its next call.
            return [*_settle([message]), Drop(message)]
        if message.call is not None and not message.is_reply:
            # Another server may have the request that is given back by now.
            headers = message.properties["headers"]
            message.properties["headers"] = {RESENT: 0, **headers}
        return [SendAgain(message)]

    def _culprit(self, message: Message, error: QAMConnectionException | None) -> list[Decision]:
        to = message.call or message.undelivered
        if message.is_reply and to is not None and not to.refused:
            to.refused = True  # if the next one is refused too, there is no more to say
            return [SendAgain(self._in_place_of(message, to, str(error)))]
        if message.call is None:
            return []
        message.call.answer = None
        return [Settle([message.call])]

    def _in_place_of(self, reply: Message, to: Call | Undelivered, why: str) -> Message:
        text = f"the broker refuses the result: {why}"
        failure = internal_reply(to.request_id, RESULT_NOT_SERIALIZABLE, text)
        body = self._serializer.encode(failure, to.like)
        if reply.call is not None:
            reply.call.answer = Answer(reply.route.routing_key, body)
        return replace(reply, body=body)


def _settle(messages: list[Message], free_at: float | None = None) -> list[Decision]:
    """Settle what *messages* were sent for.

    :param free_at: the time, where the messages outlive their requests, which are freed.
    """
    calls = [each.call for each in messages if each.call is not None]
    if free_at is not None:
        for message in messages:
            if (call := message.call) is not None:
                message.undelivered = Undelivered(call.request_id, call.like, call.refused, free_at)
                message.call = None
    return [Settle(calls)] if calls else []
