"""Whatever the properties of a message are, each owner lives, and answers the next call.

The owners are the threads that have a connection: a server's consumer and publisher, and a
proxy's. The bodies are the theme of test_fuzzing.
"""

import pickle
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from qam import QAMProxy
from qam._broker.messages import Delivery
from qam._client.request_maker import RequestMaker
from qam._protocol.correlation import CallKey, correlation_id_of, number_of
from qam._protocol.entities import reply_routing_key, request_binding, siblings_binding
from qam._protocol.properties import GIVEN_BACK, RESENT, RUNS
from qam._serialization.serializers import get_serializer
from qam._server.call import Call, is_resent
from qam._server.messages import Messages
from qam._server.record import Record
from qam._server.sibling_words import Word
from qam._server.sibling_words import decode as decode_word
from qam._server.sibling_words import encode as encode_word
from tests.conftest import Broker
from tests.support.examples import examples
from tests.support.service import Service, make_server
from tests.support.strangers import CONTENT_TYPES, AnsweredByTheTest, Stranger

# One pair of peers for all messages: what one message spoils the next one finds.
fuzzing = examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])


# --- what AMQP can carry --------------------------------------------------------------------

characters = st.characters(codec="utf-8") | st.sampled_from("\ud83d\ude00:#0123456789٣²")
short_texts = st.text(characters, max_size=60) | st.sampled_from(
    ["", ":", "#", "c:1#2", "x#y", "c:" + "9" * 200, "c:²", "c:٣", "c:-1", "\ud83d", "x" * 255]
)
whole_numbers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**31, 2**63 - 1])
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)).map(
    lambda time: time.replace(microsecond=0)
)
plain = st.one_of(
    *(st.none(), st.booleans(), whole_numbers, st.floats(), short_texts, times),
    *(st.binary(max_size=20), st.integers(-(2**31), 2**31 - 1).map(Decimal)),
)
header_values = st.recursive(
    plain,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(short_texts, each, max_size=3),
    max_leaves=5,
)
DEATH = [{"count": 2**40, "reason": "rejected", "time": datetime(2038, 1, 19), "queue": "q"}]
header_names = st.sampled_from([RESENT, RUNS, GIVEN_BACK, "x-death", "x-qam-later"]) | short_texts
headers = st.dictionaries(header_names, header_values | st.just(DEATH), max_size=4)


def property_values(addresses: st.SearchStrategy[str]) -> dict[str, st.SearchStrategy[Any]]:
    """What each property may be, where the broker looks at it too."""
    return {
        "content_type": st.sampled_from(list(CONTENT_TYPES.values())) | short_texts,
        "content_encoding": short_texts,
        "headers": headers,
        "delivery_mode": st.integers(1, 2),
        "priority": st.integers(0, 255),
        "correlation_id": short_texts,
        "reply_to": addresses | short_texts,
        "expiration": st.sampled_from(["100000", "4294967295", "00060000"]),
        "message_id": short_texts,
        "timestamp": st.integers(0, 2**64 - 1),
        "type": short_texts,
        "app_id": short_texts,
        "cluster_id": short_texts,
    }


def fits(properties: dict[str, Any]) -> bool:
    """Whether texts are as short as AMQP has them."""
    texts = [each for each in properties.values() if isinstance(each, str)]
    keys = list(properties.get("headers", ()))
    return all(len(each.encode("utf-8", "surrogatepass")) <= 255 for each in (*texts, *keys))


def properties_with(addresses: st.SearchStrategy[str] = short_texts) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=property_values(addresses)).filter(fits)


request_bodies = st.builds(
    lambda id, name, key, params: pickle.dumps(
        {"id": id, "method_name": name, "routing_key": key, "params": params}, protocol=2
    ),
    whole_numbers | short_texts | st.none(),
    st.sampled_from(["add", "fail", "nothing", "system.apply"]) | short_texts,
    short_texts,
    st.just((1, 2)) | st.lists(plain, max_size=2),
)
bodies = request_bodies | st.binary(max_size=50)


# --- a server -------------------------------------------------------------------------------


def test_both_owners_of_a_server_outlive_every_request(
    broker: Broker, server_id: str, stranger: Stranger
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    route = request_binding(server_id).route
    with (
        make_server(Service(), max_message_bytes=1000, **kwargs) as server,
        QAMProxy(timeout=60, **kwargs) as proxy,
    ):
        server.start()

        @fuzzing
        @given(bodies | st.just(bytes(1001)), properties_with())
        @example(bytes(1001), {"correlation_id": "x#y", "reply_to": "\ud83d"})
        @example(
            pickle.dumps({}), {"correlation_id": "x#y", "headers": {RUNS: True, RESENT: DEATH}}
        )
        def outlive(body: bytes, properties: dict[str, Any]) -> None:
            # twice, and so a copy is answered, judged, or asked about
            for _ in range(2):
                stranger.send(route, body, properties)
            assert proxy.add(1, 2) == 3

        outlive()


def test_the_consumer_of_a_server_outlives_whatever_comes_from_its_siblings(
    broker: Broker, server_id: str, stranger: Stranger
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    route = siblings_binding(server_id, "").route
    with make_server(Service(), **kwargs) as server, QAMProxy(timeout=60, **kwargs) as proxy:
        server.start()

        @fuzzing
        @given(
            bodies | st.sampled_from([b"[" * 50_000, b"{}", bytes(2**17 + 1)]), properties_with()
        )
        def outlives(body: bytes, properties: dict[str, Any]) -> None:
            stranger.send(route, body, properties)
            assert proxy.add(1, 2) == 3

        outlives()


# --- a proxy --------------------------------------------------------------------------------


def test_both_owners_of_a_proxy_outlive_every_reply(
    broker: Broker, server_id: str, stranger: Stranger
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    # given a proxy whose calls wait in the queue of a server that does not serve
    with (
        make_server(Service(), **kwargs),
        QAMProxy(timeout=60, max_message_bytes=1000, **kwargs) as proxy,
    ):
        consumer = proxy.consumer_thread
        peer = AnsweredByTheTest(proxy, server_id, stranger, "pickle")
        own_id = consumer.client_id
        ids = st.sampled_from([own_id, f"{own_id}:", f"{own_id}:x", f"{own_id}:²", f"{own_id}:1#2"])

        @fuzzing
        @given(
            bodies | st.just(bytes(1001)),
            properties_with(),
            st.none() | ids | short_texts.filter(lambda text: len(text) < 60),
        )
        def outlive(body: bytes, properties: dict[str, Any], correlation_id: str | None) -> None:
            properties = {k: v for k, v in properties.items() if k != "correlation_id"}
            if correlation_id is not None:
                properties["correlation_id"] = correlation_id
            stranger.send(peer._to_proxy, body, properties)
            assert peer.works()

        outlive()


class EndsThreads:
    """A class that the application trusts, and that does what no class should."""

    def __setstate__(self, state: object) -> None:
        raise SystemExit


def test_a_proxy_outlives_a_trusted_class_in_a_reply_of_a_0_2_server(
    broker: Broker, server_id: str, stranger: Stranger
) -> None:
    kwargs: dict[str, Any] = {"server_id": server_id, **broker.kwargs}
    with (
        make_server(Service(), **kwargs),
        QAMProxy(timeout=60, trusted=[EndsThreads], **kwargs) as proxy,
    ):
        peer = AnsweredByTheTest(proxy, server_id, stranger, "pickle")
        ends = EndsThreads()
        ends.state = 1  # type: ignore[attr-defined]
        peer.answer(
            1, pickle.dumps({"id": 1, "result": ends}), {"content_type": CONTENT_TYPES["pickle"]}
        )
        assert peer.works()


# --- what owners make of what they read -----------------------------------------------------

anything = st.recursive(
    plain | st.integers() | st.complex_numbers(),
    lambda each: st.lists(each) | st.dictionaries(short_texts, each) | st.frozensets(plain),
    max_leaves=4,
)


@examples(200)
@given(
    st.dictionaries(
        st.sampled_from(["correlation_id", "reply_to", "expiration", "headers", "delivery_mode"]),
        anything | headers | st.from_regex(r"-?[0-9_ ]{1,400}", fullmatch=True),
    ),
    st.booleans(),
)
def test_properties_of_any_type_are_read_as_what_they_can_be(
    properties: dict[str, Any], redelivered: bool
) -> None:
    # when, as from a broker that looks at nothing
    call = Call(Delivery(b"", 1, redelivered, properties), 1)
    again = Messages("server", get_serializer("json")).request_anew(call, now=0.0)
    # then
    assert call.key is None or (hash(call.key), call.key.number)[1] < 10**16
    assert call.runs >= 1
    left = call.time_left(now=0.0)
    assert left is None or left < 2**32
    assert again.properties["headers"].keys() <= {RESENT, RUNS, GIVEN_BACK}
    assert all(type(each) in (int, bool) for each in again.properties["headers"].values())
    # and who was told that there may have been a copy still is
    assert (RESENT in again.properties["headers"]) == is_resent(call.delivery)
    record = Record(max_answers=2)
    record.begin(call, first=True)
    record.end([call])
    if call.key is not None:
        assert record.knows(record.latest(call.key))
        assert record.is_lost(call.key) in (True, False)


@given(
    st.fixed_dictionaries({"correlation_id": short_texts, "reply_to": short_texts}),
    st.dictionaries(st.just(RUNS), st.integers(2**53 - 2, 2**53 + 2) | whole_numbers, min_size=1),
)
@example({"correlation_id": "", "reply_to": ""}, {RUNS: 2**53})
def test_servers_can_ask_each_other_about_whatever_a_request_says_it_is(
    properties: dict[str, Any], runs: dict[str, Any]
) -> None:
    # given a request, and another that is asked about in the same word
    call = Call(Delivery(b"", 1, True, {**properties, "headers": runs}), 1)
    other = CallKey("reply_to", "client:1")
    assert call.key is not None
    # when, also where it has begun already, and may run once more
    for key in (call.key, call.key.next_run):
        heard = decode_word(encode_word(Word("ask", "server", calls={key: True, other: True})))
        # then both are heard of
        assert heard is not None
        assert heard.calls == {key: True, other: True}


@given(short_texts, st.integers(0, 2**53))
def test_the_number_of_a_call_is_read_as_it_was_written(client_id: str, number: int) -> None:
    correlation_id = correlation_id_of(client_id, number)
    assert number_of(correlation_id, client_id) == number
    assert CallKey(reply_routing_key(client_id), correlation_id).number == number
    assert number_of(correlation_id, f"{client_id}x") is None


@given(short_texts, short_texts)
def test_a_number_is_only_read_of_the_clients_own_calls(
    correlation_id: str, client_id: str
) -> None:
    number = number_of(correlation_id, client_id)
    assert number is None or correlation_id.startswith(f"{client_id}:")
    # and it is believed of nobody who wants his replies elsewhere
    assert CallKey("elsewhere", correlation_id).number == -1


@given(short_texts | st.none())
def test_a_return_belongs_to_a_call_or_to_none(correlation_id: str | None) -> None:
    requests = RequestMaker("server", "c", get_serializer("json"), 1000, True)
    call_id = requests.call_id_of(correlation_id)
    assert call_id is None or str(correlation_id).startswith("c:")


@pytest.mark.parametrize("id", ["1", "2"])
def test_clients_that_number_their_calls_from_one_are_told_apart(id: str) -> None:
    here, there = (
        Call(Delivery(b"", 1, properties={"correlation_id": id, "reply_to": each}), 1)
        for each in ("here", "there")
    )
    record = Record()
    record.begin(here, first=True)
    assert here.key is not None
    assert there.key is not None
    assert record.knows(here.key)
    assert not record.knows(there.key)
    assert not record.covers(there.key)
