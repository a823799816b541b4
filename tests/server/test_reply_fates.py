"""What becomes of replies, with a clock of the test and without a thread or a socket."""

import pickle
from itertools import pairwise
from typing import Any

import pytest

from qam._broker.fates import Fate
from qam._broker.later import Later
from qam._broker.messages import Delivery, Publish, Route
from qam._protocol.properties import RESENT
from qam._serialization.serializers import get_serializer
from qam._server.call import Answer, Call
from qam._server.messages import Message, Messages
from qam._server.reply_fates import Announce, Decision, Drop, ReplyFates, SendAgain, Settle
from qam.exceptions import QAMConnectionException

MINUTE = 60.0
REFUSED = QAMConnectionException("the message is too large")
MESSAGES = Messages("server", get_serializer("json"))


def call(number: int = 1) -> Call:
    return Call(Delivery(b"", 1, properties={"correlation_id": f"c:{number}"}), 1)


def reply_to(call: Call, body: bytes = b"reply") -> Publish:
    call.answer = Answer("key", body)
    return MESSAGES.reply(call, call.answer)


class Server:
    """What a server does with its replies, its clock in the hands of the test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.later: Later[Publish] = Later()
        self.settled: list[Call] = []
        self.dropped: list[Publish] = []
        self._fates = ReplyFates(get_serializer("json"), self.later)

    def hear(self, fate: Fate, *messages: Publish, error: Any = None) -> list[Publish]:
        """Carry out what follows from the fate of *messages*; return what is sent again at once."""
        again = []
        for decision in self._fates.decide(fate, list(messages), self.now, error):
            match decision:
                case Settle(calls):
                    self.settled += calls
                case SendAgain(message, after) if after:
                    self.later.add(message, self.now + after)
                case SendAgain(message):
                    again.append(message)
                case Drop(message):
                    self.dropped.append(message)
        return again


def test_the_story_of_a_reply_whose_client_is_gone() -> None:
    # given a reply that comes back
    server, request = Server(), call()
    reply = reply_to(request)
    server.hear(Fate.RETURNED, reply)

    # then its request is settled, once, and not kept for it
    assert server.settled == [request]
    assert reply.call is None

    # when it comes back each time that it is sent
    sent_at = []
    while not server.dropped:
        due = server.later.next_due()
        assert due is not None
        server.now = due
        [again] = server.later.take_due(server.now)
        assert again is reply
        sent_at.append(server.now)
        server.hear(Fate.RETURNED, again)

    # then it is sent ever more rarely, for a minute
    pauses = [later - before for before, later in pairwise(sent_at)]
    assert pauses[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert max(pauses) == pytest.approx(10.0)
    assert sent_at[-2] <= MINUTE < sent_at[-1]
    assert server.settled == [request]
    assert server.dropped == [reply]


def test_a_confirmed_reply_settles_its_request() -> None:
    server, first, second = Server(), call(1), call(2)

    assert server.hear(Fate.CONFIRMED, reply_to(first), reply_to(second)) == []

    assert server.settled == [first, second]


def test_what_answers_no_request_settles_none() -> None:
    server = Server()
    word = MESSAGES.repeated_reply(call().key, Answer("key", b""))  # type: ignore[arg-type]

    assert server.hear(Fate.CONFIRMED, word) == []

    assert server.settled == []


def test_a_confirmed_hello_announces_its_connection() -> None:
    hello = Message(Route("siblings", "key"), b"hello", {}, mandatory=False, hello=3)
    fates = ReplyFates(get_serializer("json"), Later())

    assert fates.decide(Fate.REFUSED, [hello], 0.0) == [SendAgain(hello, 1.0)]
    assert fates.decide(Fate.UNKNOWN, [hello], 0.0) == [SendAgain(hello)]
    assert fates.decide(Fate.CONFIRMED, [hello], 0.0) == [Announce(3)]


def test_a_reply_of_which_no_confirm_will_come_settles_its_request_when_it_is_written() -> None:
    server, request = Server(), call()
    reply = reply_to(request)

    server.hear(Fate.WRITTEN, reply)
    # and if it has to be sent again after all, that is not settled twice
    assert server.hear(Fate.UNKNOWN, reply) == [reply]
    server.hear(Fate.CONFIRMED, reply)

    assert server.settled == [request]


def test_a_refused_reply_is_kept_as_one_that_came_back() -> None:
    server, request = Server(), call()

    server.hear(Fate.REFUSED, reply_to(request))

    assert server.settled == [request]
    assert server.later.next_due() == pytest.approx(0.1)


def test_a_request_that_was_given_back_and_refused_is_sent_again_and_not_settled() -> None:
    server, request = Server(), call()
    given_back = MESSAGES.request_anew(request, now=0.0)

    server.hear(Fate.REFUSED, given_back)

    assert server.settled == []
    assert server.later.next_due() == pytest.approx(1.0)
    # and marked, since the broker may have taken it all the same
    assert given_back.properties["headers"][RESENT] == 0


@pytest.mark.parametrize(
    ("bound", "value", "kept"), [("_MAX_KEPT", 3, 3), ("_MAX_KEPT_BYTES", 250, 3)]
)
def test_replies_that_nobody_takes_are_kept_within_bounds(
    monkeypatch: pytest.MonkeyPatch, bound: str, value: int, kept: int
) -> None:
    monkeypatch.setattr(f"qam._server.reply_fates.{bound}", value)
    server, calls = Server(), [call(number) for number in range(5)]

    for each in calls:
        server.hear(Fate.RETURNED, reply_to(each, b"x" * 100))

    assert len(server.later) == kept
    assert len(server.dropped) == 5 - kept
    assert server.settled == calls


def test_a_reply_that_comes_back_is_kept_for_a_minute_whatever_time_it_is() -> None:
    server = Server()
    server.now = 1_000_000.0
    reply = reply_to(call())

    for seconds in (0.0, 30.0, 30.0):
        server.now += seconds
        assert server.hear(Fate.RETURNED, reply) == []
    assert server.dropped == []
    server.now += 0.1
    server.hear(Fate.RETURNED, reply)

    assert server.dropped == [reply]


def test_a_reply_whose_queue_may_come_back_is_kept_for_an_hour() -> None:
    server, request = Server(), call()
    reply = reply_to(request)

    for seconds in (0.0, 60 * MINUTE):
        server.now += seconds
        assert server.hear(Fate.REFUSED, reply) == []
    assert (server.settled, server.dropped) == ([request], [])
    server.now += 0.1
    server.hear(Fate.REFUSED, reply)

    assert server.dropped == [reply]


def test_a_reply_that_may_have_arrived_is_sent_again_as_it_is() -> None:
    server, request = Server(), call()
    reply = reply_to(request)
    before = reply.properties.copy()

    assert server.hear(Fate.UNKNOWN, reply) == [reply]

    assert reply.properties == before
    assert server.settled == []


def test_a_request_given_back_that_may_have_arrived_is_marked() -> None:
    server = Server()
    given_back = MESSAGES.request_anew(call(), now=0.0)

    assert server.hear(Fate.UNKNOWN, given_back) == [given_back]

    assert given_back.properties["headers"][RESENT] == 0


def test_a_reply_that_closes_the_channel_is_replaced_by_word_of_that_once() -> None:
    # given
    server, request = Server(), call()

    # when
    [in_place] = server.hear(Fate.CULPRIT, reply_to(request, b"large"), error=REFUSED)

    # then its request is not settled before that is confirmed
    assert b"too large" in in_place.body
    assert request.answer == Answer("key", in_place.body)
    assert server.settled == []

    # and if that closes it too, there is no answer
    assert server.hear(Fate.CULPRIT, in_place, error=REFUSED) == []
    assert request.answer is None
    assert server.settled == [request]


def test_also_a_reply_whose_request_is_settled_is_replaced() -> None:
    server, request = Server(), call()
    request.request_id = 7
    reply = reply_to(request, b"large")
    server.hear(Fate.WRITTEN, reply)

    [in_place] = server.hear(Fate.CULPRIT, reply, error=REFUSED)

    assert b"too large" in in_place.body
    assert server.hear(Fate.CULPRIT, in_place, error=REFUSED) == []
    assert server.settled == [request]


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_replacement_is_pickled_as_the_reply_that_its_client_can_read(protocol: int) -> None:
    # given the reply to a client that may be of Python 2
    fates = ReplyFates(get_serializer("pickle"), Later())
    reply = reply_to(call(), pickle.dumps({"id": 1, "result": "large"}, protocol))
    # when
    [again] = fates.decide(Fate.CULPRIT, [reply], 0.0, REFUSED)  # type: ignore[list-item]
    # then
    assert isinstance(again, SendAgain)
    assert again.message.body[:2] == bytes((0x80, protocol))


def test_what_is_no_reply_and_closes_the_channel_is_given_up() -> None:
    word: Publish = MESSAGES.repeated_reply(call().key, Answer("key", b""))  # type: ignore[arg-type]
    decisions: list[Decision] = ReplyFates(get_serializer("json"), Later()).decide(
        Fate.CULPRIT, [word], 0.0, REFUSED
    )

    assert decisions == []
