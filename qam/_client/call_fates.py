"""Decides which calls are sent again, and when, and which calls end, and with which exception.

No I/O, no threads, no locks and no clock: facts and the time come in, decisions go out.  The
PublisherThread carries them out.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from qam._broker.credentials import AMQPCredentials
from qam._broker.fates import Fate
from qam._client.pending_call import PendingCall
from qam._common.deadline import Deadline, backoff
from qam._common.error_texts import describe
from qam._common.served_call import InheritedDeadline
from qam.exceptions import (
    Executed,
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMServerNotFoundException,
    QAMTimeoutException,
)

#: Seconds before a refused request is sent again: after its first refusal, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

# So often a request comes back before its server counts as gone: it declares its queue again
# within 54 seconds, if it is there.
_MOST_RETURNS = 100

_NOT_TWICE = "it is not sent again, since the server might run it twice"


@dataclass(slots=True, frozen=True)
class End:
    """The call ends with this exception."""

    call: PendingCall
    failure: QAMException


@dataclass(slots=True, frozen=True)
class Done:
    """The call, for whose reply nobody waits, ends well: the broker has its request."""

    call: PendingCall


@dataclass(slots=True, frozen=True)
class SendAgain:
    """The request is sent again: before all queued ones, or *after* so many seconds."""

    call: PendingCall
    after: float = 0.0


Decision = End | Done | SendAgain


@dataclass(slots=True, frozen=True)
class CallFates:
    """Decides what becomes of the calls of one proxy.

    A request is sent a second time only if the server is known to keep a record: any other
    server would run it twice.

    :param server_id: the server that is called.
    :param broker: where the broker is, for the texts of exceptions.
    :param persistent: whether the broker keeps requests and replies.
    """

    server_id: str
    broker: AMQPCredentials
    persistent: bool

    def decide(
        self,
        fate: Fate,
        calls: list[PendingCall],
        server_keeps_record: bool | None,
        error: QAMConnectionException | None = None,
        server_is_there: bool = False,
        now: float = math.inf,
    ) -> list[Decision]:
        """Return what follows from the *fate* of the requests of *calls*.

        :param server_keeps_record: True if the last reply came from a server that runs a
            request once, even if it receives it twice; None if no reply has come yet.
        :param error: why the connection was lost, if it was.
        :param server_is_there: True if the request queue exists, though requests come back.
        :param now: the time, up to which some calls wait for a server that is not there.
        """
        match fate:
            case Fate.CONFIRMED:
                for call in calls:
                    call.confirmed = True
                return _done(calls)
            case Fate.WRITTEN:
                return _done(calls)
            case Fate.RETURNED:
                was_there = server_is_there or server_keeps_record is not None
                return [self._returned(call, was_there, now) for call in calls]
            case Fate.CULPRIT:
                return [_refused_for_good(call, error) for call in calls]
            case Fate.REFUSED if server_keeps_record:
                return [_after_refusal(call) for call in calls]
            case Fate.REFUSED:
                why = f"but the broker refused the request; {_NOT_TWICE}"
                return [_end_of_sent(call, why) for call in calls]
            case Fate.UNKNOWN if server_keeps_record:
                return [SendAgain(call) for call in calls]
            case Fate.UNKNOWN:
                why = f"but {error} before the broker confirmed the request; {_NOT_TWICE}"
                return [_end_of_sent(call, why, error) for call in calls]

    def _returned(self, call: PendingCall, was_there: bool, now: float) -> Decision:
        """Send the request again if the server was there before, or is waited for."""
        if now < call.awaits_server_until or (was_there and call.times_refused < _MOST_RETURNS):
            if call.times_written == 1:
                call.times_written = 0  # no queue has taken it, so there is no copy
            return _after_refusal(call)
        return End(call, self.server_not_found(_executed(call)))

    def unroutable(self, call: PendingCall, now: float) -> Decision:
        """Return what follows for a transient *call*, whose request came back."""
        if now < call.awaits_server_until:
            return self._returned(call, False, now)
        return End(call, self.server_not_found("no"))

    def replies_lost(
        self, calls: Iterable[PendingCall], server_keeps_record: bool | None
    ) -> list[Decision]:
        """Return what follows for *calls*, all open, after the reply queue was deleted.

        A server that keeps a record still has the replies in it.
        """
        sent = _waiting_for_replies(calls)
        if self.persistent and server_keeps_record:
            return [SendAgain(call) for call in sent]
        why = "but the reply queue was deleted, perhaps with the reply in it"
        return [_end_of_sent(call, why) for call in sent]

    def connection_lost(
        self, calls: Iterable[PendingCall], error: QAMConnectionException
    ) -> list[Decision]:
        """Return what follows for *calls*, all open, after one of the connections was lost.

        Transient requests and replies are lost with it.
        """
        if self.persistent:
            return []
        why = f"but {error} before the reply came"
        return [_end_of_sent(call, why, error) for call in _waiting_for_replies(calls)]

    def server_not_found(self, executed: Executed) -> QAMServerNotFoundException:
        """Return the exception of a call whose request no queue took."""
        hint = "start one, or check the server_id"
        if self.broker.is_memory:
            hint += "; a memory:// broker is inside one process, and no other process reaches it"
        return QAMServerNotFoundException(
            f"the server_id {self.server_id!r} has no request queue at {self.broker}: no server "
            f"has ever served it there; {hint}",
            executed=executed,
        )

    def phase(
        self,
        call: PendingCall,
        connected: bool,
        can_receive: bool,
        blocked: bool,
        why_not_connected: str = "",
    ) -> str:
        """Return what a call waits for, as a clause that can follow "and"."""
        if call.confirmed:
            return "the request is queued or running"
        if not connected or not (call.times_written or can_receive):
            why = f" ({why_not_connected})" if why_not_connected else ""
            return f"there is no connection to the broker{why}"
        if blocked:
            return "the broker has an alarm and accepts no messages"
        if call.times_written:
            unconfirmed = ", and the broker has not confirmed it"
            return f"the request was sent{unconfirmed if self.persistent else ''}"
        if call.times_refused:
            return "its request came back: the request queue of the server, or its binding, is gone"
        return "the queued requests have not been written yet"


def note_written(call: PendingCall, now: float) -> int | None:
    """Note that a request is being written; return its age in milliseconds if it is a copy.

    Each later copy carries the age of the first one, for servers that have received that.
    """
    if call.times_written == 1:
        call.written_at = now
        return None
    call.confirmed = False
    return int((now - call.written_at) * 1000)


def timed_out(call: PendingCall, withdrawn: bool, phase: str) -> QAMTimeoutException:
    """Return the exception of a call whose time is up.

    :param withdrawn: True if its request was not written, and never will be.
    :param phase: what the call waited for, see :meth:`CallFates.phase`.
    """
    if withdrawn:
        ran = "; the request was not sent, and the method will not run"
    elif call.confirmed:
        ran = ", and may still run"
    else:
        ran = "; the method may have run, or may still run"
    return QAMTimeoutException(
        f"{call.method_name}() timed out after {_time_of(call.deadline)}; {phase}{ran}",
        executed="no" if withdrawn else "unknown",
    )


def no_time_left(method_name: str, deadline: Deadline) -> QAMTimeoutException:
    """Return the exception of a call that is made when its time is up already."""
    return QAMTimeoutException(
        f"{method_name}() timed out after {_time_of(deadline)}; it was not sent", executed="no"
    )


def _time_of(deadline: Deadline) -> str:
    seconds = f"{deadline.timeout:g} s"
    if isinstance(deadline, InheritedDeadline):
        return f"{seconds}, the time that was left to the caller of {deadline.served_method}()"
    return seconds


def queue_is_full(call: PendingCall, max_queued: int | None, phase: str) -> QAMException:
    """Return the exception of a call for which the method queue has no room."""
    return QAMException(
        f"{call.method_name}() was not sent: max_queued={max_queued} calls "
        f"are queued already, and {phase}",
        executed="no",
    )


def thread_ended(error: BaseException | None, executed: Executed) -> QAMException:
    """Return the exception of a call after a thread of its proxy ended, perhaps by *error*."""
    if isinstance(error, QAMConnectionException):  # its first attempt to connect
        failure = QAMConnectionException(str(error), executed=executed)
        failure.__cause__ = error
        return failure
    why = f" because of an internal error ({describe(error)})" if error else ""
    closed = QAMClosedException(
        f"a thread of the proxy ended{why}; make a new proxy", executed=executed
    )
    closed.__cause__ = error
    return closed


def _done(calls: list[PendingCall]) -> list[Decision]:
    return [Done(call) for call in calls if call.one_way]


def _waiting_for_replies(calls: Iterable[PendingCall]) -> list[PendingCall]:
    return [call for call in calls if call.times_written and not call.one_way]


def _executed(call: PendingCall) -> Executed:
    """Return whether a request ran whose last copy did not: an earlier copy may have."""
    return "no" if call.times_written == 1 else "unknown"


def _after_refusal(call: PendingCall) -> SendAgain:
    call.times_refused += 1
    return SendAgain(call, backoff(call.times_refused, _FIRST_PAUSE, _LONGEST_PAUSE))


def _refused_for_good(call: PendingCall, error: QAMConnectionException | None) -> End:
    failure = QAMConnectionException(
        f"the broker refused the request of {call.method_name}(): {error}", executed=_executed(call)
    )
    failure.__cause__ = error
    return End(call, failure)


def _end_of_sent(
    call: PendingCall, why: str, cause: QAMConnectionException | None = None
) -> Decision:
    failure = QAMConnectionException(f"{call.method_name}() was sent, {why}")
    failure.__cause__ = cause
    return End(call, failure)
