"""Whatever a message is made of: its receiver serves on, and builds nothing but values.

The messages are random bytes, valid messages with changed bytes, and hostile pickles; their
receivers are a server and a proxy that are at work.
"""

import pickle
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qam import QAMProxy
from qam._broker.messages import Route
from qam._protocol.entities import reply_exchange, request_binding
from tests.conftest import Broker
from tests.support.examples import examples
from tests.support.hostile_pickles import BOMBS, CALLS, GADGETS, MARK
from tests.support.service import Service, make_server
from tests.support.strangers import CONTENT_TYPES, AnsweredByTheTest, Stranger, encode
from tests.support.watch import nothing_but_values

# One pair of peers for all messages, as in life: what one message spoils the next one finds.
fuzzing = examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
serializers = pytest.mark.parametrize("serializer", CONTENT_TYPES)
pytestmark = [pytest.mark.watched, pytest.mark.xdist_group("fuzzing")]


# --- what comes ---------------------------------------------------------------------------


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
hostile = st.sampled_from(
    [call(*gadget) for gadget in GADGETS for call in CALLS.values()] + list(BOMBS.values())
)


@st.composite
def changed(draw: st.DrawFn, body: bytes) -> bytes:
    """*body* with some of its bytes replaced, left out or repeated."""
    octets = bytearray(body)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(octets)))
        end = draw(st.integers(start, min(len(octets), start + 8)))
        octets[start:end] = draw(st.binary(max_size=8) | st.just(octets[start:end] * 2))
    return bytes(octets)


def field_values(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Dicts in which each field is there and of its type, or not."""
    return st.fixed_dictionaries(
        {}, optional={name: each | values for name, each in fields.items()}
    )


requests = field_values(
    {
        "id": st.integers(),
        "method_name": st.sampled_from(["echo", "fail", "system.apply", "testclass.secret"]),
        "routing_key": st.text(),
        "params": st.lists(values),
    }
)
replies = field_values(
    {
        "id": st.integers(),
        "result": values,
        "exception": st.booleans(),
        "internal_exception": st.integers(-1, 9),
        "exception_type": st.sampled_from(["builtins.SystemExit", "builtins.OSError", "a.b\n"]),
        "exception_text": st.text(),
        "traceback": st.text(),
    }
)


@st.composite
def bodies(draw: st.DrawFn, valid: st.SearchStrategy[dict[str, Any]], serializer: str) -> bytes:
    body = draw(valid)
    protocol = draw(st.integers(0, pickle.HIGHEST_PROTOCOL))
    try:
        encoded = encode(body, serializer, protocol)
    except (OverflowError, UnicodeEncodeError):  # msgpack has 64 bits, and no lone surrogates
        encoded = b""
    return draw(st.binary(max_size=200) | hostile | st.just(encoded) | changed(encoded))


def properties_of(serializer: str, **fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Mostly those of a message that is right."""
    content_type = st.sampled_from([CONTENT_TYPES[serializer]] * 4 + ["text/plain", "\x00\n"])
    optional = {"content_encoding": st.sampled_from(["binary", "utf-8", "rot13", "\n"])}
    return st.fixed_dictionaries({"content_type": content_type}, optional=optional).map(
        lambda drawn: drawn | fixed
    )


# --- who looks on ---------------------------------------------------------------------------


def test_the_watch_sees_what_a_gadget_does() -> None:
    with pytest.raises(AssertionError, match=MARK), nothing_but_values():
        pickle.loads(CALLS["GLOBAL"]("builtins", "eval", (f"'{MARK}'",)))


# --- requests -----------------------------------------------------------------------------------


@serializers
def test_a_server_outlives_every_request(
    broker: Broker, server_id: str, stranger: Stranger, serializer: str
) -> None:
    kwargs: dict[str, Any] = {"serializer": serializer, "server_id": server_id, **broker.kwargs}
    to_server = request_binding(server_id).route
    addressed = {"correlation_id": "nobody:1", "reply_to": "nobody"}

    with make_server(Service(), **kwargs) as server, QAMProxy(timeout=60, **kwargs) as proxy:
        server.start()

        @fuzzing
        @given(
            bodies(requests, serializer),
            properties_of(serializer) | properties_of(serializer, **addressed),
        )
        def outlives(body: bytes, properties: dict[str, Any]) -> None:
            with nothing_but_values():
                stranger.send(to_server, body, properties)
                assert proxy.add(1, 2) == 3

        outlives()
        for gadget in GADGETS:
            with nothing_but_values():
                stranger.send(
                    to_server,
                    CALLS["GLOBAL"](*gadget),
                    properties={"content_type": CONTENT_TYPES["pickle"], **addressed},
                )
                assert proxy.add(1, 2) == 3


# --- replies ------------------------------------------------------------------------------------


@serializers
def test_a_proxy_outlives_every_reply(
    broker: Broker, server_id: str, stranger: Stranger, serializer: str
) -> None:
    kwargs: dict[str, Any] = {"serializer": serializer, "server_id": server_id, **broker.kwargs}

    # given a proxy whose calls wait in the queue of a server that does not serve
    with make_server(Service(), **kwargs), QAMProxy(**kwargs) as proxy:
        consumer = proxy.consumer_thread
        peer = AnsweredByTheTest(proxy, server_id, stranger, serializer)

        def outlives(body: bytes, properties: dict[str, Any]) -> None:
            slot, call_id = peer.call()
            with nothing_but_values():
                # when
                peer.answer(call_id, body, properties)
                # then it works on, and by now the call has an outcome if this was one
                assert peer.works()
                if consumer.is_result_received(slot):
                    look_at(consumer, slot)
            consumer.free_result_item(slot)

        fuzzing(
            given(
                bodies(replies, serializer),
                properties_of(serializer) | properties_of(serializer, correlation_id=""),
            )(outlives)
        )()
        for gadget in GADGETS:
            content = {"content_type": CONTENT_TYPES["pickle"], "correlation_id": ""}
            outlives(CALLS["GLOBAL"](*gadget), content)


def look_at(consumer: Any, slot: int) -> None:
    """Ask for the result as a caller does: it is a value, or an ordinary exception is raised."""
    try:
        result = consumer.get_result(slot)
    except Exception as error:
        repr(error)
    else:
        assert not callable(result) or isinstance(result, type)


@pytest.mark.parametrize("properties", [{}, {"correlation_id": uuid.uuid4().hex}], ids=["0.2", "1"])
def test_a_reply_that_is_for_nobody_changes_nothing(
    broker: Broker, server_id: str, stranger: Stranger, properties: dict[str, Any]
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with make_server(Service(), **kwargs), QAMProxy(**kwargs) as proxy:
        peer = AnsweredByTheTest(proxy, server_id, stranger, "pickle")
        slot, call_id = peer.call()
        key = f"{proxy.consumer_thread.client_id}_client_routing_key"
        reply = {"id": call_id - 1, "result": 4, "exception": False, "internal_exception": -1}
        content = {"content_type": CONTENT_TYPES["pickle"], **properties}

        stranger.send(Route(reply_exchange(server_id), key), pickle.dumps(reply), content)

        assert peer.works()
        assert not proxy.consumer_thread.is_result_received(slot)
