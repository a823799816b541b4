"""What a server asks its siblings about requests, and what it answers them."""

from typing import Any

import pytest

from qam._broker.messages import Delivery, QueueState
from qam._protocol.correlation import CallKey
from qam._protocol.entities import reply_routing_key
from qam._protocol.properties import RESENT
from qam._server.call import Answer, Call
from qam._server.judgement import Judgement
from qam._server.known_siblings import GRACE, VALID
from qam._server.membership import Membership
from qam._server.record import Elsewhere, Record
from qam._server.sibling_outbox import SiblingOutbox
from qam._server.sibling_questions import Questions, Verdict
from qam._server.sibling_words import Word, decode

START = 100.0
REPLY_TO = reply_routing_key("client")


def key(number: int) -> CallKey:
    return CallKey(REPLY_TO, f"client:{number}")


def request(number: int, resent: bool = False) -> Call:
    """A request that was perhaps received before."""
    properties: dict[str, Any] = {"correlation_id": f"client:{number}", "reply_to": REPLY_TO}
    headers = {RESENT: 1} if resent else {}
    return Call(Delivery(b"", 1, True, {**properties, "headers": headers}), 1)


class Server:
    """The server *m*, which vouches since START, and knows the siblings *a* and *z*."""

    def __init__(self) -> None:
        self.record = Record()
        self.membership = Membership()
        self.questions = Questions()
        self.outbox = SiblingOutbox("m")
        self.judgement = Judgement("m", self.record, self.membership, self.questions, self.outbox)
        self.membership.opened(without_gap=False, now=START)
        self.membership.servers_counted(0)
        self.membership.queue_inspected(QueueState(0, 1), 1, (), START)
        for name in "az":
            self.membership.add(name, there=True)

    def take(self, number: int) -> Call:
        """A request comes for the first time, and runs."""
        call = request(number)
        self.record.begin(call, first=True)
        return call

    def take_and_answer(self, number: int) -> None:
        call = self.take(number)
        call.answer = Answer("key", b"reply")
        self.record.end([call])

    def ask(self, number: int, resent: bool = False) -> Call:
        """A request that was perhaps received before is asked about, and the question is sent."""
        call = request(number, resent)
        self.judgement.ask(call, START)
        self.said()
        self.questions.echoed([call.key], START)
        return call

    def hear(self, said: str, *instances: str, number: int = 1) -> None:
        """Siblings answer about a request."""
        for instance in instances:
            self.judgement.hear_answer({key(number): said}, instance, START)

    def says_of(
        self, number: int, asker: str = "a", resent: bool = False, now: float = START
    ) -> str:
        """What it answers *asker* about a request."""
        self.judgement.answer({key(number): resent}, asker, now)
        [answer] = [word for word in self.said() if word.kind == "answer"]
        assert answer.to == asker
        return str(answer.calls[key(number)])

    def said(self) -> list[Word]:
        """Take the words that wait to be sent."""
        bodies = self.outbox.take_messages(self.questions, self.membership.known)
        return [word for body in bodies if (word := decode(body)) is not None]

    def verdicts(self, now: float = START) -> list[Verdict]:
        return [verdict for _, verdict in self.judgement.take_verdicts(now)]


@pytest.fixture
def server() -> Server:
    return Server()


# --- it asks --------------------------------------------------------------------------------


def test_what_nobody_had_is_run_with_all_its_copies(server: Server) -> None:
    # given two copies of a request
    first = server.ask(1)
    second = request(1)
    server.judgement.ask(second, START)
    assert server.said() == []
    # when one after the other answers
    server.hear("never", "a")
    assert server.verdicts() == []
    server.hear("never", "z")
    # then
    assert server.judgement.take_verdicts(START) == [([first, second], Verdict.RUN)]
    assert server.verdicts() == []
    assert server.record.is_elsewhere(key(1))


def test_the_question_tells_whether_the_client_sent_the_request_again(server: Server) -> None:
    server.judgement.ask(request(1), START)
    server.judgement.ask(request(2, resent=True), START)

    [asked] = server.said()

    assert (asked.kind, asked.calls) == ("ask", {key(1): False, key(2): True})


def test_without_a_voucher_nothing_runs(server: Server) -> None:
    # given one that its client sent again, which the record need not cover
    server.ask(1, resent=True)

    server.hear("never", "a", "z")

    assert server.verdicts() == []
    assert server.verdicts(START + GRACE) == [Verdict.LOST]


def test_what_was_sent_again_runs_if_the_record_reaches_back(server: Server) -> None:
    server.take_and_answer(1)
    server.ask(2, resent=True)

    server.hear("never", "a", "z", number=2)

    assert server.verdicts() == [Verdict.RUN]


def test_what_another_has_is_its_own_once_it_is_answered(server: Server) -> None:
    server.ask(1)
    server.hear("never", "a")
    server.hear("mine", "z")
    assert server.verdicts(START + GRACE) == []

    server.judgement.hear_done([key(1)], "z")

    assert server.verdicts() == [Verdict.MINE]
    assert server.record.is_answered_elsewhere(key(1))
    # and what comes again is not waited for
    server.judgement.ask(request(1), START)
    assert server.verdicts() == [Verdict.MINE]
    assert server.said() == []


def test_what_one_that_is_not_known_has_is_not_waited_for(server: Server) -> None:
    server.ask(1)
    server.hear("mine", "stranger")
    assert server.verdicts() == [Verdict.MINE]


def test_who_has_answered_what_was_sent_again_is_asked_for_the_reply_in_one_way(
    server: Server,
) -> None:
    # given a question that was sent, by which the other server knows, and one that was not
    server.ask(1, resent=True)
    for number in (2, 3):
        server.judgement.ask(request(number, resent=number == 3), START)
    # when all are answered
    server.judgement.hear_done([key(number) for number in (1, 2, 3)], "z")
    assert server.verdicts() == [Verdict.MINE] * 3
    # then
    [repeat] = server.said()
    assert (repeat.kind, repeat.calls) == ("repeat", {key(3): True})


def test_what_was_sent_again_and_is_answered_elsewhere_is_lost_if_nobody_repeats_it(
    server: Server,
) -> None:
    server.judgement.hear_done([key(1)], "z")
    server.ask(1, resent=True)
    server.hear("never", "a", "z")
    assert server.verdicts() == [Verdict.LOST]


def test_a_copy_that_its_client_sent_later_asks_for_the_answer_once_more(server: Server) -> None:
    # given a request that another server has, whose client sends it again
    first = server.ask(1, resent=True)
    server.hear("never", "z")
    server.hear("mine", "a")
    late = request(1, resent=True)
    server.judgement.ask(late, START)
    assert server.said() == []
    # when that one has answered it, perhaps before the client had a queue for the answer
    server.judgement.hear_done([key(1)], "a")
    # then it is asked to answer the copy
    assert server.judgement.take_verdicts(START) == [([first], Verdict.MINE)]
    [question] = [word for word in server.said() if word.kind == "ask"]
    assert question.calls == {key(1): True}
    # and if it is gone by then, the client is told
    server.questions.echoed([key(1)], START)
    server.hear("never", "z")
    server.questions.left("a")
    assert server.judgement.take_verdicts(START) == [([late], Verdict.LOST)]


def test_one_that_does_not_answer_in_time_is_dead(server: Server) -> None:
    server.ask(1)
    server.ask(2)
    server.hear("never", "a")
    server.hear("never", "a", number=2)
    assert server.verdicts(START + GRACE - 0.1) == []
    # then the other question does not wait for it, either
    assert server.verdicts(START + GRACE) == [Verdict.LOST, Verdict.LOST]
    assert server.membership.known.absent == {"z"}


def test_nobody_is_taken_for_dead_by_a_question_that_was_not_sent(server: Server) -> None:
    server.judgement.ask(request(1), START)

    assert server.verdicts(START + 10 * GRACE) == [Verdict.LOST]

    assert not server.membership.known.absent
    assert server.said() == []


def test_one_that_misses_a_roll_call_is_dead_and_what_it_had_is_lost(server: Server) -> None:
    server.ask(1)
    server.hear("never", "a")
    server.hear("mine", "z")
    server.membership.known.call_roll(START)
    server.membership.heard("a", consumes=True, now=START)

    assert server.verdicts(START + GRACE) == [Verdict.LOST]

    assert server.membership.known.absent == {"z"}


def test_where_somebody_may_be_dead_nothing_runs(server: Server) -> None:
    server.membership.known.mark_absent("z")
    server.ask(1)
    server.hear("never", "a")
    assert server.verdicts() == [Verdict.LOST]


def test_the_copy_that_is_held_longest_is_held_no_more(server: Server) -> None:
    assert not server.judgement.stop_holding(since=START + 1)
    server.ask(1)
    server.hear("mine", "z")

    assert not server.judgement.stop_holding(since=START)
    assert server.judgement.stop_holding(since=START + 1)

    assert server.record.is_answered_elsewhere(key(1))


def test_a_key_that_may_be_used_again_is_not_remembered_as_answered(server: Server) -> None:
    reused = CallKey("another client", "1")
    assert not reused.is_unique
    server.judgement.hear_done([reused], "z")
    assert not server.record.is_elsewhere(reused)


def test_with_the_connection_the_questions_are_given_up(server: Server) -> None:
    # given one that was vouched for, one that a sibling has, and one in doubt
    server.ask(1)
    for number in (2, 3):
        server.ask(number, resent=True)
    server.hear("mine", "z", number=2)
    server.judgement.ask(request(4), START)
    # when
    server.judgement.give_up()
    # then
    assert [server.record.is_lost(key(number)) for number in (1, 2, 3)] == [False, False, True]
    assert list(server.questions) == []
    assert server.said() == []


# --- it is asked ----------------------------------------------------------------------------


def test_what_it_has_is_its_own(server: Server) -> None:
    server.take(1)
    assert server.says_of(1) == "mine"
    assert not server.judgement.has_to_repeat
    assert server.record.is_elsewhere(key(1))


@pytest.mark.parametrize("outlives", [False, True])
def test_what_has_no_delivery_any_more_counts_as_answered(server: Server, outlives: bool) -> None:
    server.take(1).outlives_its_delivery = outlives
    assert server.says_of(1) == ("done" if outlives else "mine")


def test_what_it_has_answered_is_told_and_repeated_if_the_client_asks(server: Server) -> None:
    for number in (1, 2):
        server.take_and_answer(number)

    server.judgement.answer({key(1): False, key(2): True}, "a", START)

    (answer,) = server.said()
    assert answer.calls == {key(1): "done", key(2): "done"}
    assert server.judgement.has_to_repeat
    assert server.judgement.take_to_repeat() == [key(2)]
    assert not server.judgement.has_to_repeat


def test_what_it_has_passed_on_is_said_to_run_again_if_the_client_asks(server: Server) -> None:
    # given a request that ended without an answer, since it was published anew
    server.record.end([server.take(1)])
    assert server.says_of(1) == "done"
    assert server.says_of(1, resent=True) == "again"
    # when its next run was answered here
    again = request(1)
    again.become_run(key(1).next_run)
    server.record.begin(again, first=False)
    assert server.says_of(1, resent=True) == "done"


def test_what_another_has_answered_is_told_to_be_answered(server: Server) -> None:
    server.judgement.hear_done([key(1)], "z")

    assert server.says_of(1) == "done"
    # and lost if its answer is asked for
    assert server.says_of(1, resent=True) == "lost"


def test_what_it_had_before_and_did_not_judge_is_lost(server: Server) -> None:
    server.record.note_elsewhere(key(1), Elsewhere.DOUBTFUL)
    assert server.says_of(1) == "lost"


@pytest.mark.parametrize(("seconds", "said"), [(VALID, "vouch"), (VALID - 0.1, "never")])
def test_it_vouches_to_others_after_a_while(server: Server, seconds: float, said: str) -> None:
    assert server.says_of(1, now=START + seconds) == said
    assert server.record.is_elsewhere(key(1))


def test_it_vouches_for_what_was_sent_again_only_if_the_record_reaches_back(
    server: Server,
) -> None:
    assert server.says_of(2, resent=True, now=START + VALID) == "never"
    server.take(1)
    assert server.says_of(2, resent=True, now=START + VALID) == "vouch"


def test_if_two_judge_a_request_the_first_by_name_goes_on_with_it(server: Server) -> None:
    for number in (1, 2):
        server.ask(number)
    assert server.says_of(1, asker="z") == "mine"
    assert server.says_of(2, asker="a") == "never"
    assert [question.key for question in server.questions.held] == [key(2)]


def test_if_two_judge_a_request_one_that_is_not_known_is_not_waited_for(server: Server) -> None:
    server.ask(1)
    assert server.says_of(1, asker="b") == "never"
    assert server.verdicts() == [Verdict.MINE]


def test_it_repeats_only_what_it_has(server: Server) -> None:
    server.take(1)
    server.judgement.hear_repeat([key(1), key(2)])
    assert server.judgement.take_to_repeat() == [key(1)]


def test_it_tells_what_it_has_answered_and_others_may_have(server: Server) -> None:
    # given requests, two of which others may have, and one of these is given back
    calls = [server.take(number) for number in (1, 2, 3)]
    for number in (1, 2):
        server.record.note_elsewhere(key(number))
    server.record.drop(calls[0])

    server.judgement.tell_answered(calls)

    [done] = server.said()
    assert (done.kind, done.calls) == ("done", {key(2): True})
