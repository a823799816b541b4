"""What becomes of requests, decided on a clock that the tests move: no thread, no socket."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qam._server
from qam._broker.messages import Delivery, TooLarge
from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._protocol.entities import reply_routing_key
from qam._protocol.properties import GIVEN_BACK, RESENT
from qam._server.call import Answer, Call
from qam._server.intake import Decision, Intake
from qam._server.known_siblings import GRACE
from qam._server.open_deliveries import UNSAFE_ACKS
from qam._server.sibling_words import Word, decode, encode
from tests.server.group import Broker, Clock

REPLY_TO = reply_routing_key("client")
ANSWER = Answer(REPLY_TO, b"done")

#: The modules of a server that decide.
DECIDING = [
    *("intake", "closing", "record", "held_back", "open_deliveries", "prefetch", "call"),
    *("siblings", "known_siblings", "sibling_questions", "sibling_outbox", "sibling_words"),
    *("membership", "judgement", "queue_inspections"),
]
#: What a decision has to do without.
WORLD = {
    *("time", "datetime", "random", "uuid", "secrets", "os", "sys", "logging"),
    *("threading", "queue", "concurrent", "socket", "select", "selectors", "subprocess"),
}


@pytest.mark.parametrize("module", DECIDING)
def test_what_decides_knows_no_time_no_thread_and_no_io(module: str) -> None:
    source = (Path(qam._server.__file__).parent / f"{module}.py").read_text()
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported, "it would be strange if it imported nothing"
    assert not imported & WORLD


# --- a whole story -------------------------------------------------------------------------


def test_a_story_of_two_servers_in_which_everything_runs_once() -> None:
    # given two servers that share the work
    broker = Broker()
    one, other = broker.start("a"), broker.start("b")

    # when a request runs at one, whose connection is cut
    broker.send(1)
    broker.run()
    first, second = (one, other) if one.waiting else (other, one)
    first.begin()
    first.cut()
    # then the other one gets it, marked, and asks before it does anything
    broker.run()
    assert second.waiting == []
    assert second.intake.siblings.is_judging(CallKey(REPLY_TO, "client:1"))
    # and learns in time that it is the first one's, which answers it
    broker.clock.now += GRACE / 2
    first.connect()
    broker.run()
    # for which it keeps its copy
    assert len(second.unacknowledged) == second.intake.siblings.held == 1
    first.answer(b"one")
    broker.run()
    assert broker.replies == [("client:1", b"one")]
    assert second.unacknowledged == {}

    # when a server is killed in the middle of a method that may run again
    broker.send(2)
    broker.run()
    killed, heir = (first, second) if first.waiting else (second, first)
    killed.begin()
    killed.kill()
    broker.run()
    assert heir.waiting == []
    # then the other one waits for its word in vain
    broker.wait(GRACE - 0.1)
    assert heir.waiting == []
    broker.wait(0.2)
    assert [each.lost for each in heir.waiting] == [True]
    # and publishes it anew; that comes while the old one is not acknowledged, and has to wait
    old = heir.pass_on()
    broker.run()
    assert broker.queue.__len__() == 0
    assert heir.waiting == []
    assert len(heir.unacknowledged) == 2
    # until the new one is confirmed and the old one acknowledged
    heir.settle([old])
    broker.run()
    assert [each.runs for each in heir.waiting] == [2]
    heir.begin()
    heir.answer(b"two")
    assert broker.replies[1:] == [("client:2", b"two")]
    assert heir.unacknowledged == {}

    # when the one that is left closes, with one request that runs and one that waits
    broker.send(3)
    broker.send(4, time_to_live=60)
    broker.run()
    heir.begin()
    successor = broker.start("c")
    heir.close(timeout=5)
    broker.run()
    assert not heir.consuming
    assert (len(heir.running), len(heir.waiting)) == (1, 1)
    broker.wait(5)
    # then it gives back what it did not start, with what is left of its time, and that runs
    # without a question at the next one
    [given_back] = successor.waiting
    assert given_back.delivery.headers == {GIVEN_BACK: True}
    assert given_back.delivery.time_to_live == 55
    assert not given_back.marked
    successor.begin()
    successor.answer(b"four")
    assert broker.replies[2:] == [("client:4", b"four")]
    # and ends, although its method still runs; that request is delivered again
    assert not heir.ended
    broker.wait(2)
    assert heir.ended
    broker.wait(GRACE)
    assert [each.delivery.correlation_id for each in successor.waiting] == ["client:3"]
    successor.answer_as_lost()
    assert broker.replies[3:] == [("client:3", b"lost")]

    # and nothing was begun twice but what may be
    begun = [*one.begun, *other.begun, *successor.begun]
    assert sorted(begun) == ["client:1", "client:2", "client:2", "client:3", "client:4"]
    assert successor.unacknowledged == {}
    assert not broker.queue


def test_a_server_that_has_answered_all_says_goodbye_and_is_not_missed() -> None:
    broker = Broker()
    one, other = broker.start("a"), broker.start("b")
    # when
    one.close(timeout=5)
    broker.run()
    # then
    assert one.ended
    for _ in range(2):  # the broker has its last acks by now, and the other one looks at the queue
        broker.wait(GRACE)
    # and when the broker marks a request, the other one runs it at once
    broker.send(1)
    broker.run()
    assert len(other.waiting) == 1
    other.cut()
    assert other.waiting == []
    other.connect()
    broker.run()
    other.begin()
    other.answer()
    assert broker.replies == [("client:1", b"done")]


def test_a_request_that_is_sent_again_to_another_is_answered_by_the_one_that_answered_it() -> None:
    # given two servers, one of which has answered a request
    broker = Broker()
    one, other = broker.start("a"), broker.start("b")
    broker.send(1)
    broker.run()
    answered, second = (one, other) if one.waiting else (other, one)
    answered.begin()
    answered.answer(b"one")
    # when its client asks again, and the other one receives that
    answered.consuming = False
    broker.send(1, **{RESENT: 5})
    broker.run()
    # then the reply is sent once more by the one that has it, and nothing runs twice
    assert broker.replies == [("client:1", b"one")] * 2
    assert second.waiting == []
    assert second.unacknowledged == {}
    assert (answered.begun, second.begun) == (["client:1"], [])


def test_a_request_that_is_sent_again_to_another_while_it_runs_is_answered_once() -> None:
    # given two servers, with one of which a request runs
    broker = Broker()
    one, other = broker.start("a"), broker.start("b")
    broker.send(1)
    broker.run()
    first, second = (one, other) if one.waiting else (other, one)
    first.begin()
    # when its client asks again, and the other one receives that
    first.consuming = False
    broker.send(1, **{RESENT: 5})
    broker.run()
    # then it leaves that to the first one
    assert broker.replies == []
    assert second.waiting == []
    first.answer(b"one")
    broker.run()
    assert broker.replies == [("client:1", b"one")]
    assert second.unacknowledged == {}


# --- each decision -------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def intake(clock: Clock) -> Intake:
    """Of a server that is alone, and vouches for whatever comes."""
    broker = Broker()
    broker.clock = clock
    return broker.start("a").intake


_tag = 1000


def next_tag() -> int:
    """A delivery tag that no other call has."""
    global _tag
    _tag += 1
    return _tag


def request(
    number: int = 1, redelivered: bool = False, intake: Intake | None = None, **headers: Any
) -> Call:
    """A call with a delivery tag of its own."""
    properties = {
        "correlation_id": f"client:{number}",
        "reply_to": REPLY_TO,
        "headers": {f"x-qam-{name.replace('_', '-')}": value for name, value in headers.items()},
    }
    delivery = Delivery(b"body", next_tag(), redelivered, properties)
    return Call(delivery, connection_number=intake.connection_number if intake else 1)


def anonymous(
    body: bytes = b"body", redelivered: bool = False, intake: Intake | None = None
) -> Call:
    """A call of a 0.2.x client."""
    number = intake.connection_number if intake else 1
    return Call(Delivery(body, next_tag(), redelivered), connection_number=number)


def reconnect(intake: Intake) -> None:
    intake.lost([], by_message=False)
    intake.opened(without_gap=True)
    hear_own(intake)


def answered(intake: Intake, call: Call, answer: Answer | None = ANSWER) -> Call:
    assert intake.received(call) is Decision.RUN
    call.answer = answer
    assert intake.settled([call]) == []
    return call


def hear(intake: Intake, word: Word) -> None:
    intake.heard(Delivery(encode(word), next_tag()))


def hear_own(intake: Intake) -> list[Word]:
    """Have it hear what it says itself; return that."""
    words = [decode(body) for body in intake.siblings.take_messages()]
    for word in words:
        assert word is not None
        hear(intake, word)
    return [word for word in words if word is not None]


def acknowledged(intake: Intake, *calls: Call) -> list[Call]:
    """Those of *calls* that are acknowledged now."""
    acks = intake.take_acks()
    return [
        call
        for call in calls
        if any(
            each == call.delivery.delivery_tag or (multiple and each > call.delivery.delivery_tag)
            for each, multiple in acks
        )
    ]


class TestARequestThatCame:
    def test_runs_if_nobody_can_have_had_it(self, intake: Intake) -> None:
        call = request()
        assert intake.received(call) is Decision.RUN
        assert not call.lost
        assert not intake.is_idle
        assert intake.take_acks() == []

    def test_is_acknowledged_once_it_is_settled(self, intake: Intake) -> None:
        call = answered(intake, request())
        assert acknowledged(intake, call) == [call]
        assert intake.is_idle

    def test_waits_for_the_end_of_the_same_one_that_runs_and_gets_its_answer(
        self, intake: Intake
    ) -> None:
        # given
        first, again = request(), request(redelivered=True)
        intake.received(first)
        # when
        assert intake.received(again) is Decision.NOTHING
        first.answer = ANSWER
        # then
        assert intake.settled([first]) == [(Decision.ANSWER, again)]
        assert again.answer == ANSWER
        assert acknowledged(intake, first, again) == [first]
        intake.settled([again])
        assert acknowledged(intake, again) == [again]

    def test_is_acknowledged_with_the_same_one_that_runs_if_that_has_no_answer(
        self, intake: Intake
    ) -> None:
        first, again = request(), request(redelivered=True)
        intake.received(first)
        intake.received(again)
        assert intake.settled([first]) == [(Decision.NOTHING, again)]
        assert acknowledged(intake, first, again) == [first, again]
        assert intake.is_idle

    def test_is_answered_from_the_record(self, intake: Intake) -> None:
        answered(intake, request())
        again = request(resent=5)
        assert intake.received(again) is Decision.ANSWER
        assert again.answer == ANSWER
        # and nobody else is asked for that
        assert hear_own(intake) == []

    def test_is_asked_about_as_the_next_run_if_it_was_passed_on(self, intake: Intake) -> None:
        # given one that this server had to publish anew
        hear(intake, Word("hello", "b", consumes=True, number=1))
        answered(intake, request(), answer=None)
        intake.take_acks()
        next_run = CallKey(REPLY_TO, "client:1", 2)
        # when
        again = request(resent=5)
        assert intake.received(again) is Decision.NOTHING
        # then whoever has the next run is asked for it, and answers
        [*_, word] = hear_own(intake)
        assert (word.kind, word.calls) == ("ask", {next_run: True})
        hear(intake, Word("answer", "b", to="a", calls={next_run: "done"}))
        assert intake.take_judged() == []
        assert acknowledged(intake, again) == [again]

    def test_is_lost_if_whoever_had_the_next_run_is_gone(
        self, intake: Intake, clock: Clock
    ) -> None:
        # given one that was passed on by this server, and another that has left since then
        hear(intake, Word("hello", "b", consumes=True, number=1))
        answered(intake, request(), answer=None)
        hear(intake, Word("bye", "b"))
        # when its client asks for the answer
        again = request(resent=5)
        assert intake.received(again) is Decision.NOTHING
        hear_own(intake)
        clock.now += GRACE
        # then it is not silently dropped
        assert intake.take_judged() == [(Decision.RUN, again)]
        assert (again.lost, again.runs) == (True, 2)

    def test_is_followed_from_run_to_run(self, intake: Intake) -> None:
        # given one that another server has passed on
        hear(intake, Word("hello", "b", consumes=True, number=1))
        first = CallKey(REPLY_TO, "client:1")
        call = request(resent=5)
        intake.received(call)
        hear_own(intake)
        # when that one says so
        hear(intake, Word("answer", "b", to="a", calls={first: "again"}))
        # then the next run is asked for
        assert intake.take_judged() == [(Decision.NOTHING, call)]
        [word] = hear_own(intake)
        assert (word.kind, word.calls) == ("ask", {first.next_run: True})
        assert acknowledged(intake, call) == []

    def test_is_acknowledged_if_it_was_passed_on_and_nobody_asks(self, intake: Intake) -> None:
        answered(intake, request(), answer=None)
        again = request(redelivered=True)
        assert intake.received(again) is Decision.NOTHING
        assert hear_own(intake) == []
        assert acknowledged(intake, again) == [again]

    @pytest.mark.parametrize("mark", [{"redelivered": True}, {"resent": 5}])
    def test_is_asked_about_if_it_is_marked(self, intake: Intake, mark: dict[str, Any]) -> None:
        answered(intake, request(1))  # the record reaches back to the first call of the client
        call = request(2, **mark)
        assert intake.received(call) is Decision.NOTHING
        assert intake.take_judged() == []
        # when all others, of whom there are none, had time to speak
        hear_own(intake)
        assert intake.take_judged() == [(Decision.RUN, call)]
        assert not call.lost

    def test_is_lost_if_somebody_may_have_had_it(self, intake: Intake, clock: Clock) -> None:
        # given a client of whose earlier calls nothing is known
        call = request(7, resent=5)
        intake.received(call)
        hear_own(intake)
        # when nobody who was there before came back
        clock.now += GRACE
        # then
        assert intake.take_judged() == [(Decision.RUN, call)]
        assert call.lost

    def test_is_acknowledged_if_it_is_anothers(self, intake: Intake) -> None:
        hear(intake, Word("hello", "b", consumes=True, number=1))
        calls = [request(redelivered=True), request(redelivered=True)]
        for call in calls:
            intake.received(call)
        hear_own(intake)
        # when
        hear(intake, Word("answer", "b", to="a", calls={calls[0].key: "mine"}))
        # then no copy of it runs here, and each is kept until the other one has answered it
        assert intake.take_judged() == []
        assert acknowledged(intake, *calls) == []
        assert intake.is_idle
        hear(intake, Word("done", "b", calls={calls[0].key: True}))
        assert intake.take_judged() == []
        assert acknowledged(intake, *calls) == calls
        # and so is one that comes later
        assert intake.received(late := request(redelivered=True)) is Decision.NOTHING
        assert intake.take_judged() == []
        assert acknowledged(intake, late) == [late]
        assert intake.is_idle

    def test_is_judged_once_for_all_its_copies(self, intake: Intake) -> None:
        calls = [request(redelivered=True), request()]
        for call in calls:
            assert intake.received(call) is Decision.NOTHING
        hear_own(intake)
        assert intake.take_judged() == [(Decision.RUN, calls[0])]
        assert acknowledged(intake, *calls) == [calls[1]]

    def test_is_asked_about_if_another_server_asked_before(self, intake: Intake) -> None:
        hear(intake, Word("ask", "b", calls={CallKey(REPLY_TO, "client:1"): False}))
        assert intake.received(request()) is Decision.NOTHING
        assert intake.siblings.is_judging(CallKey(REPLY_TO, "client:1"))

    def test_is_refused_if_it_is_too_large_and_its_delivery_dropped(self, intake: Intake) -> None:
        call = request()
        call.delivery.too_large = TooLarge(2, 1)
        assert intake.received(call) is Decision.REFUSE
        assert intake.settled([call]) == [(Decision.REJECT, call)]
        assert intake.take_acks() == []
        assert intake.is_idle

    @pytest.mark.parametrize("mark", [{"given_back": True}, {"runs": 2}])
    def test_that_another_server_had_proves_nothing_of_its_client(
        self, intake: Intake, mark: dict[str, Any]
    ) -> None:
        # given one that another server gave back, or published anew to be run again, and the
        # later ones of its client may have run there
        answered(intake, request(3, **mark))
        # when a later one is sent again
        call = request(4, resent=5)
        intake.received(call)
        hear_own(intake)
        # then nobody can say that it did not run
        assert intake.take_judged() == []


class TestARequestThatRunsAgain:
    def test_waits_until_the_broker_has_the_ack_of_what_it_replaces(self, intake: Intake) -> None:
        # given a request that is lost, and is published anew
        lost = request(7, resent=5)
        hear(intake, Word("hello", "b", consumes=True, number=1))
        intake.received(lost)
        hear_own(intake)
        hear(intake, Word("answer", "b", to="a", calls={CallKey(REPLY_TO, "client:7"): "lost"}))
        assert intake.take_judged() == [(Decision.RUN, lost)]
        assert lost.lost
        # when it comes back before the old one is settled
        again = request(7, runs=2)
        assert intake.received(again) is Decision.NOTHING
        assert not intake.waits_for_acks
        intake.settled([lost])
        # then it runs once the broker was asked whether it has the ack
        assert acknowledged(intake, lost, again) == [lost]
        assert intake.waits_for_acks
        assert intake.acks_arrived() == [(Decision.RUN, again)]
        assert not intake.waits_for_acks

    def test_is_given_back_if_it_still_waits_when_the_server_closes(self, intake: Intake) -> None:
        hear(intake, Word("here", "b", consumes=True))
        lost = request(6, redelivered=True)
        intake.received(lost)
        hear_own(intake)
        hear(intake, Word("answer", "b", calls={lost.key: "lost"}, to="a"))
        assert intake.take_judged() == [(Decision.RUN, lost)]
        again = request(7, runs=2)
        intake.received(again)
        assert intake.take_held_back() == [again]


class TestARequestWithoutACorrelationId:
    """As a 0.2.x client sends it: its body is all by which it can be recognized."""

    def test_runs_whatever_was_answered_before(self, intake: Intake) -> None:
        for _ in range(3):
            assert intake.received(anonymous()) is Decision.RUN
        first = answered(intake, anonymous(b"other"))
        assert intake.received(anonymous(b"other")) is Decision.RUN
        assert acknowledged(intake, first) == [first]

    def test_that_comes_again_while_it_runs_is_answered_once(self, intake: Intake) -> None:
        # given one whose delivery went with its connection
        first = anonymous()
        intake.received(first)
        reconnect(intake)
        # when its copy comes, and it has run
        copy = anonymous(redelivered=True, intake=intake)
        assert intake.received(copy) is Decision.NOTHING
        first.answer = ANSWER
        # then the copy is acknowledged, and not answered
        assert intake.settled([first]) == [(Decision.NOTHING, copy)]
        assert acknowledged(intake, copy) == [copy]

    def test_that_comes_again_after_it_ran_is_not_answered_again(
        self, intake: Intake, clock: Clock
    ) -> None:
        # given one that was answered while its connection was away, for a while
        first = anonymous()
        intake.received(first)
        intake.lost([], by_message=False)
        first.answer = ANSWER
        intake.settled([first])
        clock.now += 60
        intake.opened(without_gap=True)
        hear_own(intake)
        # when
        copy = anonymous(redelivered=True, intake=intake)
        assert intake.received(copy) is Decision.NOTHING
        # then
        assert acknowledged(intake, copy) == [copy]
        assert intake.is_idle

    def test_is_another_one_once_the_broker_has_the_ack_of_the_first(
        self, intake: Intake, clock: Clock
    ) -> None:
        answered(intake, anonymous())
        clock.now += 6
        answered(intake, anonymous(b"other"))  # it looks at those that ended before
        # when one with the same arguments comes from a server that died
        intake.received(again := anonymous(redelivered=True))
        # then it is judged as any other
        assert intake.siblings.is_judging(again.key)
        hear_own(intake)
        assert intake.take_judged() == [(Decision.RUN, again)]

    def test_nor_is_a_later_one_of_a_client_that_numbers_from_1_given_an_old_answer(
        self, intake: Intake, clock: Clock
    ) -> None:
        # given such a client, whose first request was answered, and which is started again
        def first_request(**options: Any) -> Call:
            properties = {"correlation_id": "1", "reply_to": "its queue"}
            return Call(Delivery(b"body", next_tag(), properties=properties, **options), 1)

        answered(intake, first_request())
        clock.now += 6
        answered(intake, anonymous(b"other"))  # it looks at those that ended before
        # when its first request comes again, from a server that died
        intake.received(again := first_request(redelivered=True))
        # then it is judged, and not answered from the record
        hear_own(intake)
        assert intake.take_judged() == [(Decision.RUN, again)]

    def test_is_judged_by_all_servers_if_it_was_delivered_before(self, intake: Intake) -> None:
        # given a server that has it, and this one, which gets it after a cut
        call = anonymous(redelivered=True)
        hear(intake, Word("here", "b", consumes=True))
        assert intake.received(call) is Decision.NOTHING
        hear_own(intake)
        # when
        hear(intake, Word("answer", "b", calls={call.key: "mine"}, to="a"))
        hear(intake, Word("done", "b", calls={call.key: True}))
        # then its client gets one reply
        assert intake.take_judged() == []
        assert acknowledged(intake, call) == [call]
        # and a later call with the same arguments is another one
        assert intake.received(later := anonymous(redelivered=True)) is Decision.NOTHING
        hear_own(intake)
        hear(intake, Word("answer", "b", calls={call.key: "never"}, to="a"))
        assert intake.take_judged() == [(Decision.RUN, later)]

    def test_may_come_twice_while_the_first_one_runs(self, intake: Intake) -> None:
        # given one that runs, and the same once more, which waits for a worker
        first, second = anonymous(), anonymous()
        for call in (first, second):
            assert intake.received(call) is Decision.RUN
        # when their connection is lost
        intake.lost([second], by_message=False)
        intake.opened(without_gap=True)
        hear_own(intake)
        # then what comes again does not run beside the first one
        copies = [anonymous(redelivered=True, intake=intake) for _ in range(2)]
        assert [intake.received(each) for each in copies] == [Decision.NOTHING] * 2
        assert intake.take_judged() == []

    def test_is_another_one_later_although_nothing_came_meanwhile(
        self, intake: Intake, clock: Clock
    ) -> None:
        answered(intake, anonymous())
        clock.now += UNSAFE_ACKS + 0.1
        intake.received(again := anonymous(redelivered=True))
        hear_own(intake)
        assert intake.take_judged() == [(Decision.RUN, again)]

    def test_is_another_one_by_then_for_who_asks_about_it(
        self, intake: Intake, clock: Clock
    ) -> None:
        first = answered(intake, anonymous())
        clock.now += UNSAFE_ACKS + 0.1
        # when a server that has one with the same arguments asks about it
        hear(intake, Word("ask", "b", calls={first.key: False}))
        # then this one does not say that it has answered that
        said = [word.calls for word in hear_own(intake) if word.kind == "answer"]
        assert said == [{first.key: "never"}]

    def test_is_known_for_as_long_as_the_loss_of_a_connection_may_go_unnoticed(
        self, clock: Clock
    ) -> None:
        # given a network that is silent, so that the ack of an answered request gets lost
        intake = Intake("a", clock, RareWarnings(get_logger("qam.qam_server"), clock), unsafe=30.0)
        intake.opened(without_gap=False)
        answered(intake, anonymous())
        clock.now += 25.0
        # when that shows, and the broker delivers it again
        reconnect(intake)
        intake.received(copy := anonymous(redelivered=True, intake=intake))
        # then it does not run again
        assert acknowledged(intake, copy) == [copy]


class TestALostConnection:
    @pytest.mark.parametrize("make", [lambda: request(), lambda: anonymous()])
    def test_does_not_end_what_runs(self, intake: Intake, make: Callable[[], Call]) -> None:
        # given a method that runs, and has no delivery any more
        call = make()
        intake.received(call)
        reconnect(intake)
        assert not intake.is_idle
        assert intake.at_hand == [call]
        # when it is answered
        intake.settled([call])
        intake.take_acks()
        assert intake.is_idle

    def test_by_a_long_method_concerns_the_one_that_came_first(self, intake: Intake) -> None:
        calls = [request(number) for number in (1, 2, 3)]
        for call, arrived in zip(calls, (5.0, 3.0, 4.0), strict=True):
            call.arrived = arrived
            intake.received(call)
        intake.lost([], by_message=True)
        assert [each.outlives_its_delivery for each in calls] == [False, True, False]
        # when the channel is closed again, it is for another one
        intake.opened(without_gap=True)
        intake.lost([], by_message=True)
        assert [each.outlives_its_delivery for each in calls] == [False, True, True]

    def test_by_a_long_method_of_another_concerns_none_that_runs_here(
        self, intake: Intake, clock: Clock
    ) -> None:
        # given a copy of what another one runs, which is older than what runs here
        hear(intake, Word("here", "b"))
        intake.received(request(1, redelivered=True))
        hear(intake, Word("answer", "b", calls={request(1).key: "mine"}, to="a"))
        runs = request(2)
        runs.arrived = clock() + 1.0
        intake.received(runs)
        # when
        intake.lost([], by_message=True)
        # then
        assert not runs.outlives_its_delivery
        intake.opened(without_gap=True)
        intake.received(again := request(1, redelivered=True, intake=intake))
        assert intake.take_judged() == []
        assert acknowledged(intake, again) == [again]

    def test_by_a_long_method_concerns_none_of_another_that_came_later(
        self, intake: Intake, clock: Clock
    ) -> None:
        # given a copy of what another one runs, which is younger than what runs here
        hear(intake, Word("here", "b"))
        runs, copy = request(1), request(2, redelivered=True)
        runs.arrived = clock() - 1.0
        for call in (runs, copy):
            intake.received(call)
        hear(intake, Word("answer", "b", calls={copy.key: "mine"}, to="a"))
        # when
        intake.lost([], by_message=True)
        # then it is the one that runs here
        assert runs.outlives_its_delivery
        # and the copy is kept if it comes again
        intake.opened(without_gap=True)
        hear_own(intake)
        again = request(2, redelivered=True, intake=intake)
        assert intake.received(again) is Decision.NOTHING
        assert acknowledged(intake, again) == []

    def test_by_a_long_method_of_another_is_its_own_where_nothing_runs(
        self, intake: Intake
    ) -> None:
        hear(intake, Word("here", "b"))
        intake.received(copy := request(1, redelivered=True))
        hear(intake, Word("answer", "b", calls={copy.key: "mine"}, to="a"))

        intake.lost([], by_message=True)

        intake.opened(without_gap=True)
        intake.received(again := request(1, redelivered=True, intake=intake))
        assert intake.take_judged() == []
        assert acknowledged(intake, again) == [again]

    def test_is_told_with_the_answer_of_what_others_may_get_again(self, intake: Intake) -> None:
        # given two that run, of which the broker delivers one again
        runs, other = request(1), request(2)
        intake.received(runs)
        intake.lost([], by_message=False)
        intake.opened(without_gap=True)
        other.connection_number = intake.connection_number
        intake.received(other)
        hear_own(intake)
        # when
        intake.settled([runs, other])
        # then the others learn that they need no copy of that one
        (done,) = hear_own(intake)
        assert (done.kind, done.calls) == ("done", {runs.key: True})

    def test_voids_what_was_not_started_and_keeps_what_runs(self, intake: Intake) -> None:
        # given
        runs, waits = request(1), request(2)
        for call in (runs, waits):
            intake.received(call)
        # when
        intake.lost([waits], by_message=False)
        intake.opened(without_gap=True)
        hear_own(intake)
        # then what comes again of the first is its copy, and the other one is judged
        copies = [request(number, redelivered=True, intake=intake) for number in (1, 2)]
        assert [intake.received(each) for each in copies] == [Decision.NOTHING] * 2
        hear_own(intake)
        assert intake.take_judged() == [(Decision.RUN, copies[1])]

    def test_takes_its_delivery_tags_along(self, intake: Intake) -> None:
        # given a request that runs, and another that came under the same tag on the next connection
        runs = request(1)
        intake.received(runs)
        intake.lost([], by_message=False)
        intake.opened(without_gap=True)
        other = request(2, intake=intake)
        other.delivery.delivery_tag = runs.delivery.delivery_tag
        intake.received(other)
        # when
        intake.settled([runs])
        # then only what is settled is acknowledged
        assert intake.take_acks() == []
        intake.settled([other])
        assert acknowledged(intake, other) == [other]

    def test_forgets_the_copies_that_it_brought(self, intake: Intake) -> None:
        first, copy = request(), request(redelivered=True)
        intake.received(first)
        intake.received(copy)
        intake.lost([], by_message=False)
        first.answer = ANSWER
        assert intake.settled([first]) == []

    def test_voids_what_was_under_judgement(self, intake: Intake) -> None:
        # given one that others were asked about, and had their time to speak
        call = request(redelivered=True)
        assert intake.received(call) is Decision.NOTHING
        hear_own(intake)
        # when
        intake.lost([], by_message=False)
        # then it does not run, and comes again
        assert intake.take_judged() == []
        intake.opened(without_gap=True)
        copy = request(redelivered=True, intake=intake)
        assert intake.received(copy) is Decision.NOTHING
        hear_own(intake)
        assert intake.take_judged() == [(Decision.RUN, copy)]

    def test_voids_what_was_held_back(self, intake: Intake) -> None:
        hear(intake, Word("here", "b", consumes=True))
        lost = request(6, redelivered=True)
        intake.received(lost)
        hear_own(intake)
        hear(intake, Word("answer", "b", calls={lost.key: "lost"}, to="a"))
        assert intake.take_judged() == [(Decision.RUN, lost)]
        assert intake.received(request(7, runs=2)) is Decision.NOTHING

        intake.lost([], by_message=False)

        assert intake.take_held_back() == []

    def test_leaves_nothing_to_do_where_nothing_runs(self, intake: Intake) -> None:
        waits = request()
        intake.received(waits)
        assert not intake.is_idle

        intake.lost([waits], by_message=False)

        assert intake.is_idle

    def test_leaves_what_runs_to_do_until_it_is_settled(self, intake: Intake) -> None:
        runs = request()
        intake.received(runs)
        intake.lost([], by_message=False)
        assert not intake.is_idle

        intake.settled([runs])

        assert intake.is_idle

    def test_leaves_no_delivery_to_reject(self, intake: Intake) -> None:
        call = request()
        call.delivery.too_large = TooLarge(2, 1)
        assert intake.received(call) is Decision.REFUSE

        intake.lost([], by_message=False)

        assert intake.settled([call]) == []

    def test_by_a_long_method_has_its_copy_acknowledged_at_once(self, intake: Intake) -> None:
        # given a method that runs longer than the broker allows
        intake.received(request())
        intake.lost([], by_message=True)
        intake.opened(without_gap=True)
        # when
        copy = request(redelivered=True, intake=intake)
        assert intake.received(copy) is Decision.NOTHING
        # then the broker does not close the channel for it again
        assert acknowledged(intake, copy) == [copy]


class TestWhatOthersAskFor:
    def test_is_answered_again_once(self, intake: Intake) -> None:
        answered(intake, request())
        for _ in range(3):
            hear(intake, Word("ask", "b", calls={CallKey(REPLY_TO, "client:1"): True}))
        assert intake.take_to_repeat() == [(CallKey(REPLY_TO, "client:1"), ANSWER)]
        assert intake.take_to_repeat() == []

    def test_is_not_repeated_while_it_runs(self, intake: Intake) -> None:
        intake.received(request())
        hear(intake, Word("ask", "b", calls={CallKey(REPLY_TO, "client:1"): True}))
        assert intake.take_to_repeat() == []

    def test_is_answered_by_its_last_run(self, intake: Intake) -> None:
        answered(intake, request(), answer=None)
        last = Answer(REPLY_TO, b"last")
        answered(intake, request(runs=2), answer=last)
        hear(intake, Word("ask", "b", calls={CallKey(REPLY_TO, "client:1"): True}))
        assert intake.take_to_repeat() == [(CallKey(REPLY_TO, "client:1", 2), last)]

    def test_is_asked_for_elsewhere_where_it_was_passed_on(self, intake: Intake) -> None:
        answered(intake, request(), answer=None)
        hear(intake, Word("repeat", "b", calls={CallKey(REPLY_TO, "client:1"): True}))
        hear_own(intake)
        assert intake.take_to_repeat() == []
        [word] = hear_own(intake)
        assert (word.kind, word.calls) == ("repeat", {CallKey(REPLY_TO, "client:1", 2): True})

    def test_is_repeated_although_the_broker_has_not_confirmed_it_yet(self, intake: Intake) -> None:
        # given a method that runs, whose caller asks again
        call = request()
        intake.received(call)
        again = Word("ask", "b", calls={call.key: True})
        hear(intake, again)
        assert intake.take_to_repeat() == []
        # when it has ended, and its reply is under way to a queue that is lost
        call.answer = ANSWER
        hear(intake, again)
        # then it is sent once more
        assert intake.take_to_repeat() == [(call.key, ANSWER)]

    def test_is_repeated_although_it_is_not_under_judgement(self, intake: Intake) -> None:
        answered(intake, request())
        hear(intake, Word("repeat", "b", calls={request().key: True, request(2).key: True}))
        assert intake.take_to_repeat() == [(request().key, ANSWER)]

    def test_leaves_a_judgement_alone_if_it_is_the_reply(self, intake: Intake) -> None:
        # given a request under judgement
        hear(intake, Word("here", "0"))
        intake.received(call := request(redelivered=True))
        hear_own(intake)
        hear(intake, Word("answer", "0", calls={call.key: "never"}, to="a"))
        # when a sibling wants its reply repeated, which it does not get
        hear(intake, Word("repeat", "0", calls={call.key: True}))
        # then nobody else has that request
        assert intake.take_judged() == [(Decision.RUN, call)]

    def test_is_acknowledged_whatever_it_is(self, intake: Intake) -> None:
        nonsense = Delivery(b"nonsense", 999_997)
        large = Delivery(b"", 999_998, too_large=TooLarge(2, 1))
        for each in (nonsense, large):
            intake.heard(each)
        assert intake.take_acks() == [(999_998, True)]

    def test_is_told_if_it_is_too_large(
        self, intake: Intake, caplog: pytest.LogCaptureFixture
    ) -> None:
        intake.heard(Delivery(b"", 999_998, too_large=TooLarge(20, 10)))
        assert "it has 20 bytes" in caplog.text


def test_what_may_have_run_or_is_with_another_is_not_left_to_others(intake: Intake) -> None:
    # given requests that all wait for a worker
    fresh, again, lost, asked = (request(number) for number in (1, 2, 3, 4))
    passed_on, rerun = request(5, given_back=True), request(6, runs=2)
    for call in (fresh, again, lost, asked, passed_on, rerun):
        intake.received(call)
    lost.lost = True
    hear(intake, Word("ask", "b", calls={asked.key: False}))
    hear_own(intake)
    # when
    left, kept = intake.leave_to_others([fresh, again, lost, asked, passed_on, rerun])
    # then
    assert left == [fresh, again]
    assert kept == [lost, asked, passed_on, rerun]
    assert not set(left) & set(intake.at_hand)


class TestARequestThatWasGivenBackBeforeThisServerHeardAll:
    """A copy of it, which its client sent again, may have been asked about before."""

    @pytest.fixture
    def newcomer(self, intake: Intake) -> Intake:
        """It has missed words, and knows one sibling."""
        intake.siblings.lost()
        intake.siblings.opened(without_gap=False)
        hear_own(intake)
        hear(intake, Word("here", "b", consumes=True))
        assert not intake.siblings.vouches
        return intake

    def ask(self, newcomer: Intake) -> Call:
        call = request(given_back=True)
        assert newcomer.received(call) is Decision.NOTHING
        hear_own(newcomer)
        return call

    def test_does_not_run_if_another_server_runs_the_copy(self, newcomer: Intake) -> None:
        call = self.ask(newcomer)
        hear(newcomer, Word("answer", "b", to="a", calls={call.key: "done"}))
        assert newcomer.take_judged() == []
        assert acknowledged(newcomer, call) == [call]

    def test_runs_once_nobody_can_have_it(self, newcomer: Intake, clock: Clock) -> None:
        # given that nobody who is known has it
        call = self.ask(newcomer)
        hear(newcomer, Word("answer", "b", to="a", calls={call.key: "never"}))
        assert newcomer.take_judged() == []
        # when nobody unknown has come back either
        clock.now += GRACE
        # then it runs, although nobody vouches for that: it had not begun when it was given back
        assert newcomer.take_judged() == [(Decision.RUN, call)]
        assert not call.lost

    @pytest.mark.parametrize("end", ["is silent", "leaves", "is dead"])
    def test_runs_although_who_might_have_it_does_not_say_so(
        self, newcomer: Intake, clock: Clock, end: str
    ) -> None:
        if end == "is dead":
            hear(newcomer, Word("answer", "b", to="a", knows={"c": False}))
        call = self.ask(newcomer)
        if end == "leaves":
            hear(newcomer, Word("bye", "b"))
        clock.now += GRACE
        assert newcomer.take_judged() == [(Decision.RUN, call)]
        assert not call.lost

    def test_is_lost_if_there_is_a_copy_and_who_might_have_it_does_not_say_so(
        self, newcomer: Intake, clock: Clock
    ) -> None:
        # given that a sibling asked about a copy of it before
        hear(newcomer, Word("ask", "b", calls={request().key: True}))
        call = self.ask(newcomer)
        clock.now += GRACE
        assert newcomer.take_judged() == [(Decision.RUN, call)]
        assert call.lost

    def test_is_lost_if_a_marked_copy_comes_meanwhile(self, newcomer: Intake, clock: Clock) -> None:
        call = self.ask(newcomer)
        newcomer.received(request(redelivered=True))
        clock.now += GRACE
        assert newcomer.take_judged() == [(Decision.RUN, call)]
        assert call.lost

    @pytest.mark.parametrize("asks", [False, True], ids=["nobody else", "a sibling"])
    def test_is_marked_when_it_is_given_back_once_more_only_if_another_asked(
        self, newcomer: Intake, clock: Clock, asks: bool
    ) -> None:
        call = self.ask(newcomer)
        if asks:
            hear(newcomer, Word("ask", "c", calls={call.key: False}))
        hear(newcomer, Word("answer", "b", to="a", calls={call.key: "never"}))
        clock.now += GRACE
        assert newcomer.take_judged() == [(Decision.RUN, call)]
        assert call.is_elsewhere == asks

    def test_is_lost_if_one_says_so(self, newcomer: Intake) -> None:
        call = self.ask(newcomer)
        hear(newcomer, Word("answer", "b", to="a", calls={call.key: "lost"}))
        assert newcomer.take_judged() == [(Decision.RUN, call)]  # which tells its client so
        assert call.lost

    def test_is_not_asked_about_by_a_server_that_has_heard_all(self, intake: Intake) -> None:
        assert intake.siblings.vouches
        assert intake.received(request(given_back=True)) is Decision.RUN


def test_what_is_given_back_is_not_told_to_be_answered(intake: Intake) -> None:
    # given a request about which a sibling has asked
    call = request()
    intake.received(call)
    hear(intake, Word("ask", "b", calls={call.key: True}))
    hear_own(intake)
    # when it is given back, and the broker has confirmed that
    intake.give_back([call])
    intake.settled([call])
    # then it has to run somewhere
    assert hear_own(intake) == []


def test_what_is_given_back_may_come_again(intake: Intake) -> None:
    call = request()
    intake.received(call)
    intake.give_back([call])
    intake.settled([call])
    assert not intake.is_idle  # until the acks are taken
    assert acknowledged(intake, call) == [call]
    assert intake.received(request()) is Decision.RUN
