"""Several servers of one server_id, without a broker: what they say reaches all, in order."""

import json
from collections import deque
from typing import Any

import pytest

from qam._broker.messages import Delivery, QueueState
from qam._common.logs import get_logger
from qam._common.rare_warnings import RareWarnings
from qam._protocol.correlation import CallKey
from qam._protocol.entities import reply_routing_key
from qam._protocol.properties import RESENT
from qam._server import known_siblings
from qam._server.call import Answer, Call
from qam._server.known_siblings import GRACE, VALID
from qam._server.record import Elsewhere, Record
from qam._server.sibling_questions import Verdict
from qam._server.sibling_words import MAX_BYTES, MAX_SIBLINGS, Word, decode, encode
from qam._server.siblings import Siblings
from tests.support.clock import StandingClock

log = get_logger("qam.qam_server")

REPLY_TO = reply_routing_key("client")


def of_client(number: int) -> dict[str, Any]:
    """The properties of a request of the proxy."""
    return {"correlation_id": f"client:{number}", "reply_to": REPLY_TO}


def key(number: int) -> CallKey:
    return CallKey(REPLY_TO, f"client:{number}")


class Server:
    """One of them, and what waits for it."""

    def __init__(self, group: "Group", name: str) -> None:
        self.group, self.name = group, name
        self.record = Record()
        self.repeated: list[CallKey] = []
        self.siblings = Siblings(name, self.record, group.clock, RareWarnings(log, group.clock))
        self.inbox: deque[bytes] = deque()
        self.verdicts: list[tuple[str, Verdict]] = []
        self.connected = False
        self.connections = 0
        self.consuming = False

    def connect(self, without_gap: bool = True, follows: bool = False) -> None:
        self.connected = True
        if not without_gap:
            self.inbox.clear()
        self.connections += 1
        self.group.tell(self.siblings.opened(without_gap, follows))
        self.siblings.hello_confirmed(self.connections)
        self.group.run()

    def consume(self) -> None:
        self.consuming = True
        self.siblings.tell_consuming(True)
        self.group.run()

    def cut(self) -> None:
        self.siblings.lost()
        self.connected = self.consuming = False

    def receive(self, number: int, resent: bool = False, redelivered: bool = True) -> Call:
        """A request comes that may have been received before."""
        headers = {RESENT: 1} if resent else {}
        properties = {**of_client(number), "headers": headers}
        call = Call(Delivery(b"", 1, redelivered, properties), 1)
        self.siblings.ask(call)
        return call

    def take(self, number: int) -> Call:
        """A request comes for the first time, and runs."""
        call = Call(Delivery(b"", 1, False, of_client(number)), 1)
        self.record.begin(call, first=self.siblings.vouches)
        return call

    def answer(self, call: Call) -> None:
        call.answer = Answer("key", b"reply")
        self.siblings.answered([call])
        self.record.end([call])

    def look(self, messages: int = 0) -> None:
        consumers = sum(each.consuming for each in self.group.alive)
        state = QueueState(messages, consumers)
        others = sum(each.connected for each in self.group.alive) - self.connected
        self.siblings.servers_counted(others)
        self.siblings.queue_inspected(state, own_consumers=int(self.consuming))

    def step(self) -> bool:
        self.repeated += self.siblings.take_to_repeat()
        for calls, verdict in self.siblings.take_verdicts():
            self.verdicts.append((calls[0].delivery.correlation_id or "", verdict))
            if verdict is not Verdict.MINE:
                self.record.begin(calls[0], first=False)
        messages = self.siblings.take_messages()
        for body in messages:
            self.group.tell(body)
        heard = bool(self.inbox)
        if self.inbox:
            self.siblings.heard(self.inbox.popleft())
        return heard or bool(messages)


class Group:
    """All servers, and the exchange between them."""

    def __init__(self) -> None:
        self.clock = StandingClock()
        self.alive: list[Server] = []

    def start(self, name: str, messages: int = 0) -> Server:
        """A server starts while so many messages wait in the request queue."""
        server = Server(self, name)
        self.alive.append(server)
        server.connect(without_gap=False)
        server.look(messages)
        server.consume()
        for each in self.alive:
            each.look(messages)
        self.run()
        return server

    def kill(self, server: Server) -> None:
        self.alive.remove(server)

    def leave(self, server: Server) -> None:
        server.siblings.leave()
        self.run()
        self.alive.remove(server)

    def tell(self, body: bytes) -> None:
        """Something is said to all of them."""
        for each in self.alive:
            each.inbox.append(body)

    def run(self) -> None:
        """Until nobody has anything to say or to hear."""
        busy = True
        while busy:
            steps = [each.step() for each in list(self.alive) if each.connected]
            busy = any(steps)

    def wait(self, seconds: float) -> None:
        self.run()
        self.clock.now += seconds
        self.run()

    def go_by(self, seconds: float, times: int, server: Server) -> None:
        """Let time pass, in which a server looks at the queue when it wants to."""
        for _ in range(times):
            self.wait(seconds)
            if server.siblings.inspection_is_due:
                server.look()

    def grow_old(self) -> None:
        """Wait until the word of each counts."""
        self.wait(3 * GRACE)


@pytest.fixture
def group() -> Group:
    return Group()


def test_after_a_loss_others_may_need_what_one_remembers(group: Group) -> None:
    server = group.start("a")
    group.start("b")
    assert not server.siblings.is_needed
    server.cut()
    server.connect()
    assert server.siblings.is_needed
    server.consume()
    server.look()
    assert not server.siblings.is_needed


class TestAlone:
    def test_a_server_that_was_there_before_runs_what_the_broker_marks(self, group: Group) -> None:
        # given
        server = group.start("a")
        # when the broker was killed, and marks everything
        server.cut()
        server.connect()
        server.receive(1)
        group.run()
        # then
        assert server.verdicts == [("client:1", Verdict.RUN)]

    def test_nothing_is_decided_before_its_own_question_came_back(self, group: Group) -> None:
        server = group.start("a")
        server.receive(1)
        assert server.siblings.take_verdicts() == []
        server.siblings.take_messages()
        group.wait(9 * GRACE)
        assert server.verdicts == []

    def test_a_question_that_never_comes_back_has_an_end(self, group: Group) -> None:
        server = group.start("a")
        server.receive(1)
        server.siblings.take_messages()
        due = server.siblings.next_due()
        assert due is not None
        group.wait(due)
        assert server.verdicts == [("client:1", Verdict.LOST)]

    def test_one_that_finds_requests_of_a_dead_server_loses_them(self, group: Group) -> None:
        # given a successor, with requests of its predecessor in the queue
        server = group.start("a", messages=5)
        assert not server.siblings.vouches
        # when
        server.receive(1)
        group.run()
        # then it waits for somebody who may have been cut off only
        assert server.verdicts == []
        assert 0 < (server.siblings.next_due() or 0) <= GRACE
        group.wait(GRACE)
        assert server.verdicts == [("client:1", Verdict.LOST)]
        # and for the next one no longer
        server.receive(2)
        group.run()
        assert server.verdicts[1:] == [("client:2", Verdict.LOST)]

    def test_once_the_queue_was_empty_it_vouches_for_what_comes_later(self, group: Group) -> None:
        server = group.start("a", messages=5)
        server.receive(1)
        assert not server.siblings.inspection_is_due
        group.clock.now += 1.5
        assert server.siblings.inspection_is_due
        server.look(messages=1)
        assert not server.siblings.vouches
        server.look()
        assert server.siblings.vouches
        assert not server.siblings.inspection_is_due
        # when
        server.receive(2)
        group.run()
        # then, but not for what was there before
        assert server.verdicts == [("client:2", Verdict.RUN)]
        group.wait(GRACE)
        assert server.verdicts[1:] == [("client:1", Verdict.LOST)]

    def test_a_sibling_that_does_not_consume_makes_up_for_no_stranger(self, group: Group) -> None:
        # given a server that began after another one froze, which it does not know
        frozen = group.start("a")
        frozen.connected = False
        server = group.start("b")
        assert not server.siblings.vouches
        # when a third says hello, and consumes later
        newcomer = Server(group, "c")
        group.alive.append(newcomer)
        newcomer.connect(without_gap=False)
        server.look()
        newcomer.look()
        # then nobody takes the frozen one's consumer for that of the newcomer
        assert not server.siblings.vouches
        newcomer.consume()
        group.go_by(1.0, 3, server)
        assert not server.siblings.vouches
        # and when the frozen one dies it counts
        group.kill(frozen)
        group.go_by(1.0, 3, server)
        assert server.siblings.vouches

    def test_one_that_is_about_to_stop_makes_up_for_no_stranger(self, group: Group) -> None:
        frozen = group.start("a")
        frozen.connected = False
        server, leaving = group.start("b"), group.start("c")
        leaving.siblings.tell_consuming(False)
        group.run()
        leaving.consuming = False

        group.go_by(1.0, 3, server)

        assert not server.siblings.vouches

    def test_what_was_sent_again_runs_if_the_record_reaches_back(self, group: Group) -> None:
        server = group.start("a")
        server.answer(server.take(5))
        server.receive(4, resent=True, redelivered=False)
        server.receive(6, resent=True, redelivered=False)
        group.run()
        group.wait(GRACE)
        assert dict(server.verdicts) == {"client:4": Verdict.LOST, "client:6": Verdict.RUN}

    @pytest.mark.parametrize("id", ["\ud83d\ude00", "\ud83d", "\U0001f600", 'quote"', "\x00"])
    def test_a_request_is_judged_whatever_its_id_is(self, group: Group, id: str) -> None:
        server = group.start("a")
        server.siblings.ask(Call(Delivery(b"", 1, True, {"correlation_id": id}), 1))
        group.run()
        assert server.verdicts == [(id, Verdict.RUN)]

    def test_a_gap_in_what_it_heard_ends_its_vouching(self, group: Group) -> None:
        server = group.start("a")
        server.cut()
        server.connect(without_gap=False)
        server.receive(1)
        group.wait(GRACE)
        assert server.verdicts == [("client:1", Verdict.LOST)]

    def test_what_it_could_not_judge_before_a_loss_is_lost(self, group: Group) -> None:
        # given one that is asked to judge before it can vouch
        server = group.start("a", messages=1)
        server.receive(1)
        group.run()
        # when it loses the connection, and vouches later
        server.cut()
        server.connect()
        server.consuming = True
        server.look()
        assert server.siblings.vouches
        server.receive(1)
        group.run()
        # then
        assert server.verdicts == [("client:1", Verdict.LOST)]

    def test_copies_of_one_request_are_judged_together(self, group: Group) -> None:
        server = group.start("a")
        calls = [server.receive(1), server.receive(1, resent=True)]
        server.siblings.take_verdicts()
        for body in server.siblings.take_messages():
            server.siblings.heard(body)
        assert server.siblings.take_verdicts() == [(calls, Verdict.RUN)]


class TestAmongOthers:
    def test_what_another_runs_is_its_own(self, group: Group) -> None:
        # given
        one, other = group.start("a"), group.start("b")
        call = one.take(1)
        # when its connection was cut, and the broker delivers it to the other
        one.cut()
        other.receive(1)
        group.run()
        one.connect()
        # then that one keeps it, for as long as the method runs
        group.grow_old()
        assert (other.verdicts, other.siblings.held) == ([], 1)
        # until it is answered
        one.answer(call)
        group.run()
        assert (other.verdicts, other.siblings.held) == ([("client:1", Verdict.MINE)], 0)

    def test_what_another_runs_is_lost_if_that_one_dies(self, group: Group) -> None:
        # given a copy of what another one runs
        one, other = group.start("a"), group.start("b")
        one.take(1)
        other.receive(1)
        group.grow_old()
        assert other.verdicts == []
        # when that one is killed
        group.kill(one)
        group.go_by(1.0, 5, other)
        # then it shows at the next look at the queue
        assert other.verdicts == [("client:1", Verdict.LOST)]

    def test_what_another_runs_is_lost_if_that_one_closes_and_dies(self, group: Group) -> None:
        one, other = group.start("a"), group.start("b")
        one.take(1)
        other.receive(1)
        # when it does not consume any more, so that the queue does not show that it is gone
        one.consuming = False
        one.siblings.tell_consuming(False)
        group.grow_old()
        assert other.verdicts == []
        group.kill(one)
        group.go_by(1.0, 5, other)
        assert other.verdicts == [("client:1", Verdict.LOST)]

    def test_what_another_gave_back_without_running_it_is_run(self, group: Group) -> None:
        one, other = group.start("a"), group.start("b")
        call = one.take(1)
        other.receive(1)
        group.run()
        # when it has no time to start it, and leaves
        one.record.drop(call)
        group.leave(one)
        assert other.verdicts == [("client:1", Verdict.RUN)]

    def test_what_another_has_no_more_after_a_loss_is_judged_again(self, group: Group) -> None:
        # given one that has it, and waits for a worker
        one, other = group.start("a"), group.start("b")
        call = one.take(1)
        other.receive(1)
        group.grow_old()
        # when its connection is cut
        one.record.drop(call)
        one.cut()
        one.connect()
        assert other.verdicts == [("client:1", Verdict.RUN)]

    def test_what_a_dead_one_had_is_its_own_if_another_runs_it(self, group: Group) -> None:
        one, runs, dead = group.start("a"), group.start("b"), group.start("c")
        one.receive(1)
        for each in (runs, dead):
            each.take(1)
        group.run()
        group.kill(dead)
        group.go_by(1.0, 5, one)
        assert (one.verdicts, one.siblings.held) == ([], 1)

    def test_what_runs_longer_than_the_broker_allows_is_not_kept(self, group: Group) -> None:
        # given a method whose delivery the broker has taken back
        one, other = group.start("a"), group.start("b")
        one.take(1).outlives_its_delivery = True
        # when the other one gets that
        other.receive(1)
        group.run()
        assert other.verdicts == [("client:1", Verdict.MINE)]

    def test_no_copy_is_kept_for_longer_than_brokers_allow(self, group: Group) -> None:
        one, other = group.start("a"), group.start("b")
        one.take(1)
        other.receive(1)
        group.wait(24 * 60.0)
        assert other.verdicts == []
        assert other.siblings.next_due() is not None
        group.wait(60.0)
        assert other.verdicts == [("client:1", Verdict.MINE)]

    def test_no_copy_is_kept_again_for_which_the_broker_closed_a_channel(
        self, group: Group
    ) -> None:
        one, other = group.start("a"), group.start("b")
        one.take(1)
        one.take(2)
        other.receive(1)
        group.wait(1.0)
        other.receive(2)
        group.run()
        # when the broker closes the channel of the other one
        assert not other.siblings.stop_holding(since=group.clock.now - 1.0)
        assert other.siblings.stop_holding(since=group.clock.now)
        other.cut()
        other.connect()
        for number in (1, 2):
            other.receive(number)
        group.run()
        # then the older one is not kept any more
        assert (other.verdicts, other.siblings.held) == ([("client:1", Verdict.MINE)], 1)

    def test_what_another_has_answered_is_answered_by_it_again(self, group: Group) -> None:
        one, other = group.start("a"), group.start("b")
        one.answer(one.take(1))
        other.receive(1, resent=True, redelivered=False)
        group.run()
        assert other.verdicts == [("client:1", Verdict.MINE)]
        assert one.repeated == [key(1)]

    def test_who_has_answered_what_is_to_be_repeated_repeats_it(self, group: Group) -> None:
        one, other, third = group.start("a"), group.start("b"), group.start("c")
        one.answer(one.take(1))

        other.siblings.ask_to_repeat(key(1))
        group.run()

        assert (one.repeated, other.repeated, third.repeated) == ([key(1)], [], [])
        assert not third.siblings.is_judging(key(1))

    def test_what_none_has_started_runs_at_once(self, group: Group) -> None:
        servers = [group.start(name) for name in "abc"]
        servers[1].receive(1)
        group.run()
        assert servers[1].verdicts == [("client:1", Verdict.RUN)]

    def test_what_the_dead_one_may_have_had_is_lost(self, group: Group) -> None:
        # given
        one, other, dead = group.start("a"), group.start("b"), group.start("c")
        group.kill(dead)
        # when
        one.receive(1)
        group.run()
        assert one.verdicts == []
        group.wait(GRACE)
        # then, and the next is not waited for
        assert one.verdicts == [("client:1", Verdict.LOST)]
        one.receive(2)
        other.receive(3)
        group.wait(GRACE)
        assert one.verdicts[1:] == [("client:2", Verdict.LOST)]
        assert other.verdicts == [("client:3", Verdict.LOST)]

    def test_what_a_living_one_has_is_its_own_although_another_is_dead(self, group: Group) -> None:
        one, living, dead = group.start("a"), group.start("b"), group.start("c")
        group.kill(dead)
        one.receive(1)
        group.wait(GRACE)
        call = living.take(2)
        living.cut()
        # when
        one.receive(2)
        group.run()
        living.connect()
        living.answer(call)
        group.run()
        # then
        assert one.verdicts == [("client:1", Verdict.LOST), ("client:2", Verdict.MINE)]

    def test_a_dead_one_is_forgotten_when_all_it_had_is_judged(self, group: Group) -> None:
        one, dead = group.start("a"), group.start("b")
        group.kill(dead)
        one.receive(1)
        group.run()
        group.wait(GRACE)
        # when the queue is empty, and again some time later
        assert one.siblings.inspection_is_due
        one.look()
        group.wait(1.0)
        one.look()
        group.wait(3 * GRACE)
        one.look(messages=1)
        group.wait(GRACE)
        assert one.siblings.inspection_is_due
        one.look()
        # then
        group.wait(GRACE)
        assert not one.siblings.inspection_is_due
        one.receive(2)
        group.run()
        assert one.verdicts[1:] == [("client:2", Verdict.RUN)]

    def test_a_dead_one_is_waited_for_once(self, group: Group) -> None:
        one, dead = group.start("a"), group.start("b")
        group.kill(dead)
        one.receive(1)
        group.wait(GRACE - 1.0)
        one.receive(2)

        group.wait(1.0)

        assert one.verdicts == [("client:1", Verdict.LOST), ("client:2", Verdict.LOST)]

    def test_one_that_comes_back_late_is_not_dead(self, group: Group) -> None:
        one, late = group.start("a"), group.start("b")
        late.cut()
        one.receive(1)
        group.run()
        group.wait(GRACE)
        late.connect()
        one.receive(2)
        group.run()
        assert one.verdicts == [("client:1", Verdict.LOST), ("client:2", Verdict.RUN)]

    def test_one_that_comes_back_while_it_is_missed_is_waited_for(self, group: Group) -> None:
        # given one that is taken for dead
        one, late = group.start("a"), group.start("b")
        late.cut()
        one.receive(1)
        group.wait(GRACE)
        # when it says something before it can have been asked
        one.receive(2)
        one.siblings.heard(encode(Word("here", "b")))
        group.run()
        assert one.verdicts == [("client:1", Verdict.LOST)]
        # then its answer counts
        one.siblings.heard(encode(Word("answer", "b", to="a", calls={key(2): "mine"})))
        one.siblings.heard(encode(Word("done", "b", calls={key(2): True})))
        group.run()
        assert one.verdicts[1:] == [("client:2", Verdict.MINE)]

    def test_one_that_leaves_without_an_answer_is_not_waited_for_and_may_have_run_it(
        self, group: Group
    ) -> None:
        # given one that was asked, and is silent
        one, leaving = group.start("a"), group.start("b")
        leaving.connected = False
        one.receive(1)
        group.run()
        assert one.verdicts == []
        # when it says goodbye
        one.siblings.heard(encode(Word("bye", "b")))
        group.run()
        # then it may have answered the request, and lost its connection before the ack
        assert one.verdicts == [("client:1", Verdict.LOST)]

    def test_one_that_is_found_dead_costs_the_record_nothing_before_it_is_forgotten(
        self, group: Group
    ) -> None:
        one, dead = group.start("a"), group.start("b")
        one.answer(one.take(1))
        group.kill(dead)
        one.receive(7)
        group.run()
        group.wait(GRACE)
        assert one.verdicts == [("client:7", Verdict.LOST)]

        one.look()

        assert one.record.covers(key(2))

    def test_where_there_was_no_room_for_one_it_is_looked_for_once_there_is(
        self, group: Group, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        # given one that knows as many others as it can
        monkeypatch.setattr(known_siblings, "MAX_SIBLINGS", 1)
        one = group.start("a")
        for name in "bc":
            one.siblings.heard(encode(Word("here", name)))
        assert "there are more than" in caplog.text
        one.look()
        assert not one.siblings.has_messages
        # when one of them leaves
        one.siblings.heard(encode(Word("bye", "b")))
        one.look()
        # then the others are asked who is there, and until then it does not vouch
        [word] = [decode(body) for body in one.siblings.take_messages()]
        assert word == Word("ask", "a", consumes=True)
        assert not one.siblings.vouches

    def test_what_one_without_room_may_have_run_does_not_run_again(
        self, group: Group, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(known_siblings, "MAX_SIBLINGS", 0)
        one = group.start("a")
        one.answer(one.take(1))
        assert one.record.covers(key(2))

        one.siblings.heard(encode(Word("here", "b")))

        assert not one.record.covers(key(2))

    def test_one_that_said_goodbye_is_not_missed(self, group: Group) -> None:
        one, gone = group.start("a"), group.start("b")
        group.leave(gone)
        one.receive(1)
        group.run()
        assert one.verdicts == [("client:1", Verdict.RUN)]

    def test_what_one_that_is_gone_may_have_run_does_not_run_again(self, group: Group) -> None:
        # given one that knows the client's calls, and another that had the last one
        one, gone = group.start("a"), group.start("b")
        one.answer(one.take(1))
        gone.answer(gone.take(2))
        group.grow_old()
        group.leave(gone)
        # when the client, which missed the reply, asks again
        one.receive(2, resent=True, redelivered=False)
        group.wait(GRACE)
        # then
        assert one.verdicts == [("client:2", Verdict.LOST)]

    def test_nor_what_one_may_have_run_that_is_forgotten(self, group: Group) -> None:
        one, dead = group.start("a"), group.start("b")
        one.answer(one.take(1))
        dead.answer(dead.take(2))
        group.kill(dead)
        group.go_by(1.0, 20, one)
        assert not one.siblings.inspection_is_due
        # when
        one.receive(2, resent=True, redelivered=False)
        group.wait(GRACE)
        # then
        assert one.verdicts == [("client:2", Verdict.LOST)]

    def test_nor_what_may_have_run_while_it_heard_nothing(self, group: Group) -> None:
        one = group.start("a")
        one.answer(one.take(1))
        one.cut()
        one.connect(without_gap=False)
        one.look()
        # when
        one.receive(2, resent=True, redelivered=False)
        group.wait(GRACE)
        # then
        assert one.verdicts == [("client:2", Verdict.LOST)]

    def test_one_that_left_just_before_the_broker_died_is_missed(self, group: Group) -> None:
        # its last acks may be lost with the broker
        one, gone = group.start("a"), group.start("b")
        group.leave(gone)
        one.cut()
        one.connect()
        one.receive(1)
        group.run()
        assert one.verdicts == [("client:1", Verdict.LOST)]

    @pytest.mark.parametrize(("seconds", "verdict"), [(4.9, Verdict.LOST), (5.0, Verdict.RUN)])
    def test_so_is_one_that_left_just_before_a_newcomer_came(
        self, group: Group, seconds: float, verdict: Verdict
    ) -> None:
        # given one that came just after the last one had gone
        newcomer = Server(group, "b")
        group.alive.append(newcomer)
        newcomer.connect(without_gap=False, follows=True)
        newcomer.consume()
        newcomer.look()
        # when the broker dies, and has lost the acks of that one, or may not have
        group.clock.now += seconds
        newcomer.cut()
        newcomer.connect()
        newcomer.receive(1)
        group.run()
        group.wait(GRACE)
        # then what it had answered does not run again
        assert newcomer.verdicts == [("client:1", verdict)]

    def test_a_newcomer_takes_the_word_of_one_that_was_there(self, group: Group) -> None:
        # given
        old = group.start("a")
        group.grow_old()
        new = group.start("b", messages=3)
        assert not new.siblings.vouches
        # when
        new.receive(1)
        group.run()
        # then
        assert new.verdicts == [("client:1", Verdict.RUN)]
        assert old.verdicts == []

    def test_the_word_of_one_that_is_new_itself_does_not_count(self, group: Group) -> None:
        group.start("a")
        new = group.start("b", messages=3)
        new.receive(1)
        group.wait(GRACE)
        assert new.verdicts == [("client:1", Verdict.LOST)]

    def test_a_newcomer_learns_of_the_dead_from_the_others(self, group: Group) -> None:
        old, dead = group.start("a"), group.start("b")
        group.grow_old()
        group.kill(dead)
        new = group.start("c", messages=3)
        new.receive(1)
        group.run()
        assert new.verdicts == []
        group.wait(GRACE)
        assert new.verdicts == [("client:1", Verdict.LOST)]
        assert old.siblings.vouches

    def test_what_one_has_answered_runs_nowhere_after_it_has_left(self, group: Group) -> None:
        # given a method that ends after the connection of its server was cut
        one, other, third = (group.start(name) for name in "abc")
        call = one.take(1)
        one.cut()
        one.record.note_elsewhere(key(1))
        one.connect()
        one.answer(call)
        group.leave(one)
        # when the broker delivers it to others only then
        other.receive(1)
        third.receive(1)
        group.wait(GRACE)
        # then all have heard of it
        assert other.verdicts == third.verdicts == [("client:1", Verdict.MINE)]

    @pytest.mark.parametrize("first", [0, 1])
    def test_of_two_copies_only_one_runs(self, group: Group, first: int) -> None:
        servers = [group.start("a"), group.start("b")]
        # when both ask at the same time
        servers[first].receive(1)
        servers[1 - first].receive(1, resent=True)
        for server in servers:
            server.take(0)
        group.run()
        group.wait(GRACE)
        # then one of them goes on with it, and the other one waits for that
        (verdict,) = [verdict for server in servers for _, verdict in server.verdicts]
        assert verdict is not Verdict.MINE
        assert sorted(server.siblings.held for server in servers) == [0, 1]

    def test_a_copy_that_comes_unmarked_after_a_question_is_asked_about(self, group: Group) -> None:
        one, other = group.start("a"), group.start("b")
        one.receive(1)
        group.run()
        assert one.verdicts == [("client:1", Verdict.RUN)]
        assert other.record.is_elsewhere(key(1))

    def test_who_has_it_answers_although_another_takes_it_for_lost(self, group: Group) -> None:
        # given three, one of which runs it, and another has forgotten what became of it
        one, other, third = (group.start(name) for name in "abc")
        other.record.note_elsewhere(key(1), Elsewhere.DOUBTFUL)
        call = third.take(1)
        # when the first one gets a copy, and hears them in either order
        one.receive(1)
        group.run()
        third.answer(call)
        group.run()
        # then nobody tells its client that it is lost
        assert one.verdicts == [("client:1", Verdict.MINE)]

    def test_what_this_one_has_forgotten_may_be_with_another(self, group: Group) -> None:
        one, other = group.start("a"), group.start("b")
        one.record.note_elsewhere(key(1), Elsewhere.DOUBTFUL)
        call = other.take(1)
        one.receive(1)
        group.run()
        other.answer(call)
        group.run()
        assert one.verdicts == [("client:1", Verdict.MINE)]

    def test_lost_is_lost_for_all(self, group: Group) -> None:
        one, other = group.start("a"), group.start("b")
        other.record.note_elsewhere(key(1), Elsewhere.DOUBTFUL)
        one.receive(1)
        group.run()
        assert one.verdicts == [("client:1", Verdict.LOST)]


HERE: dict[str, Any] = {"kind": "here", "from": "x"}
ASK: dict[str, Any] = {"kind": "ask", "from": "x"}
ANSWER: dict[str, Any] = {"kind": "answer", "from": "x", "to": "a", "calls": [], "knows": {}}
ODD_NAMES: list[Any] = ["", "x" * 65, 1, None, [], {}]
CALL = ["reply_to", "id", 1, True]
ODD_CALLS: list[Any] = [
    *(
        None,
        1,
        "calls",
        {"client:1": True},
        {},
        [1],
        ["four"],
        [{}],
        [[]],
        [CALL[:3]],
        [CALL] * 1001,
    ),
    *([[odd, *CALL[1:]]] for odd in (None, 1, [], {}, "x" * 256)),
    *([[CALL[0], odd, *CALL[2:]]] for odd in (None, 1, [], {}, "x" * 256)),
    *([[*CALL[:2], odd, True]] for odd in (None, 0, -1, 1.5, True, "1", [], {}, 2**53 + 1)),
]
ODD_ANSWERS: list[dict[str, Any]] = [
    *({"calls": odd} for odd in ODD_CALLS),
    *({"knows": odd} for odd in (None, 1, "x", [], ["x"], {"": True}, {"x" * 65: True})),
    *({"to": odd} for odd in ODD_NAMES),
]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b"{}",
        b"[" * 100_000,
        *(json.dumps({"protocol": each, **HERE}).encode() for each in (0, 2, "1", True, None)),
        *(json.dumps({"protocol": 1, "kind": each, "from": "x"}).encode() for each in (1, [], {})),
        *(json.dumps({"protocol": 1, "kind": "here", "from": each}).encode() for each in ODD_NAMES),
        *(json.dumps({"protocol": 1, **ASK, "calls": each}).encode() for each in ODD_CALLS),
        *(json.dumps({"protocol": 1, **ANSWER, **each}).encode() for each in ODD_ANSWERS),
        json.dumps({"protocol": 1, **HERE, "more": "x" * MAX_BYTES}).encode(),
        b'{"protocol": 1, "number": ' + b"9" * 100_000 + b"}",
        json.dumps({"kind": "hello"}).encode(),
        json.dumps({"kind": "hello", "from": 1}).encode(),
        json.dumps({"kind": [], "from": "x"}).encode(),
        json.dumps({"kind": "word_on", "from": "x"}).encode(),
        json.dumps({"kind": "ask", "from": "x"}).encode(),
        json.dumps({"kind": "ask", "from": "x", "calls": 5}).encode(),
        json.dumps({"kind": "ask", "from": "x", "calls": [[{}, 1]]}).encode(),
        json.dumps({"kind": "answer", "from": "x", "to": "a", "calls": {}, "knows": 1}).encode(),
        json.dumps({"kind": "answer", "from": "x", "to": "a", "calls": 1, "knows": {}}).encode(),
    ],
)
def test_nonsense_is_told_and_harms_nobody(
    group: Group, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = group.start("a")
    server.siblings.heard(body)
    assert "was ignored" in caplog.text
    assert server.siblings.vouches


def test_nobody_talks_without_a_reason(group: Group) -> None:
    server = group.start("a")
    group.grow_old()
    assert server.siblings.next_due() is None
    messages: list[Any] = server.siblings.take_messages()
    assert messages == []


def test_each_hello_says_how_many_connections_were_opened(group: Group) -> None:
    siblings = Server(group, "a").siblings
    assert not siblings.announced
    for number in (1, 2):
        hello = decode(siblings.opened(without_gap=True))
        assert hello == Word("hello", "a", number=number)
        assert siblings.take_messages() == []


def test_a_new_connection_has_no_consumer(group: Group) -> None:
    server = group.start("a")
    server.cut()

    hello = decode(server.siblings.opened(without_gap=True))

    assert hello == Word("hello", "a", consumes=False, number=2)


def test_a_question_that_was_not_sent_goes_with_the_connection(group: Group) -> None:
    server = group.start("a")
    server.receive(1)

    server.cut()

    assert server.siblings.take_messages() == []


class TestTheRollCall:
    def test_finds_the_dead_before_a_request_depends_on_it(self, group: Group) -> None:
        # given one that dies with nothing in its hands
        one, dead = group.start("a"), group.start("b")
        group.kill(dead)
        # when time goes by
        group.go_by(GRACE, 10, one)
        # then it is forgotten, and costs no call its result
        one.receive(1)
        group.run()
        assert one.verdicts == [("client:1", Verdict.RUN)]

    def test_brings_nobody_back_who_is_buried(self, group: Group) -> None:
        one, dead, other = group.start("a"), group.start("b"), group.start("c")
        group.kill(dead)
        group.go_by(GRACE, 10, one)
        # when another one still counts on it
        one.receive(1)
        group.run()
        assert one.verdicts == [("client:1", Verdict.RUN)]
        assert other.verdicts == []

    def test_costs_nobody_who_is_there_anything(self, group: Group) -> None:
        one, other = group.start("a"), group.start("b")
        other.consuming = False  # it closes, and takes its time
        group.go_by(2 * GRACE, 5, one)
        one.receive(1)
        group.run()
        assert one.verdicts == [("client:1", Verdict.RUN)]

    def test_is_not_called_where_nobody_is_missing(self, group: Group) -> None:
        one, _ = group.start("a"), group.start("b")
        group.wait(5 * GRACE)
        assert one.siblings.inspection_is_due
        one.look()
        assert one.siblings.take_messages() == []

    def test_is_given_up_with_the_connection_on_which_the_answers_would_come(
        self, group: Group
    ) -> None:
        # given one that misses the consumer of another
        one, other = group.start("a"), group.start("b")
        other.consuming = False
        group.clock.now += 1.0
        one.look()
        # when it hears nothing, since its connection is lost
        one.cut()
        group.clock.now += GRACE
        one.siblings.take_verdicts()
        one.siblings.opened(without_gap=True)
        # then it takes nobody for dead
        one.siblings.heard(ask("c", key(1)))
        [answer], _ = said_by(one)
        assert answer.knows == {"b": True, "c": True}


class TestWhatIsDue:
    def test_is_what_comes_first(self, group: Group) -> None:
        # given a request of which the predecessor may speak, and a queue that is not empty
        server = group.start("a", messages=5)
        server.receive(1)
        group.run()
        assert server.siblings.next_due() == 1.0
        assert not server.siblings.inspection_is_due
        group.clock.now += 1.0
        assert server.siblings.inspection_is_due
        # when the inspection after the next one is later than the end of that wait
        group.clock.now += GRACE - 1.5
        assert server.siblings.next_due() == 0.0
        server.look(messages=5)
        # then
        assert server.siblings.next_due() == 0.5


# --- what others ask ------------------------------------------------------------------------


def ask(sender: str, *calls: CallKey) -> bytes:
    return encode(Word("ask", sender, calls=dict.fromkeys(calls, False)))


def said_by(server: Server) -> tuple[list[Word], int]:
    """The answers that *server* gives, and how many bytes all its words take."""
    bodies = server.siblings.take_messages()
    words = [word for body in bodies if (word := decode(body)) is not None]
    return [word for word in words if word.kind == "answer"], sum(map(len, bodies))


def test_whoever_asks_hears_once_who_is_known(group: Group) -> None:
    # given two
    one, _ = group.start("a"), group.start("b")
    one.siblings.take_messages()
    # when another asks, in many words, about more than one word has room for
    for number in range(1200):
        one.siblings.heard(ask("c", key(number)))
    answers, _ = said_by(one)
    # then all is answered
    assert {each for answer in answers for each in answer.calls} == {key(n) for n in range(1200)}
    assert len(answers) > 1
    # and the first answer alone says who is there
    assert [each.knows for each in answers if each.knows] == [{"b": True, "c": True}]
    assert answers[0].knows


def test_a_crowd_of_invented_siblings_costs_bounded_memory(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    # given one that was told of as many as it remembers
    one = group.start("a")
    for number in range(MAX_SIBLINGS):
        one.siblings.heard(encode(Word("here", f"{number:064}")))
    one.siblings.take_messages()
    # when each of them, and more, asks
    for number in range(3 * MAX_SIBLINGS):
        one.siblings.heard(ask(f"{number:064}", key(number)))
    answers, octets = said_by(one)
    # then what it answers is bounded, and it says so
    assert 40 < len(answers) < 100
    assert octets < 6 * 2**20
    assert "ask more than can be answered" in caplog.text
    # and it answers again, once that is on its way
    one.siblings.heard(ask("x", key(1)))
    answers, _ = said_by(one)
    assert [each.to for each in answers] == ["x"]


def test_what_is_judged_already_is_not_asked_about(group: Group) -> None:
    # given a request that another one has answered
    one = group.start("b")
    one.receive(1)
    one.siblings.heard(encode(Word("done", "a", calls={key(1): True})))

    verdicts = one.siblings.take_verdicts()

    assert [verdict for _, verdict in verdicts] == [Verdict.MINE]
    words = [decode(body) for body in one.siblings.take_messages()]
    assert words == []


@pytest.mark.parametrize(("seconds", "said"), [(VALID, "vouch"), (VALID - 0.5, "never")])
def test_one_vouches_to_others_after_a_while(group: Group, seconds: float, said: str) -> None:
    one = group.start("a")
    group.wait(seconds)

    one.siblings.heard(ask("b", key(1)))

    [answer], _ = said_by(one)
    assert answer.calls == {key(1): said}


def test_the_siblings_of_a_sibling_are_known_too_but_oneself_is_none(group: Group) -> None:
    one = group.start("a")

    one.siblings.heard(encode(Word("answer", "b", to="a", knows={"a": True, "d": False})))

    one.siblings.heard(ask("c", key(1)))
    [answer], _ = said_by(one)
    assert answer.knows == {"b": True, "c": True, "d": False}


@pytest.mark.parametrize("kind", ["hello", "here", "ask", "answer", "done", "repeat"])
def test_each_word_shows_that_its_sender_is_there(group: Group, kind: str) -> None:
    one = group.start("a")

    one.siblings.heard(encode(Word(kind, "b", to="x", number=1)))

    one.siblings.heard(ask("c", key(1)))
    answers, _ = said_by(one)
    assert answers[-1].knows == {"b": True, "c": True}


@pytest.mark.parametrize(("redelivered", "stays"), [(False, False), (True, True)])
def test_a_goodbye_that_comes_again_does_not_count(
    group: Group, redelivered: bool, stays: bool
) -> None:
    # given one whose word comes again, which counts
    one = group.start("a")
    one.siblings.heard(encode(Word("here", "b")), redelivered=True)

    one.siblings.heard(encode(Word("bye", "b")), redelivered)

    one.siblings.heard(ask("c", key(1)))
    [answer], _ = said_by(one)
    assert ("b" in answer.knows) is stays


def test_there_is_something_to_send_while_there_are_words_or_replies_to_repeat(
    group: Group,
) -> None:
    one = group.start("a")
    one.answer(one.take(1))
    assert not one.siblings.has_messages
    # when it is asked for a reply
    one.siblings.heard(encode(Word("ask", "b", calls={key(1): True})))
    assert one.siblings.has_messages
    # then first its words are taken, and then what is to be repeated
    one.siblings.take_messages()
    assert one.siblings.has_messages
    assert one.siblings.take_to_repeat() == [key(1)]
    assert not one.siblings.has_messages
    # and words alone are something, too
    one.siblings.tell_consuming(False)
    assert one.siblings.has_messages


def test_a_word_that_is_too_large_is_told(group: Group, caplog: pytest.LogCaptureFixture) -> None:
    group.start("a").siblings.heard_too_large(7000)

    assert "was ignored: it has 7000 bytes" in caplog.text
