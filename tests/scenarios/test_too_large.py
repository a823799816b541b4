"""A message that is larger than its receiver allows: not taken in, and its sender is told."""

import logging
import pickle
import sys
import tracemalloc
from collections.abc import Iterable
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qam import QAMProxy, QAMSerializationException, QAMServerLostException
from qam._broker.connect import connect
from qam._broker.frames import FrameParser
from qam._broker.messages import Delivery, TooLarge
from qam._client.pending_call import PendingCall
from qam._protocol.entities import reply_binding, request_binding, siblings_binding
from qam._protocol.properties import RESENT, RUNS
from tests.broker.test_frames import body_of, deliver, in_pieces, parse_on
from tests.conftest import Broker
from tests.support.endpoints import endpoint_of
from tests.support.examples import examples
from tests.support.service import Service, make_server, serving
from tests.support.strangers import CONTENT_TYPES, AnsweredByTheTest, Stranger
from tests.support.waiting import until

LIMIT = 10_000
FRAME_MAX = 4096


# --- the parser ---------------------------------------------------------------------------


def parser_of(**limits: int) -> FrameParser:
    parser = FrameParser()
    for consumer_tag, limit in limits.items():
        parser.set_limit(consumer_tag, limit)
    return parser


def summary(came: Iterable[Any]) -> list[tuple[str, int, bytes, TooLarge | None]]:
    return [(each.consumer_tag, each.delivery_tag, each.body, each.too_large) for each in came]


sizes = st.sampled_from([0, 1, 9, 10, 11, 4087, 4088, 4089, 9_999, 10_000, 10_001]) | st.integers(
    0, 30_000
)
messages = st.lists(st.tuples(st.sampled_from(["small", "large", "any"]), sizes), max_size=6)


@examples(100)
@given(messages, st.lists(st.integers(0, 60_000), max_size=8))
@example([("small", 11), ("any", 11), ("large", LIMIT + 1), ("large", LIMIT)], [])
def test_what_is_too_large_for_its_consumer_comes_without_its_body(
    messages: list[tuple[str, int]], cuts: list[int]
) -> None:
    # given consumers with limits of their own, and one without
    limits = {"small": 10, "large": LIMIT}
    parser = parser_of(**limits)
    stream = b"".join(
        deliver(body_of(size), consumer_tag=consumer, tag=number, frame_max=FRAME_MAX)
        for number, (consumer, size) in enumerate(messages)
    )
    # when it comes in whatever pieces
    came = []
    for piece in in_pieces(stream, cuts):
        parser.feed(piece)
        came += parse_on(parser)
    # then
    expected = []
    for number, (consumer, size) in enumerate(messages):
        limit = limits.get(consumer, size)
        too_large = TooLarge(size, limit) if size > limit else None
        body = b"" if too_large else body_of(size)
        expected.append((consumer, number, body, too_large))
    assert summary(came) == expected
    assert parser.missing == 0


def test_its_properties_come_all_the_same() -> None:
    parser = parser_of(consumer=10)
    properties = {"correlation_id": "c:1", "reply_to": "key", "headers": {RUNS: 2}}
    parser.feed(deliver(body_of(11), properties, redelivered=True))
    [delivery] = parse_on(parser)
    assert (delivery.properties, delivery.redelivered) == (properties, True)


def test_it_is_not_held_in_memory_and_its_parts_are_signs_of_life() -> None:
    # given
    size, chunk = 32 * 2**20, 32 * 2**10
    stream = memoryview(deliver(bytes(size)))
    parser = parser_of(consumer=LIMIT)
    missing: list[int] = []
    tracemalloc.start()
    # when
    try:
        for start in range(0, len(stream), chunk):
            parser.feed(bytes(stream[start : start + chunk]))
            delivery = parser.parse()
            missing.append(parser.missing)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # then at no time is there more than some frames of it
    assert peak < 2**20
    assert delivery.too_large == TooLarge(size, LIMIT)
    # and what is still to come is known
    assert missing == sorted(missing, reverse=True)
    assert size - missing[0] < 2 * 2**17
    assert missing[-1] == 0


def test_a_consumer_that_has_ended_has_no_limit_any_more() -> None:
    parser = parser_of(consumer=10)
    parser.set_limit("consumer", None)
    parser.feed(deliver(body_of(11)))
    [delivery] = parse_on(parser)
    assert delivery.body == body_of(11)


def steps_to_parse(parser: FrameParser, message: bytes) -> int:
    """How many functions run to parse *message*."""
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal steps
        steps += event == "call"

    parser.feed(message)
    sys.setprofile(count)
    try:
        delivery = parser.parse()
    finally:
        sys.setprofile(None)
    assert isinstance(delivery, Delivery)
    return steps


def test_a_consumer_that_takes_nothing_does_not_slow_down_another() -> None:
    # given a server has such a consumer beside that of its requests
    message = deliver(body_of(LIMIT), consumer_tag="large")
    alone, beside_another = parser_of(large=LIMIT), parser_of(large=LIMIT, nothing=0)
    # when, then
    assert steps_to_parse(beside_another, message) == steps_to_parse(alone, message)


# --- requests -------------------------------------------------------------------------------


def waiting_in(broker: Broker, queue: str) -> int:
    """How many messages are in *queue* when nobody has it, which is waited for."""
    connection = connect(endpoint_of(**broker.kwargs), timeout=20)
    try:
        state = connection.inspect_queue(queue)
        assert state is not None
        return state.messages
    finally:
        connection.close()


def warnings_in(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and text in record.getMessage()
    ]


@pytest.mark.parametrize("serializer", CONTENT_TYPES)
@pytest.mark.parametrize("persistent", [True, False])
def test_the_caller_of_a_request_is_told_and_the_server_works_on(
    broker: Broker,
    server_id: str,
    caplog: pytest.LogCaptureFixture,
    serializer: str,
    persistent: bool,
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, "serializer": serializer, **broker.kwargs}
    with (
        serving(max_message_bytes=LIMIT, **kwargs) as service,
        QAMProxy(timeout=60, persistent=persistent, **kwargs) as proxy,
    ):
        # when many are too large
        for _ in range(5):
            with pytest.raises(QAMSerializationException) as raised:
                proxy.add("x" * LIMIT, "")
            # then each caller learns why, and that nothing ran
            assert raised.value.executed == "no"
            assert f"max_message_bytes={LIMIT}" in str(raised.value)
            assert "bytes, more than" in str(raised.value)
        # and what fits is taken, also just so
        assert proxy.add(1, 2) == 3
        assert service.runs == [(1, 2)]
    # and one line of the log says so
    assert len(warnings_in(caplog, "a request was rejected")) == 1
    assert waiting_in(broker, request_binding(server_id).queue) == 0


@pytest.mark.parametrize(
    "addressed", [{}, {"correlation_id": "c:1"}, {"reply_to": "nobody"}], ids=["0.2", "id", "key"]
)
def test_a_request_of_who_cant_be_told_is_dropped_once(
    broker: Broker,
    server_id: str,
    stranger: Stranger,
    caplog: pytest.LogCaptureFixture,
    addressed: dict[str, str],
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    content = {"content_type": CONTENT_TYPES["pickle"], **addressed}
    with (
        serving(max_message_bytes=LIMIT, prefetch=2, **kwargs) as service,
        QAMProxy(timeout=60, **kwargs) as proxy,
    ):
        # when there are more of them than the server holds
        for _ in range(5):
            stranger.send(request_binding(server_id).route, bytes(LIMIT + 1), content)
        # then
        assert proxy.add(1, 2) == 3
        assert service.runs == [(1, 2)]
    assert waiting_in(broker, request_binding(server_id).queue) == 0
    assert len(warnings_in(caplog, "a request was rejected")) == 1


@pytest.mark.parametrize("headers", [{RESENT: 1}, {RUNS: 2}], ids=str)
def test_nobody_is_told_that_nothing_ran_where_an_earlier_server_may_have_run_it(
    broker: Broker, server_id: str, stranger: Stranger, headers: dict[str, Any]
) -> None:
    # given a call that waits, and a server that has not seen its client before
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    server = make_server(Service(), max_message_bytes=LIMIT, **kwargs)
    with server, QAMProxy(timeout=60, **kwargs) as p:
        server.start()
        slot, call_id = p.consumer_thread.get_free_result_list_id(), 2**52
        p.consumer_thread._results.begin(PendingCall(slot, call_id))
        own = p.consumer_thread.client_id
        # when its request comes, marked, from somebody who may send larger ones
        stranger.send(
            request_binding(server_id).route,
            bytes(LIMIT + 1),
            {
                "content_type": CONTENT_TYPES["pickle"],
                "correlation_id": f"{own}:{call_id}",
                "reply_to": reply_binding(server_id, own).routing_key,
                "headers": headers,
            },
        )
        # then
        with pytest.raises(QAMServerLostException) as raised:
            p.consumer_thread.get_result(slot)
        assert raised.value.executed == "unknown"
        assert p.add(1, 2) == 3


def test_a_request_that_comes_twice_is_answered_twice(
    broker: Broker, server_id: str, stranger: Stranger
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    connection = connect(endpoint_of(**broker.kwargs), timeout=20)
    with serving(max_message_bytes=LIMIT, **kwargs), QAMProxy(timeout=60, **kwargs) as proxy:
        binding = reply_binding(server_id, "c")
        connection.declare_queue(binding)
        content = {
            "content_type": CONTENT_TYPES["pickle"],
            "correlation_id": "1",
            "reply_to": binding.routing_key,
        }
        for _ in range(2):
            stranger.send(request_binding(server_id).route, bytes(LIMIT + 1), content)
        assert proxy.add(1, 2) == 3
        until(lambda: connection.inspect_queue(binding.queue).messages == 2)  # type: ignore[union-attr]
        connection.delete_queue(binding.queue)
    connection.close()


# --- replies --------------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", [True, False])
def test_the_caller_of_a_reply_is_told_and_the_proxy_works_on(
    broker: Broker, server_id: str, caplog: pytest.LogCaptureFixture, persistent: bool
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with (
        serving(**kwargs),
        QAMProxy(timeout=60, persistent=persistent, max_message_bytes=LIMIT, **kwargs) as proxy,
    ):
        for _ in range(5):
            with pytest.raises(QAMSerializationException) as raised:
                proxy.repeat("x", LIMIT)
            assert raised.value.executed == "yes"
            assert f"max_message_bytes={LIMIT}" in str(raised.value)
        # a callback too
        failures: list[Exception] = []
        proxy.callback(failures.append, failures.append).repeat("x", LIMIT)
        until(lambda: failures)
        assert [getattr(each, "executed", None) for each in failures] == ["yes"]
        assert len(proxy.repeat("x", LIMIT - 1000)) == LIMIT - 1000
    [said] = warnings_in(caplog, "a reply")
    assert "a reply was dropped" in said


def test_a_reply_of_a_0_2_server_is_dropped(
    broker: Broker, server_id: str, stranger: Stranger
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with make_server(Service(), **kwargs), QAMProxy(max_message_bytes=LIMIT, **kwargs) as proxy:
        peer = AnsweredByTheTest(proxy, server_id, stranger, "pickle")
        slot, call_id = peer.call()
        reply = {"id": call_id, "result": "x" * LIMIT, "exception": False}
        # when
        peer.answer(call_id, pickle.dumps(reply), {"content_type": CONTENT_TYPES["pickle"]})
        # then nobody knows whose it was
        assert peer.works()
        assert not proxy.consumer_thread.is_result_received(slot)


# --- words of siblings ----------------------------------------------------------------------


def test_a_word_of_siblings_has_a_small_limit_of_its_own(
    broker: Broker, server_id: str, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with serving(**kwargs), QAMProxy(timeout=60, **kwargs) as proxy:
        # when
        for size in (2**17, 2**17 + 1, 2**20, 2**23):
            stranger.send(siblings_binding(server_id, "").route, bytes(size), {})
        # then
        assert proxy.add(1, 2) == 3
        until(lambda: warnings_in(caplog, "was ignored"))
    assert len(warnings_in(caplog, "was ignored")) == 1
