"""What becomes of calls, told as a story: with a clock of its own, without a thread or a socket."""

from typing import Any

import pytest

from qam._broker.credentials import AMQPCredentials
from qam._broker.fates import Fate, UnderWay
from qam._broker.later import Later
from qam._client.call_fates import (
    CallFates,
    Done,
    End,
    SendAgain,
    no_time_left,
    note_written,
    queue_is_full,
    thread_ended,
    timed_out,
)
from qam._client.pending_call import PendingCall
from qam._common.deadline import Deadline
from qam._common.served_call import InheritedDeadline
from qam.exceptions import (
    QAMConnectionException,
    QAMException,
    QAMServerNotFoundException,
    QAMTimeoutException,
)

LOST = QAMConnectionException("the connection was lost")


def call(number: int = 1, times_written: int = 1) -> PendingCall:
    return PendingCall(number, number, f"call_{number}", b"body", times_written=times_written)


def fates(persistent: bool = True) -> CallFates:
    return CallFates("server", AMQPCredentials("broker"), persistent)


class Client:
    """What a proxy does with its calls, its network and its clock in the hands of the test."""

    def __init__(self, *calls: PendingCall, server_keeps_record: bool = True) -> None:
        self.now = 0.0
        self.queue: list[PendingCall] = []
        self.open: list[PendingCall] = []
        self.unconfirmed: list[PendingCall] = []
        self.written: list[tuple[str, int | None]] = []
        self.outcomes: dict[str, QAMException] = {}
        self.server_keeps_record = server_keeps_record
        self._fates, self._under_way = fates(), UnderWay()
        self._later: Later[PendingCall] = Later()
        for each in calls:
            self.add(each)

    def add(self, call: PendingCall) -> None:
        """Another call is made."""
        self.queue.append(call)
        self.open.append(call)

    def write(self) -> None:
        """Write what may be written now."""
        self.queue[:0] = self._later.take_due(self.now)
        while self.queue and not self._under_way.has_to_wait:
            batch = self.queue[: 1 if self._under_way.one_at_a_time else None]
            del self.queue[: len(batch)]
            self._under_way.written(len(batch))
            for each in batch:
                each.times_written += 1
                self.written.append((each.method_name, note_written(each, self.now)))
            self.unconfirmed += batch

    def hear(self, fate: Fate, *calls: PendingCall) -> None:
        """The broker says what became of *calls*."""
        self._under_way.ended(fate, len(calls))
        self.unconfirmed = [each for each in self.unconfirmed if each not in calls]
        self._carry_out(fate, list(calls))

    def lose(self, by_message: bool = False) -> None:
        """The connection is lost."""
        calls, self.unconfirmed = self.unconfirmed, []
        fate = self._under_way.lost(len(calls), by_message)
        again = self._carry_out(fate, calls)
        if by_message and fate is Fate.UNKNOWN:
            self._under_way.suspect(len(again))
        self.queue[:0] = again

    def _carry_out(self, fate: Fate, calls: list[PendingCall]) -> list[PendingCall]:
        again = []
        for decision in self._fates.decide(fate, calls, self.server_keeps_record, LOST):
            match decision:
                case End(ended, failure):
                    self.outcomes[ended.method_name] = failure
                    self.open.remove(ended)
                case SendAgain(later, after) if after:
                    self._later.add(later, self.now + after)
                case SendAgain(first):
                    again.append(first)
        return again


def test_the_story_of_three_calls_of_which_one_closes_the_channel() -> None:
    # given three calls, two of them written, when the broker does not take the first
    good, bad, late = call(1, 0), call(2, 0), call(3, 0)
    client = Client(good, bad)
    client.write()
    client.now = 1.0
    client.hear(Fate.REFUSED, good)
    assert client.unconfirmed == [bad]
    client.write()
    assert client.written == [("call_1", None), ("call_2", None)]

    # then the one that was refused is sent again after its pause, marked with its age
    client.now = 1.1
    client.write()
    assert client.written[2:] == [("call_1", 1100)]

    # when the channel is closed because of one of the two
    client.lose(by_message=True)
    client.add(late)
    client.now = 2.0
    client.write()

    # then they go one at a time, and what came later waits behind them
    assert client.written[3:] == [("call_2", 2000)]
    client.write()
    assert client.unconfirmed == [bad]

    # when it is closed again
    client.lose(by_message=True)

    # then the culprit is found, and ends alone; the others are written and confirmed
    assert list(client.outcomes) == ["call_2"]
    assert isinstance(client.outcomes["call_2"], QAMConnectionException)
    client.write()
    assert client.unconfirmed == [good]
    client.hear(Fate.CONFIRMED, good)
    client.write()
    client.hear(Fate.CONFIRMED, late)
    assert client.written[4:] == [("call_1", 2000), ("call_3", None)]
    assert client.open == [good, late]
    assert good.confirmed
    assert late.confirmed


def test_the_story_of_a_server_that_keeps_no_record() -> None:
    # given calls that were written for the first time
    confirmed, refused, unknown = (call(number, 0) for number in (1, 2, 3))
    client = Client(confirmed, refused, unknown, server_keeps_record=False)
    client.write()

    # when
    client.hear(Fate.CONFIRMED, confirmed)
    client.hear(Fate.REFUSED, refused)
    client.lose()
    client.now = 60.0
    client.write()

    # then nothing was written twice
    assert client.written == [("call_1", None), ("call_2", None), ("call_3", None)]
    assert client.open == [confirmed]
    assert {name: failure.executed for name, failure in client.outcomes.items()} == {
        "call_2": "unknown",
        "call_3": "unknown",
    }
    assert client.outcomes["call_3"].__cause__ is LOST


@pytest.mark.parametrize(("times_written", "executed"), [(1, "no"), (2, "unknown")])
@pytest.mark.parametrize(
    ("fate", "kind"),
    [(Fate.RETURNED, QAMServerNotFoundException), (Fate.CULPRIT, QAMConnectionException)],
)
def test_a_call_surely_did_not_run_only_if_it_was_written_once(
    fate: Fate, kind: type[QAMException], times_written: int, executed: str
) -> None:
    [decision] = fates().decide(fate, [call(1, times_written)], None, LOST)

    assert isinstance(decision, End)
    assert type(decision.failure) is kind
    assert decision.failure.executed == executed


def test_a_request_that_comes_back_is_sent_again_if_its_server_was_heard() -> None:
    # given a server that has answered, whose queue is gone
    returned = call()
    returned.times_written = 1
    for _ in range(100):
        [decision] = fates().decide(Fate.RETURNED, [returned], True)
        assert isinstance(decision, SendAgain)
        assert 0 < decision.after <= 1.0
        # then no copy of it is anywhere
        assert returned.times_written == 0
        returned.times_written = 1
    # and it is given up after a while
    [decision] = fates().decide(Fate.RETURNED, [returned], True)
    assert isinstance(decision, End)
    assert isinstance(decision.failure, QAMServerNotFoundException)


def test_a_copy_that_comes_back_leaves_the_first_one_where_it_is() -> None:
    returned = call(times_written=2)
    [decision] = fates().decide(Fate.RETURNED, [returned], True)
    assert isinstance(decision, SendAgain)
    assert returned.times_written == 2


def test_a_request_that_is_refused_again_and_again_waits_longer_each_time_and_never_long() -> None:
    refused = call()
    pauses: list[float] = []
    for _ in range(8):
        [decision] = fates().decide(Fate.REFUSED, [refused], True)
        assert isinstance(decision, SendAgain)
        pauses.append(decision.after)

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0]


def test_a_request_that_is_refused_for_itself_says_why() -> None:
    [decision] = fates().decide(Fate.CULPRIT, [call()], True, LOST)

    assert isinstance(decision, End)
    assert (
        str(decision.failure)
        == "the broker refused the request of call_1(): the connection was lost"
    )
    assert decision.failure.__cause__ is LOST


def test_that_a_request_is_written_says_nothing_of_it() -> None:
    assert fates().decide(Fate.WRITTEN, [call()], False) == []


def test_a_copy_is_not_confirmed_because_the_first_was() -> None:
    twice = call(1, 1)
    note_written(twice, 5.0)
    fates().decide(Fate.CONFIRMED, [twice], True)
    assert twice.confirmed

    twice.times_written = 2

    assert note_written(twice, 5.0625) == 62
    assert not twice.confirmed
    assert twice.written_at == 5.0


@pytest.mark.parametrize(
    ("persistent", "keeps_record", "sent_again"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_after_the_loss_of_replies_only_a_record_is_asked_again(
    persistent: bool, keeps_record: bool, sent_again: bool
) -> None:
    sent, waiting = call(1), call(2, times_written=0)

    [decision] = fates(persistent).replies_lost([sent, waiting], keeps_record)

    assert decision.call is sent
    if sent_again:
        assert decision == SendAgain(sent)
    else:
        assert isinstance(decision, End)
        assert decision.failure.executed == "unknown"
        assert "reply queue was deleted" in str(decision.failure)


def test_the_loss_of_a_connection_ends_what_was_sent_where_nobody_keeps_it() -> None:
    sent, waiting = call(1), call(2, times_written=0)

    assert fates(persistent=True).connection_lost([sent, waiting], LOST) == []
    [decision] = fates(persistent=False).connection_lost([sent, waiting], LOST)

    assert isinstance(decision, End)
    assert decision.call is sent
    assert decision.failure.executed == "unknown"
    assert decision.failure.__cause__ is LOST


@pytest.mark.parametrize(
    ("call_", "facts", "phase"),
    [
        (call(1, 0), (True, True, False), "have not been written"),
        (call(1, 0), (True, True, True), "an alarm"),
        (call(1, 0), (False, True, False), "no connection"),
        (call(1, 0), (True, False, False), "no connection"),
        (
            call(1, 1),
            (True, False, False),
            "the request was sent, and the broker has not confirmed",
        ),
        (call(1, 1), (True, False, True), "an alarm"),
        (call(1, 1), (False, False, True), "no connection"),
    ],
)
def test_the_phase_of_a_call_is_told(
    call_: PendingCall, facts: tuple[bool, bool, bool], phase: str
) -> None:
    assert phase in fates().phase(call_, *facts)


def test_what_is_confirmed_waits_for_a_server_whatever_else_there_is() -> None:
    confirmed = call()
    confirmed.confirmed = True

    assert "the request is queued or running" in fates().phase(confirmed, False, False, True)


def test_a_call_that_waits_for_a_connection_says_why_there_is_none() -> None:
    phase = fates().phase(call(), False, True, False, "can't connect: nothing listens there")
    assert phase == "there is no connection to the broker (can't connect: nothing listens there)"


def test_where_no_confirm_is_asked_for_none_is_missing() -> None:
    assert fates(persistent=False).phase(call(), True, True, False) == "the request was sent"


@pytest.mark.parametrize(("withdrawn", "executed"), [(True, "no"), (False, "unknown")])
def test_a_call_whose_time_is_up_says_how_long_it_had_and_in_which_phase_it_was(
    withdrawn: bool, executed: str
) -> None:
    late = call()
    late.deadline = Deadline(0.2)

    failure = timed_out(late, withdrawn, "there is no connection")

    assert isinstance(failure, QAMTimeoutException)
    assert "call_1() timed out after 0.2 s; there is no connection; the" in str(failure)
    assert ("may still run" in str(failure)) is not withdrawn
    assert failure.executed == executed


def test_a_call_whose_request_was_confirmed_may_still_run_after_its_time_is_up() -> None:
    late = call()
    late.deadline, late.confirmed = Deadline(0.2), True

    failure = timed_out(late, False, fates().phase(late, True, True, False))

    assert str(failure) == (
        "call_1() timed out after 0.2 s; the request is queued or running, and may still run"
    )


def test_a_call_without_room_did_not_run() -> None:
    failure: Any = queue_is_full(call(), 7, "there is no connection")

    assert failure.executed == "no"
    assert "max_queued=7 calls are queued already, and there is no connection" in str(failure)


@pytest.mark.parametrize(
    ("error", "words"), [(ValueError("a bug"), "a bug"), (None, "ended; make")]
)
def test_a_call_of_a_proxy_that_lost_a_thread_says_why(
    error: BaseException | None, words: str
) -> None:
    failure = thread_ended(error, "unknown")

    assert failure.executed == "unknown"
    assert failure.__cause__ is error
    assert words in str(failure)


def test_that_a_memory_broker_is_inside_one_process_is_told() -> None:
    in_memory = CallFates("server", AMQPCredentials("memory://shop"), True)

    hint = "a memory:// broker is inside one process, and no other process reaches it"
    assert hint in str(in_memory.server_not_found("no"))
    assert hint not in str(fates().server_not_found("no"))


# --- calls for whose replies nobody waits, and requests that come back ---------


@pytest.mark.parametrize("fate", [Fate.CONFIRMED, Fate.WRITTEN])
def test_a_one_way_call_is_done_once_the_broker_has_it(fate: Fate) -> None:
    one_way, other = call(1), call(2)
    one_way.one_way = True

    assert fates().decide(fate, [one_way, other], True) == [Done(one_way)]


def test_a_transient_request_that_comes_back_is_sent_again_while_its_server_is_waited_for() -> None:
    waiting = call()
    waiting.awaits_server_until = 10.0

    assert isinstance(fates(persistent=False).unroutable(waiting, now=9.0), SendAgain)
    ended = fates(persistent=False).unroutable(waiting, now=10.0)

    assert isinstance(ended, End)
    assert isinstance(ended.failure, QAMServerNotFoundException)
    assert ended.failure.executed == "no"


def test_a_timeout_says_that_the_request_came_back() -> None:
    came_back = call(times_written=0)
    came_back.times_refused = 1

    assert "its request came back" in fates().phase(came_back, True, True, False, "")


def test_a_call_without_any_time_was_not_sent() -> None:
    failure = no_time_left("add", Deadline(2.0))

    assert str(failure) == "add() timed out after 2 s; it was not sent"
    assert failure.executed == "no"


def test_a_timeout_says_whose_time_it_was() -> None:
    served = InheritedDeadline(100.0, "order")

    text = str(no_time_left("add", served))

    assert text.endswith("the time that was left to the caller of order(); it was not sent")


def test_a_first_attempt_to_connect_that_failed_is_told_as_that() -> None:
    failure = thread_ended(LOST, "no")

    assert type(failure) is QAMConnectionException
    assert str(failure) == str(LOST)
    assert failure.executed == "no"
    assert failure.__cause__ is LOST
