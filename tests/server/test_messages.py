"""The messages that a server sends, by value."""

import json
from typing import Any

import pytest

from qam._broker.messages import Delivery, Route
from qam._protocol.correlation import CallKey
from qam._protocol.properties import GIVEN_BACK, ONE_WAY, RESENT, RUNS, USER
from qam._protocol.replies import REQUEST_UNREADABLE, SERVER_LOST
from qam._serialization.serializers import get_serializer
from qam._server.call import Answer, Call
from qam._server.messages import Messages

REPLIES, REQUESTS = "server_client_exchange", "server_server_exchange"


@pytest.fixture
def messages() -> Messages:
    return Messages("server", get_serializer("json"))


def call(**properties: Any) -> Call:
    """A request; a property that is None is missing."""
    came_with = {"correlation_id": "c:1", "reply_to": "key", **properties}
    kept = {name: value for name, value in came_with.items() if value is not None}
    return Call(Delivery(b"{}", 1, properties=kept), 1, arrived=100.0)


def test_a_reply_is_kept_and_confirmed_as_its_request_is(messages: Messages) -> None:
    request = call()
    reply = messages.reply(request, Answer("key", b"done"))

    assert reply.route == Route(REPLIES, "key")
    assert reply.body == b"done"
    assert reply.call is request
    assert reply.is_reply
    assert reply.mandatory
    assert reply.confirm
    assert reply.properties == {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "correlation_id": "c:1",
    }


def test_a_reply_in_kind_is_neither(messages: Messages) -> None:
    reply = messages.reply(call(delivery_mode=1), Answer("key", b""))

    assert not reply.mandatory
    assert not reply.confirm
    assert reply.properties["delivery_mode"] == 1


def test_the_reply_to_a_0_2_x_client_is_kept_and_never_comes_back(messages: Messages) -> None:
    reply = messages.reply(call(correlation_id=None), Answer("key", b""))

    assert not reply.mandatory
    assert reply.confirm
    assert "correlation_id" not in reply.properties


def test_replies_share_no_properties(messages: Messages) -> None:
    first, second = (messages.reply(call(), Answer("key", b"")) for _ in range(2))
    first.properties["headers"] = {}
    assert "headers" not in second.properties


def test_an_answer_is_repeated_by_its_key_alone(messages: Messages) -> None:
    reply = messages.repeated_reply(CallKey("key", "c:1"), Answer("key", b"done"))

    assert (reply.route, reply.body) == (Route(REPLIES, "key"), b"done")
    assert reply.properties["correlation_id"] == "c:1"
    assert reply.call is None
    assert reply.is_reply
    assert reply.confirm
    assert not reply.mandatory


@pytest.mark.parametrize(("runs", "code"), [(1, REQUEST_UNREADABLE), (2, SERVER_LOST)])
def test_a_refusal_says_why_and_whether_anything_ran(
    messages: Messages, runs: int, code: int
) -> None:
    request = call(headers={RUNS: runs})
    refusal = messages.refusal(request, "it is too large")

    assert refusal is not None
    reply = json.loads(refusal.body)
    assert (reply["internal_exception"], reply["result"]) == (code, "it is too large")
    assert request.answer == Answer("key", refusal.body)
    assert refusal.call is request


@pytest.mark.parametrize("unknown", ["reply_to", "correlation_id"])
def test_who_cant_be_told_is_refused_without_a_word(messages: Messages, unknown: str) -> None:
    request = call(**{unknown: None})
    assert messages.refusal(request, "no") is None
    assert request.answer is None


class TestARequestThatIsPublishedAnew:
    def test_keeps_what_it_came_with_and_what_is_left_of_its_time(self, messages: Messages) -> None:
        request = call(expiration="5000", delivery_mode=1)
        anew = messages.request_anew(request, now=102.0)

        assert anew.route == Route(REQUESTS, "server_server_routing_key")
        assert anew.body == b"{}"
        assert anew.call is request
        assert not anew.mandatory
        assert not anew.is_reply
        assert anew.confirm
        assert anew.properties == {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "correlation_id": "c:1",
            "reply_to": "key",
            "delivery_mode": 1,
            "expiration": "3000",
            "headers": {GIVEN_BACK: True},
        }

    def test_has_no_end_if_it_had_none(self, messages: Messages) -> None:
        assert "expiration" not in messages.request_anew(call(), now=102.0).properties

    @pytest.mark.parametrize(
        ("came", "goes"),
        [
            ({RESENT: 7}, {RESENT: 7}),
            ({RESENT: "odd"}, {RESENT: 0}),
            ({RUNS: 2}, {RUNS: 2}),
            ({RUNS: "odd"}, {RUNS: 1}),
            ({"x-strange": 1.5}, {}),
        ],
        ids=repr,
    )
    def test_keeps_of_its_headers_what_peers_set(
        self, messages: Messages, came: dict[str, Any], goes: dict[str, Any]
    ) -> None:
        anew = messages.request_anew(call(headers=came), now=102.0)
        assert anew.properties["headers"] == {**goes, GIVEN_BACK: True}

    @pytest.mark.parametrize(("came", "mark"), [({}, 0), ({RESENT: 7}, 7)], ids=repr)
    def test_is_marked_if_another_server_may_have_a_copy(
        self, messages: Messages, came: dict[str, Any], mark: int
    ) -> None:
        request = call(headers=came)
        request.is_elsewhere = True
        anew = messages.request_anew(request, now=102.0)
        assert anew.properties["headers"] == {RESENT: mark, GIVEN_BACK: True}

    def test_for_another_run_says_which_and_nothing_else(self, messages: Messages) -> None:
        anew = messages.request_anew(call(headers={RESENT: 7}), now=102.0, runs=2)
        assert anew.properties["headers"] == {RUNS: 2}


# --- what stays with a call, however often its request is published anew ----------


@pytest.mark.parametrize("runs", [None, 2], ids=["given back", "run again"])
def test_metadata_and_the_mark_of_one_way_stay_with_a_request(
    messages: Messages, runs: int | None
) -> None:
    # given
    came_with = {"trace": "a1", "x-other": "text", "number": 5, ONE_WAY: True, RESENT: 7}
    # when
    anew = messages.request_anew(call(headers=came_with), now=101.0, runs=runs)
    # then
    marks = {GIVEN_BACK: True, RESENT: 7} if runs is None else {RUNS: 2}
    assert anew.properties["headers"] == {"trace": "a1", ONE_WAY: True, **marks}


@pytest.mark.parametrize("runs", [None, 2], ids=["given back", "run again"])
@pytest.mark.parametrize(
    ("came_with", "own", "goes_with", "user"),
    [
        ({"user_id": "ann"}, "server", "server", "ann"),
        ({"user_id": "server", "headers": {USER: "ann"}}, "server", "server", "ann"),
        ({"user_id": "bob", "headers": {USER: "ann"}}, "server", "server", "bob"),
        ({"headers": {USER: "ann"}}, "server", None, None),
        ({}, "server", None, None),
        # it is not certain as whom it could be sent
        ({"user_id": "ann"}, None, None, None),
    ],
)
def test_a_server_sends_a_request_anew_as_itself_and_says_for_whom(
    came_with: dict[str, Any],
    own: str | None,
    goes_with: str | None,
    user: str | None,
    runs: int | None,
) -> None:
    messages = Messages("server", get_serializer("json"), own)
    anew = messages.request_anew(call(**came_with), now=101.0, runs=runs)
    assert anew.properties.get("user_id") == goes_with
    assert anew.properties["headers"].get(USER) == user


def test_the_reply_to_a_one_way_call_does_not_come_back(messages: Messages) -> None:
    reply = messages.reply(call(headers={ONE_WAY: True}), Answer("nobody", b""))

    assert not reply.mandatory
    assert reply.confirm
