"""py-amqp is the measure: it writes what is parsed here, and reads what is packed here."""

from collections.abc import Iterable
from itertools import product
from random import Random
from struct import pack, unpack_from
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from amqp import spec
from amqp.basic_message import Message
from amqp.exceptions import UnexpectedFrame
from amqp.method_framing import frame_handler, frame_writer
from amqp.serialization import dumps, loads
from hypothesis import example, given
from hypothesis import strategies as st

from qam._broker.frames import Confirm, FrameParser, pack_ack, pack_publish
from qam._broker.messages import Delivery, Publish, Route
from tests.support.examples import examples

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
OVERHEAD = 8  # bytes of a frame that are around its payload
SMALLEST, USUAL = 4096, 131072  # what a broker may say for frame_max, and what RabbitMQ says
HANDLED = {spec.Basic.Deliver, spec.Basic.Ack, spec.Basic.Nack}
ALL_METHODS = {
    method
    for kind in vars(spec).values()
    if isinstance(kind, type)
    for method in vars(kind).values()
    if isinstance(method, tuple) and [type(part) for part in method] == [int, int]
}

ROUTE = Route("exchange", "key")
# One of each, in the order in which they travel.
EACH_PROPERTY: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "headers": {"x-qam-runs": 2, "nested": {"list": [1, True, None, "é"]}},
    "delivery_mode": 2,
    "priority": 9,
    "correlation_id": "call:1",
    "reply_to": "till_client_routing_key",
    "expiration": "60000",
    "message_id": "message",
    "timestamp": 2**40,
    "type": "request",
    "user_id": "guest",
    "app_id": "qam",
    "cluster_id": "cluster",
}
TEXTS = [name for name, value in EACH_PROPERTY.items() if isinstance(value, str)]


# --- what py-amqp writes ----------------------------------------------------------------


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def frames_of(data: bytes) -> list[tuple[int, int, bytes]]:
    """Each frame of *data*: its kind, channel and payload."""
    frames, at = [], 0
    while at < len(data):
        kind, channel, size = unpack_from(">BHI", data, at)
        frames.append((kind, channel, data[at + 7 : at + 7 + size]))
        at += size + OVERHEAD
    assert at == len(data)
    return frames


def content_of(body: bytes, properties: dict[str, Any]) -> Message:
    named = {"application_headers" if k == "headers" else k: v for k, v in properties.items()}
    return Message(body, **named)


def write(
    method: tuple[int, int],
    arguments: bytes,
    content: Message | None = None,
    channel: int = 1,
    frame_max: int = USUAL,
) -> bytes:
    """What py-amqp writes, whether at once, as it does for small bodies, or frame by frame."""
    written: list[bytes] = []
    transport = SimpleNamespace(write=lambda data: written.append(bytes(data)))
    connection = SimpleNamespace(frame_max=frame_max, bytes_sent=0)
    frame_writer(connection, transport)(METHOD, channel, method, arguments, content)
    data = b"".join(written)
    if content is None or len(frames_of(data)) > 1:
        return data
    # amqp 5.3.0 leaves the header of an empty body out where the method fills its first frame.
    header = pack(">HHQ", method[0], 0, 0) + content._serialize_properties()
    return data + frame(HEADER, channel, header)


def publish(message: Publish, channel: int = 1, frame_max: int = USUAL) -> bytes:
    arguments = dumps("Bssbb", (0, *message.route, message.mandatory, False))
    content = content_of(message.body, message.properties)
    return write(spec.Basic.Publish, arguments, content, channel, frame_max)


def deliver(
    body: bytes = b"body",
    properties: dict[str, Any] | None = None,
    *,
    consumer_tag: str = "consumer",
    tag: int = 1,
    redelivered: bool = False,
    route: Route = ROUTE,
    channel: int = 1,
    frame_max: int = USUAL,
) -> bytes:
    arguments = dumps("sLbss", (consumer_tag, tag, redelivered, *route))
    content = content_of(body, properties or {})
    return write(spec.Basic.Deliver, arguments, content, channel, frame_max)


def give_back(body: bytes = b"body", properties: dict[str, Any] | None = None) -> bytes:
    arguments = dumps("Bsss", (312, "NO_ROUTE", "exchange", "key"))
    return write(spec.Basic.Return, arguments, content_of(body, properties or {}))


def ack(tag: int, multiple: bool = False, channel: int = 1) -> bytes:
    return write(spec.Basic.Ack, dumps("Lb", (tag, multiple)), channel=channel)


def nack(tag: int, multiple: bool = False, requeue: bool = False) -> bytes:
    return write(spec.Basic.Nack, dumps("Lbb", (tag, multiple, requeue)))


HEARTBEAT_FRAME = frame(HEARTBEAT, 0, b"")
BLOCKED = write(spec.Connection.Blocked, dumps("s", ["low on memory"]), channel=0)
CLOSE = write(spec.Connection.Close, dumps("BsBB", (320, "bye", 0, 0)), channel=0)
QOS_OK = write(spec.Basic.QosOk, b"")
MARK = b"the next one"  # the body of a message that comes after what a test is about


# --- what is read -----------------------------------------------------------------------


class Delivered(NamedTuple):
    consumer_tag: str
    tag: int
    redelivered: bool
    properties: str  # sorted; as text, because 1 == True == 1.0
    body: bytes


class Confirmed(NamedTuple):
    tag: int
    multiple: bool
    taken: bool


class Other(NamedTuple):
    """A method that py-amqp is to handle."""

    channel: int
    payload: bytes
    properties: str
    body: bytes


Came = list[Delivered | Confirmed | Other]


def as_text(properties: dict[str, Any]) -> str:
    return repr(sorted(properties.items()))


class Reader:
    """py-amqp's reader, and what it made of the frames that it was given."""

    def __init__(self) -> None:
        self.came: Came = []
        self.take = frame_handler(SimpleNamespace(bytes_recv=0), self._on_method)

    def _on_method(
        self, channel: int, method: tuple[int, int], payload: bytes, content: Message | None
    ) -> None:
        properties, body = {}, b""
        if content is not None:
            properties, body = dict(content.properties), content.body or b""
            if "application_headers" in properties:
                properties["headers"] = properties.pop("application_headers")
        if method == spec.Basic.Deliver:
            (consumer_tag, tag, redelivered, _, _), _ = loads("sLbss", payload, 4)
            self.came.append(Delivered(consumer_tag, tag, redelivered, as_text(properties), body))
        elif method in (spec.Basic.Ack, spec.Basic.Nack):
            (tag, multiple), _ = loads("Lb", payload, 4)
            self.came.append(Confirmed(tag, multiple, method == spec.Basic.Ack))
        else:
            self.came.append(Other(channel, payload, as_text(properties), body))


def read_by_py_amqp(data: bytes) -> Came:
    reader = Reader()
    for each in frames_of(data):
        reader.take(each)
    return reader.came


def parse(*pieces: bytes) -> list[Any]:
    """What a parser returns of *pieces*, each of which it is asked about."""
    parser, came = FrameParser(), []
    for piece in pieces:
        parser.feed(piece)
        came += parse_on(parser)
    return came


def parse_on(parser: FrameParser) -> list[Any]:
    came = []
    while (each := parser.parse()) is not None:
        came.append(each)
    return came


def completed(parsed: Iterable[Any]) -> Came:
    """*parsed* as py-amqp would say it, which is given what is handed on to it."""
    reader = Reader()
    for each in parsed:
        if isinstance(each, Delivery):
            assert type(each.body) is bytes
            reader.came.append(
                Delivered(
                    each.consumer_tag,
                    each.delivery_tag,
                    each.redelivered,
                    as_text(each.properties),
                    each.body,
                )
            )
        elif isinstance(each, Confirm):
            reader.came.append(Confirmed(*each))
        else:
            reader.take(each)
    return reader.came


def the_one(parsed: list[Any]) -> Any:
    (only,) = parsed
    return only


def in_pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    ends = sorted({*cuts, len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# --- what is made up --------------------------------------------------------------------


short_texts = st.sampled_from(
    ["", "a" * 255, "é" * 127 + "a", "€" * 85, "\N{OCTOPUS}" * 63, "\0"]
) | st.text(max_size=80).map(lambda text: text.encode()[:255].decode(errors="ignore"))

header_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([-(2**31), 1 - 2**31, 2**31 - 1, 2**31])
    | st.floats()
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short_texts, inner, max_size=4),
    max_leaves=8,
)

VALUES: dict[type, st.SearchStrategy[Any]] = {
    str: short_texts,
    dict: st.dictionaries(short_texts, header_values, max_size=5),
    int: st.integers(0, 255),
}
numbers = st.sampled_from([1, 2**32, 2**64 - 1]) | st.integers(0, 2**64 - 1)
# Each of them there or not; None says that it is not.
some_properties = st.fixed_dictionaries(
    {},
    optional={
        name: st.none() | (numbers if name == "timestamp" else VALUES[type(value)])
        for name, value in EACH_PROPERTY.items()
    },
)

channels = st.sampled_from([1, 2, 255, 256, 65535]) | st.integers(1, 65535)
routes = st.builds(Route, short_texts, short_texts)


def body_of(size: int) -> bytes:
    """*size* bytes in which no two places look the same for long."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def sizes(frame_max: int) -> st.SearchStrategy[int]:
    """Sizes of bodies, most of them where the number of frames changes.

    A little below it py-amqp changes from one write to one for each frame.
    """
    largest = frame_max - OVERHEAD
    return (
        st.sampled_from([0, 1, largest - 1, largest, largest + 1, 2 * largest, 2 * largest + 1])
        | st.integers(largest - 500, largest + 10)
        | st.integers(0, 4 * largest)
    )


# Less often the larger one, with which the bodies are large too.
frames_and_bodies = st.sampled_from([SMALLEST, SMALLEST, USUAL]).flatmap(
    lambda frame_max: st.tuples(st.just(frame_max), sizes(frame_max).map(body_of))
)


# --- publishing -------------------------------------------------------------------------


@given(routes, st.booleans(), some_properties, channels, frames_and_bodies)
def test_a_message_is_packed_as_py_amqp_writes_it(
    route: Route,
    mandatory: bool,
    properties: dict[str, Any],
    channel: int,
    frame_and_body: tuple[int, bytes],
) -> None:
    frame_max, body = frame_and_body
    message = Publish(route, body, properties, mandatory)

    packed = b"".join(pack_publish(message, channel, frame_max))

    assert packed == publish(message, channel, frame_max)


def test_every_combination_of_properties_is_packed_and_parsed_as_by_py_amqp() -> None:
    method, *_ = frames_of(deliver())
    for chosen in product((False, True), repeat=len(EACH_PROPERTY)):
        properties = {
            name: EACH_PROPERTY[name]
            for name, there in zip(EACH_PROPERTY, chosen, strict=True)
            if there
        }
        message = Publish(ROUTE, b"body", properties)

        written = publish(message, frame_max=SMALLEST)
        assert b"".join(pack_publish(message, 1, SMALLEST)) == written

        _, *content = frames_of(written)  # as a delivery has it behind its method too
        data = b"".join(frame(*each) for each in (method, *content))
        assert the_one(parse(data)).properties == properties


@pytest.mark.parametrize("frame_max", [SMALLEST, USUAL])
@pytest.mark.parametrize("properties", [{}, EACH_PROPERTY], ids=["bare", "all"])
def test_a_body_is_cut_into_the_frames_that_py_amqp_makes_of_it(
    frame_max: int, properties: dict[str, Any]
) -> None:
    largest = frame_max - OVERHEAD
    for size in (0, 1, largest - 1, largest, largest + 1, 2 * largest, 3 * largest + 1):
        message = Publish(ROUTE, body_of(size), properties)

        packed = b"".join(pack_publish(message, 7, frame_max))

        assert packed == publish(message, 7, frame_max)
        bodies = [payload for kind, _, payload in frames_of(packed) if kind == BODY]
        assert b"".join(bodies) == message.body
        assert all(0 < len(payload) <= largest for payload in bodies)


def test_a_body_is_in_one_frame_where_the_broker_sets_no_limit() -> None:
    message = Publish(ROUTE, body_of(3 * USUAL), {})

    packed = b"".join(pack_publish(message, 1, 2**32))

    assert [kind for kind, _, _ in frames_of(packed)] == [METHOD, HEADER, BODY]
    assert packed == publish(message, 1, 4 * USUAL)


@given(routes, some_properties, st.integers(0, 10000).map(body_of))
def test_py_amqp_reads_the_message_that_was_packed(
    route: Route, properties: dict[str, Any], body: bytes
) -> None:
    # given a message as it would come to a consumer: after another method
    _, *content = frames_of(b"".join(pack_publish(Publish(route, body, properties), 1, SMALLEST)))
    method, *_ = frames_of(deliver())
    reader = Reader()

    # when
    for each in (method, *content):
        reader.take(each)

    # then
    there = {name: value for name, value in properties.items() if value is not None}
    assert the_one(reader.came) == Delivered("consumer", 1, False, as_text(there), body)


def test_a_message_is_not_mistaken_for_one_that_went_before() -> None:
    ways = list(product(["", "a", "b"], ["", "a", "b"], [True, False], [1, 2, 258]))
    for exchange, key, mandatory, channel in ways * 2:
        properties = {"content_type": exchange, "content_encoding": key, "reply_to": exchange}
        message = Publish(Route(exchange, key), b"body", properties, mandatory)

        assert b"".join(pack_publish(message, channel, SMALLEST)) == publish(message, channel)


@given(some_properties, st.randoms(use_true_random=False))
@example(EACH_PROPERTY, Random(0))
def test_it_does_not_matter_in_which_order_the_properties_are(
    properties: dict[str, Any], random: Random
) -> None:
    names = list(properties)
    random.shuffle(names)
    shuffled = {name: properties[name] for name in names}

    packed = b"".join(pack_publish(Publish(ROUTE, b"body", shuffled), 1, SMALLEST))

    assert packed == publish(Publish(ROUTE, b"body", properties))


def test_packing_leaves_the_message_as_it_was() -> None:
    message = Publish(ROUTE, b"body", dict(EACH_PROPERTY), context="context")

    first = b"".join(pack_publish(message, 1, SMALLEST))

    assert b"".join(pack_publish(message, 1, SMALLEST)) == first
    assert message.properties == EACH_PROPERTY
    assert (message.body, message.context) == (b"body", "context")


def test_a_property_that_amqp_has_not_is_left_out() -> None:
    for properties in ({"colour": "red", "priority": 1}, {"priority": 1, "colour": "red"}):
        message = Publish(ROUTE, b"body", properties)

        assert b"".join(pack_publish(message, 1, SMALLEST)) == publish(message)


@pytest.mark.parametrize("text", ["\ud800", "a\udcff"])
def test_a_lone_surrogate_is_packed_as_py_amqp_writes_it(text: str) -> None:
    message = Publish(Route(text, text), b"body", dict.fromkeys(TEXTS, text))

    assert b"".join(pack_publish(message, 1, SMALLEST)) == publish(message)


@pytest.mark.parametrize("text", ["a" * 256, "é" * 128, "a" * 70000])
@pytest.mark.parametrize("name", ["exchange", "routing_key", *TEXTS])
def test_a_text_of_more_than_255_bytes_is_a_value_error(name: str, text: str) -> None:
    if name in Route._fields:
        message = Publish(ROUTE._replace(**{name: text}), b"body", {})
    else:
        message = Publish(ROUTE, b"body", {name: text})

    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011
            pack_publish(message, 1, SMALLEST)


# --- acks -------------------------------------------------------------------------------


@given(numbers, st.booleans(), channels)
def test_an_ack_is_packed_as_py_amqp_writes_it(tag: int, multiple: bool, channel: int) -> None:
    assert pack_ack(tag, multiple, channel) == ack(tag, multiple, channel)


@given(numbers, st.booleans(), channels)
def test_an_ack_that_was_packed_is_parsed_as_what_it_was(
    tag: int, multiple: bool, channel: int
) -> None:
    confirm = the_one(parse(pack_ack(tag, multiple, channel)))

    assert isinstance(confirm, Confirm)
    assert confirm == Confirm(tag, multiple, taken=True)


@pytest.mark.parametrize("method", [spec.Basic.Ack, spec.Basic.Nack])
@pytest.mark.parametrize("tag", [0, 1, 2**63, 2**64 - 1])
def test_a_confirm_is_parsed_as_py_amqp_reads_it_whatever_its_bits(
    method: tuple[int, int], tag: int
) -> None:
    for bits in range(256):
        data = frame(METHOD, 1, pack(">HHQB", *method, tag, bits))

        confirm = the_one(parse(data))

        assert isinstance(confirm, Confirm)
        assert completed([confirm]) == read_by_py_amqp(data)


@pytest.mark.parametrize("requeue", [False, True])
@pytest.mark.parametrize("multiple", [False, True])
def test_a_nack_is_a_confirm_that_says_that_nothing_was_taken(
    multiple: bool, requeue: bool
) -> None:
    confirm = the_one(parse(nack(5, multiple, requeue)))

    assert isinstance(confirm, Confirm)
    assert confirm == Confirm(5, multiple, taken=False)
    assert type(confirm.multiple) is bool


# --- deliveries -------------------------------------------------------------------------


@given(short_texts, numbers, st.booleans(), routes, some_properties, channels, frames_and_bodies)
def test_a_delivery_is_parsed_as_py_amqp_reads_it(
    consumer_tag: str,
    tag: int,
    redelivered: bool,
    route: Route,
    properties: dict[str, Any],
    channel: int,
    frame_and_body: tuple[int, bytes],
) -> None:
    # given
    frame_max, body = frame_and_body
    data = deliver(
        body,
        properties,
        consumer_tag=consumer_tag,
        tag=tag,
        redelivered=redelivered,
        route=route,
        channel=channel,
        frame_max=frame_max,
    )

    # when
    delivery = the_one(parse(data))

    # then
    assert isinstance(delivery, Delivery)
    there = {name: value for name, value in properties.items() if value is not None}
    expected = Delivered(consumer_tag, tag, redelivered, as_text(there), body)
    assert completed([delivery]) == read_by_py_amqp(data) == [expected]


def test_a_delivery_is_redelivered_if_its_first_bit_says_so() -> None:
    for bits in range(256):
        arguments = dumps("sLoss", ("consumer", 3, bits, "exchange", "key"))
        data = write(spec.Basic.Deliver, arguments, content_of(b"body", {}))

        assert completed(parse(data)) == read_by_py_amqp(data)
        assert the_one(parse(data)).redelivered is bool(bits & 1)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_a_body_arrives_in_whatever_frames_it_comes_also_empty_ones(chunks: list[bytes]) -> None:
    # given
    body = b"".join(chunks)
    method, header = frames_of(deliver(body))[:2]
    if not body:
        chunks = []  # a message without a body ends with its header
    while chunks and not chunks[-1]:
        chunks.pop()  # and another with the last byte of its body
    data = b"".join([frame(*method), frame(*header), *(frame(BODY, 1, each) for each in chunks)])

    # when
    came = parse(data + deliver(MARK))

    # then
    assert [each.body for each in came] == [body, MARK]


def test_there_is_nothing_before_something_came() -> None:
    parser = FrameParser()

    assert parser.parse() is None
    parser.feed(b"")
    assert parser.parse() is None
    assert parser.missing == 0


def test_each_delivery_has_properties_of_its_own() -> None:
    first, second = parse(deliver(b"body", EACH_PROPERTY) * 2)

    first.properties["headers"]["x-qam-runs"] = 3
    first.properties["priority"] = 0

    assert second.properties == EACH_PROPERTY


def test_what_begins_alike_is_each_deliverys_own() -> None:
    usual = {"content_type": "a/b", "content_encoding": "utf-8", "delivery_mode": 2}
    usual["correlation_id"] = "call:1"
    first, second = parse(deliver(b"body", usual) * 2)

    first.properties["content_type"] = first.properties["correlation_id"] = "changed"

    assert second.properties == usual


# --- pieces -----------------------------------------------------------------------------


def short_stream() -> bytes:
    """One of each, with a heartbeat and a method of the connection within a large message."""
    frames = [frame(*each) for each in frames_of(deliver(body_of(60), frame_max=24, tag=6))]
    assert len(frames) == 6
    frames[3:3] = [HEARTBEAT_FRAME]
    frames[5:5] = [BLOCKED]
    return b"".join(
        (
            deliver(b"body", {"correlation_id": "call:1", "headers": {"a": 1}}),
            deliver(b"", {"reply_to": "key"}, tag=2),
            ack(7, multiple=True),
            ack(8),
            *frames,
            nack(9),
            give_back(b"x"),
            HEARTBEAT_FRAME,
            deliver(b"", tag=7, redelivered=True),
        )
    )


def handed_on(parsed: Iterable[Any]) -> list[Any]:
    return [each for each in parsed if not isinstance(each, (Delivery, Confirm))]


def test_several_that_come_in_one_piece_are_parsed_one_after_the_other() -> None:
    parsed = parse(short_stream())

    assert [type(each) for each in parsed] == [
        *(Delivery, Delivery, Confirm, Confirm),
        *(tuple, tuple, Delivery, Confirm),
        *(tuple, tuple, tuple, tuple, Delivery),
    ]
    assert completed(parsed) == read_by_py_amqp(short_stream())


def test_it_does_not_matter_where_the_network_cuts_once() -> None:
    stream = short_stream()
    whole = parse(stream)
    expected, frames = completed(whole), handed_on(whole)
    assert expected == read_by_py_amqp(stream)

    for cut in range(len(stream) + 1):
        came = parse(stream[:cut], stream[cut:])
        assert completed(came) == expected, cut
        assert handed_on(came) == frames, cut


def test_it_does_not_matter_how_small_the_pieces_are() -> None:
    stream = short_stream()
    whole = parse(stream)
    expected, frames = completed(whole), handed_on(whole)

    for size in range(1, len(stream)):
        came = parse(*in_pieces(stream, range(size, len(stream), size)))
        assert completed(came) == expected, size
        assert handed_on(came) == frames, size


def test_a_message_is_there_with_its_last_byte_and_not_before() -> None:
    for data in (deliver(b"body"), deliver(b""), deliver(body_of(60), frame_max=24), ack(1)):
        parser = FrameParser()
        for octet in data[:-1]:
            parser.feed(bytes((octet,)))
            assert parser.parse() is None
        parser.feed(data[-1:])

        assert completed([parser.parse()]) == read_by_py_amqp(data)
        assert parser.parse() is None


deliveries = st.builds(
    deliver,
    st.integers(0, 300).map(body_of),
    some_properties,
    consumer_tag=short_texts,
    tag=numbers,
    redelivered=st.booleans(),
    frame_max=st.sampled_from([40, 200, USUAL]),  # no broker's, but the stream stays short
)
streams = st.lists(
    deliveries
    | st.builds(ack, numbers, st.booleans())
    | st.builds(nack, numbers, st.booleans(), st.booleans())
    | st.builds(give_back, st.integers(0, 50).map(body_of), some_properties)
    | st.sampled_from([HEARTBEAT_FRAME, BLOCKED, CLOSE, QOS_OK]),
    min_size=1,
    max_size=12,
).map(b"".join)


@given(streams, st.data())
def test_whatever_comes_in_whatever_pieces_is_parsed_as_py_amqp_reads_it(
    stream: bytes, data: st.DataObject
) -> None:
    # given
    cuts = data.draw(st.sets(st.integers(1, len(stream)), max_size=20))
    parser, came = FrameParser(), []

    # when
    for piece in in_pieces(stream, cuts):
        parser.feed(piece)
        if data.draw(st.booleans()):
            came += parse_on(parser)
    came += parse_on(parser)

    # then
    assert completed(came) == read_by_py_amqp(stream)
    heartbeats = [each for each in frames_of(stream) if each[0] == HEARTBEAT]
    assert [each for each in handed_on(came) if each[0] == HEARTBEAT] == heartbeats
    assert parser.missing == 0


# --- what is handed on ------------------------------------------------------------------


@pytest.mark.parametrize(
    "between",
    [HEARTBEAT_FRAME, BLOCKED, CLOSE, HEARTBEAT_FRAME * 2 + BLOCKED],
    ids=["heartbeat", "blocked", "close", "several"],
)
@pytest.mark.parametrize("body", [b"", b"body", body_of(3 * SMALLEST)], ids=["no", "one", "four"])
def test_what_the_connection_says_within_a_message_is_handed_on_and_the_message_arrives(
    between: bytes, body: bytes
) -> None:
    frames = [frame(*each) for each in frames_of(deliver(body, EACH_PROPERTY, frame_max=SMALLEST))]
    for place in range(len(frames) + 1):
        data = b"".join([*frames[:place], between, *frames[place:]])

        came = parse(data)

        assert handed_on(came) == frames_of(between)
        (delivery,) = (each for each in came if isinstance(each, Delivery))
        assert delivery.body == body
        assert delivery.properties == EACH_PROPERTY
        assert completed(came) == read_by_py_amqp(data)


def test_what_comes_within_a_message_is_not_held_back_until_its_end() -> None:
    method, header, _ = frames_of(deliver(b"body"))
    parser = FrameParser()
    parser.feed(frame(*method) + HEARTBEAT_FRAME + frame(*header) + BLOCKED)

    assert parse_on(parser) == frames_of(HEARTBEAT_FRAME + BLOCKED)


def test_a_heartbeat_on_the_channel_of_a_message_does_not_disturb_it() -> None:
    frames = [frame(*each) for each in frames_of(deliver(b"body"))]
    heartbeat = frame(HEARTBEAT, 1, b"")

    *heartbeats, delivery = parse(heartbeat.join(frames))

    assert heartbeats == [(HEARTBEAT, 1, b"")] * 2
    assert delivery.body == b"body"


@pytest.mark.parametrize("body", [b"", b"body", body_of(USUAL + 1)], ids=["no", "one", "two"])
def test_a_message_that_comes_back_is_handed_on_frame_by_frame(body: bytes) -> None:
    data = give_back(body, EACH_PROPERTY)

    came = parse(data + deliver(MARK))

    assert came[:-1] == frames_of(data)
    assert came[-1].body == MARK
    assert completed(came) == read_by_py_amqp(data + deliver(MARK))


@pytest.mark.parametrize("method", sorted(ALL_METHODS - HANDLED))
@pytest.mark.parametrize("channel", [0, 1, 65535])
def test_every_other_method_is_handed_on(method: tuple[int, int], channel: int) -> None:
    payload = pack(">HH", *method) + b"arguments"

    assert parse(frame(METHOD, channel, payload)) == [(METHOD, channel, payload)]


def test_the_methods_are_those_of_amqp() -> None:
    assert ALL_METHODS > HANDLED
    assert {spec.Connection.Tune, spec.Basic.GetOk, spec.Confirm.SelectOk} < ALL_METHODS


@given(
    st.sampled_from([METHOD, HEADER, BODY, HEARTBEAT]),
    st.integers(0, 65535),
    st.binary(max_size=50),
)
@example(METHOD, 1, b"")
@example(METHOD, 1, pack(">HH", *spec.Basic.Deliver)[:3])
@example(BODY, 1, pack(">HH", *spec.Basic.Deliver))
@example(HEADER, 1, pack(">HHQB", *spec.Basic.Ack, 1, 0))
@example(HEARTBEAT, 0, pack(">HHQB", *spec.Basic.Nack, 1, 0))
def test_every_frame_of_no_message_is_handed_on(kind: int, channel: int, payload: bytes) -> None:
    if kind == METHOD and len(payload) >= 4 and unpack_from(">HH", payload) in HANDLED:
        return

    came = parse(frame(kind, channel, payload) + deliver(MARK))

    assert came[0] == (kind, channel, payload)
    assert came[1].body == MARK


# --- properties that nobody can read ----------------------------------------------------


def deliver_with(properties: bytes, body: bytes = b"body") -> bytes:
    """A message whose flags and properties are *properties*."""
    method, _, *chunks = frames_of(deliver(body))
    header = (HEADER, 1, pack(">HHQ", *(spec.Basic.CLASS_ID, 0, len(body))) + properties)
    return b"".join(frame(*each) for each in (method, header, *chunks))


def packed_properties(properties: dict[str, Any]) -> bytes:
    """Flags and properties as py-amqp writes them."""
    _, (_, _, payload), *_ = frames_of(deliver(b"body", properties))
    return payload[12:]


CONTENT_TYPE, HEADERS, CORRELATION_ID, ALL_FLAGS = b"\x80\0", b"\x20\0", b"\x04\0", b"\xff\xfc"


@pytest.mark.parametrize(
    "properties",
    [
        CONTENT_TYPE,
        CONTENT_TYPE + b"\x01\xff",
        CONTENT_TYPE + b"\x03a\xc3",
        CORRELATION_ID + b"\x02\xc3\x28",
        HEADERS,
        HEADERS + b"\0\0",
        HEADERS + b"\0\0\0\x10",
        HEADERS + b"\xff\xff\xff\xff",
        HEADERS + b"\0\0\0\x03\x01a?",
        HEADERS + b"\0\0\0\x03\x01aI\0",
        HEADERS + b"\0\0\0\x0b\x01aT" + b"\xff" * 8,
        HEADERS + pack(">I", 40000) + b"\0F\0\0\x10\0" * 5000,
        ALL_FLAGS,
        ALL_FLAGS + b"\0" * 3,
    ],
    ids=[
        *("no text", "no utf-8", "half a character", "no utf-8 in another"),
        *("no table", "half a size", "empty table", "no end of it"),
        *("unknown type", "half a number", "no date", "too deep"),
        *("nothing", "too little"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"body", body_of(USUAL)], ids=["no", "one", "two"])
def test_a_message_whose_properties_are_broken_arrives_without_them(
    properties: bytes, body: bytes
) -> None:
    broken, following = parse(deliver_with(properties, body) + deliver(MARK, EACH_PROPERTY))

    assert broken.properties == {}
    assert broken.body == body
    assert (broken.consumer_tag, broken.delivery_tag) == ("consumer", 1)
    assert following.body == MARK
    assert following.properties == EACH_PROPERTY


def test_properties_that_end_too_early_are_none() -> None:
    whole = packed_properties(EACH_PROPERTY)
    last = len(EACH_PROPERTY["cluster_id"])
    for end in range(2, len(whole) - last):
        broken, following = parse(deliver_with(whole[:end]) + deliver(MARK))

        assert broken.properties == {}, end
        assert broken.body == b"body"
        assert following.body == MARK


# Flags as they are for some of the properties, and any.
flags = st.sampled_from([CONTENT_TYPE, HEADERS, CORRELATION_ID, ALL_FLAGS]) | st.binary(
    min_size=2, max_size=2
)


@examples(300)
@given(flags, st.binary(max_size=100), st.binary(max_size=20))
def test_no_properties_whatever_disturb_the_messages_around_them(
    flags: bytes, octets: bytes, body: bytes
) -> None:
    first, broken, following = parse(
        deliver(b"first") + deliver_with(flags + octets, body) + deliver(MARK, EACH_PROPERTY)
    )

    assert first.body == b"first"
    assert broken.body == body
    assert following.body == MARK
    assert following.properties == EACH_PROPERTY


@examples(200)
@given(some_properties, st.data())
def test_properties_with_changed_bytes_are_what_py_amqp_makes_of_them_if_it_can(
    properties: dict[str, Any], data: st.DataObject
) -> None:
    # given
    octets = bytearray(packed_properties(properties))
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    stream = deliver_with(bytes(octets)) + deliver(MARK)

    # when
    came = parse(stream)

    # then
    assert [each.body for each in came] == [b"body", MARK]
    try:
        expected = read_by_py_amqp(stream)
    except Exception:  # it raises whatever there is
        return
    assert completed(came) == expected


# --- what is no AMQP --------------------------------------------------------------------


NO_AMQP = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n400 Bad Request",
    "amqp of another version": b"AMQP\x00\x01\x00\x00",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "smtp": b"220 mail.example.org ESMTP\r\n",
    "zeros": b"\0" * 20,
}


@pytest.mark.parametrize("data", NO_AMQP.values(), ids=NO_AMQP.keys())
def test_an_answer_of_something_else_is_unexpected(data: bytes) -> None:
    with pytest.raises(UnexpectedFrame, match="does not speak AMQP"):
        parse(data)
    with pytest.raises(UnexpectedFrame, match="does not speak AMQP"):
        parse(*in_pieces(data, range(1, len(data))))


TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"


@pytest.mark.parametrize("more", [b"", TLS_ALERT], ids=["one", "two"])
def test_the_alert_of_a_tls_server_says_what_to_do(more: bytes) -> None:
    with pytest.raises(UnexpectedFrame, match=r"speaks TLS.*ssl=True"):
        parse(TLS_ALERT + more)
    with pytest.raises(UnexpectedFrame, match="speaks TLS"):
        parse(*in_pieces(TLS_ALERT + more, range(1, 7)))


@given(st.binary(min_size=7, max_size=100), st.sampled_from([b"", deliver(b"body")]))
def test_random_bytes_are_unexpected(data: bytes, before: bytes) -> None:
    kind, _, size = unpack_from(">BHI", data)
    if kind in (METHOD, HEADER, BODY, HEARTBEAT) and size <= USUAL:
        return
    parser = FrameParser()
    parser.feed(before + data)

    if before:
        assert parser.parse().body == b"body"
    with pytest.raises(UnexpectedFrame):
        parser.parse()


@pytest.mark.parametrize("kind", [METHOD, HEADER, BODY, HEARTBEAT])
def test_a_frame_that_is_larger_than_agreed_is_unexpected_before_it_is_there(kind: int) -> None:
    parser = FrameParser()
    parser.frame_max = SMALLEST
    parser.feed(pack(">BHI", kind, 1, SMALLEST + 1))

    with pytest.raises(UnexpectedFrame):
        parser.parse()


@pytest.mark.parametrize("frame_max", [SMALLEST, USUAL, 4 * USUAL, 2**32])
def test_the_largest_frame_that_was_agreed_on_is_taken(frame_max: int) -> None:
    # given
    parser = FrameParser()
    parser.frame_max = frame_max
    body = body_of(min(frame_max, 5 * USUAL) - OVERHEAD)
    data = deliver(body, frame_max=len(body) + 2 * OVERHEAD)
    assert len(frames_of(data)) == 3

    # when
    parser.feed(data)

    # then
    assert the_one(parse_on(parser)).body == body


def test_a_size_that_is_agreed_on_later_holds_from_then_on() -> None:
    large = deliver(body_of(2 * USUAL), frame_max=3 * USUAL)
    parser = FrameParser()
    parser.feed(BLOCKED)
    assert parse_on(parser) == frames_of(BLOCKED)

    parser.frame_max = 3 * USUAL
    parser.feed(large)

    assert the_one(parse_on(parser)).body == body_of(2 * USUAL)


@pytest.mark.parametrize("end", [b"\0", b"\xcd", b"\x01"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_frame_without_its_end_mark_is_unexpected(number: int, end: bytes) -> None:
    frames = [frame(*each) for each in frames_of(deliver(b"body"))]
    frames[number] = frames[number][:-1] + end

    with pytest.raises(UnexpectedFrame):
        parse(b"".join(frames) + deliver(MARK))
    with pytest.raises(UnexpectedFrame):
        parse(*in_pieces(b"".join(frames), range(1, 1000)))


@pytest.mark.parametrize("end", [b"\0", b"\xcd"])
@pytest.mark.parametrize("data", [ack(1), nack(1), HEARTBEAT_FRAME, BLOCKED])
def test_a_frame_of_no_message_without_its_end_mark_is_unexpected_too(
    data: bytes, end: bytes
) -> None:
    with pytest.raises(UnexpectedFrame):
        parse(data[:-1] + end)


METHOD_FRAME, HEADER_FRAME, *BODY_FRAMES = (
    frame(*each) for each in frames_of(deliver(body_of(30), frame_max=18))
)
OUT_OF_ORDER = {
    "body before header": [METHOD_FRAME, BODY_FRAMES[0]],
    "header twice": [METHOD_FRAME, HEADER_FRAME, HEADER_FRAME],
    "header between bodies": [METHOD_FRAME, HEADER_FRAME, BODY_FRAMES[0], HEADER_FRAME],
    "deliver twice": [METHOD_FRAME, METHOD_FRAME],
    "ack before header": [METHOD_FRAME, ack(1)],
    "nack before body": [METHOD_FRAME, HEADER_FRAME, nack(1)],
    "method between bodies": [METHOD_FRAME, HEADER_FRAME, BODY_FRAMES[0], QOS_OK],
    "deliver between bodies": [METHOD_FRAME, HEADER_FRAME, BODY_FRAMES[0], METHOD_FRAME],
}


@pytest.mark.parametrize("frames", OUT_OF_ORDER.values(), ids=OUT_OF_ORDER.keys())
def test_frames_of_a_message_that_are_out_of_order_are_unexpected(frames: list[bytes]) -> None:
    with pytest.raises(UnexpectedFrame):
        read_by_py_amqp(b"".join(frames))

    with pytest.raises(UnexpectedFrame):
        parse(b"".join(frames))
    with pytest.raises(UnexpectedFrame):
        parse(*frames)


# --- what is missing --------------------------------------------------------------------


def test_it_says_how_much_of_a_body_is_still_to_come() -> None:
    # given
    size, largest = 3 * SMALLEST, SMALLEST - OVERHEAD
    method, header, *chunks = frames_of(deliver(body_of(size), frame_max=SMALLEST))
    assert len(chunks) == 4
    parser = FrameParser()

    # when and then
    parser.feed(frame(*method))
    assert (parser.parse(), parser.missing) == (None, 0)
    parser.feed(frame(*header))
    assert (parser.parse(), parser.missing) == (None, size)
    for number, chunk in enumerate(chunks[:-1], 1):
        parser.feed(frame(*chunk))
        assert (parser.parse(), parser.missing) == (None, size - number * largest)
    parser.feed(frame(*chunks[-1]))
    assert parser.parse().body == body_of(size)
    assert parser.missing == 0


def test_nothing_is_missing_of_a_message_without_a_body_and_of_other_frames() -> None:
    for data in (deliver(b""), ack(1), HEARTBEAT_FRAME, BLOCKED, give_back(b"body")):
        parser = FrameParser()
        parser.feed(data)

        assert parse_on(parser)
        assert parser.missing == 0


def test_what_is_missing_is_that_of_the_message_that_comes_last() -> None:
    method, header, _ = frames_of(deliver(b"12345"))
    parser = FrameParser()
    parser.feed(deliver(body_of(100)) + frame(*method) + frame(*header) + HEARTBEAT_FRAME)

    assert len(parse_on(parser)) == 2
    assert parser.missing == 5
