"""Packs and parses the frames of the traffic: publish, deliver, ack and nack.  No I/O here.

Nearly all frames on a connection are of these methods.  py-amqp handles every method of AMQP, and
takes several times as long for each frame.  So this module packs them from parts that are
prepared once, and parses them from the pieces that come from the network.  It passes all other
frames to py-amqp unparsed.

The layout is that of AMQP 0-9-1, sections 2.3 and 4.2.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import inf
from struct import Struct, pack, unpack_from
from typing import Any, NamedTuple

from amqp.exceptions import UnexpectedFrame
from amqp.serialization import dumps, loads

from qam._broker.messages import Delivery, Publish, Route, TooLarge

# Types of frames.
_METHOD, _HEADER, _BODY, HEARTBEAT = 1, 2, 3, 8
_KINDS = frozenset((_METHOD, _HEADER, _BODY, HEARTBEAT))
_END = b"\xce"
# Class and method: the first bytes of a method frame's payload.
_BASIC = 60
_PUBLISH, _DELIVER = pack(">HH", _BASIC, 40), pack(">HH", _BASIC, 60)
_ACK, _NACK = pack(">HH", _BASIC, 80), pack(">HH", _BASIC, 120)
_METHOD_SIZE = 4

# The payload of basic.deliver without the consumer tag, exchange and routing key: class and
# method, the size of the consumer tag; and after the tag the delivery tag and a bit.
_SIZE_BESIDE_CONSUMER_TAG = _METHOD_SIZE + 1 + 9

#: Bytes around a frame's payload: type, channel and size before it, an end mark after it.
FRAME_OVERHEAD = 8
_FRAME_START = Struct(">BHI")
_START_SIZE = _FRAME_START.size
# Delivery tag and a bit: redelivered, or multiple.
_TAG_AND_BIT = Struct(">QB")
_ACK_FRAME = Struct(">BHI4sQBc")
# Class, weight, size of the body, flags of the properties.
_CONTENT_HEADER = Struct(">HHQH")
_HEADER_FRAME_START = Struct(">BHIHHQH")
# The end of a frame, and the start of the next.
_BODY_AFTER_HEADER = Struct(">cBHI")
# The start of a frame; class and method, and the size of the consumer tag.
_DELIVER_FRAME_START = Struct(">BHI4sB")


class Confirm(NamedTuple):
    """An ack of *tag*, or with *multiple* of all up to it; a nack if not *taken*."""

    tag: int
    multiple: bool
    taken: bool = True


# Bytes of the longest short string.
_MAX_TEXT = 255

#: Any other frame: its kind, channel and payload.
Frame = tuple[int, int, bytes]


# --- properties -------------------------------------------------------------------


def _pack_text(value: str) -> bytes:
    octets = value.encode("utf-8", "surrogatepass")
    if len(octets) > _MAX_TEXT:
        raise ValueError(f"AMQP takes texts of at most {_MAX_TEXT} bytes, not {len(octets)}")
    return b"%c%b" % (len(octets), octets)


# Content types and reply routing keys are few, and occur again and again.
_pack_same_text = lru_cache(maxsize=1024)(_pack_text)


def _pack_octet(value: int) -> bytes:
    return bytes((value,))


def _pack_table(value: dict[str, Any]) -> bytes:
    return bytes(dumps("F", [value]))


def _pack_time(value: int) -> bytes:
    return pack(">Q", value)


def _parse_octet(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def _parse_table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    (table,), end = loads("F", data, at)
    return table, end


def _parse_time(data: bytes, at: int) -> tuple[int, int]:
    (value,) = unpack_from(">Q", data, at)
    return value, at + 8


# In the order of the wire: name, flag, and the functions that pack and parse the value.  Without
# a function it is a text, which is parsed inline.
_Pack = Callable[[Any], bytes]
_Parse = Callable[[bytes, int], tuple[Any, int]]
_PROPERTIES: tuple[tuple[str, int, _Pack, _Parse | None], ...] = (
    ("content_type", 1 << 15, _pack_same_text, None),
    ("content_encoding", 1 << 14, _pack_same_text, None),
    ("headers", 1 << 13, _pack_table, _parse_table),
    ("delivery_mode", 1 << 12, _pack_octet, _parse_octet),
    ("priority", 1 << 11, _pack_octet, _parse_octet),
    ("correlation_id", 1 << 10, _pack_text, None),
    ("reply_to", 1 << 9, _pack_same_text, None),
    ("expiration", 1 << 8, _pack_text, None),
    ("message_id", 1 << 7, _pack_text, None),
    ("timestamp", 1 << 6, _pack_time, _parse_time),
    ("type", 1 << 5, _pack_text, None),
    ("user_id", 1 << 4, _pack_text, None),
    ("app_id", 1 << 3, _pack_text, None),
    ("cluster_id", 1 << 2, _pack_text, None),
)


_PACKERS = {name: (flag, pack_value) for name, flag, pack_value, _ in _PROPERTIES}
_FLAGS = {name: flag for name, flag, _, _ in _PROPERTIES}
# The properties that nearly every message begins with.  Their values, and so their bytes, are
# few; so both directions are cached.
_BEGINNING = ("content_type", "content_encoding", "delivery_mode")
_BEGINNING_FLAGS = sum(_FLAGS[name] for name in _BEGINNING)
_BEGINNING_MASK = _BEGINNING_FLAGS | _FLAGS["headers"]  # headers would come among them
_CORRELATION_ID, _EXPIRATION = _FLAGS["correlation_id"], _FLAGS["expiration"]
_REPLY_TO = _FLAGS["reply_to"]
# What nearly every reply, and nearly every request, has beside the beginning.
_OF_REPLY, _OF_REQUEST = _CORRELATION_ID, _CORRELATION_ID | _REPLY_TO
_USUAL = frozenset((*_BEGINNING, "correlation_id", "reply_to", "expiration"))
_RARE = frozenset(_PACKERS) - _USUAL


def _pack_properties(properties: dict[str, Any]) -> tuple[int, bytes]:
    """Return the flags of *properties*, and their packed values."""
    if not _RARE.isdisjoint(properties):
        return _pack_each(properties)
    get = properties.get
    flags, before, after = _pack_constant(
        get("content_type"), get("content_encoding"), get("delivery_mode"), get("reply_to")
    )
    if (correlation_id := get("correlation_id")) is not None:
        flags |= _CORRELATION_ID
        before += _pack_text(correlation_id)
    if (expiration := get("expiration")) is not None:
        flags |= _EXPIRATION
        after += _pack_text(expiration)
    return flags, before + after


@lru_cache(maxsize=256)
def _pack_constant(
    content_type: str | None,
    content_encoding: str | None,
    delivery_mode: int | None,
    reply_to: str | None,
) -> tuple[int, bytes, bytes]:
    """Return the flags of these properties, and their values before and after correlation_id."""
    beginning = (content_type, content_encoding, delivery_mode)
    flags, before = _pack_each(dict(zip(_BEGINNING, beginning, strict=True)))
    flag, after = _pack_each({"reply_to": reply_to})
    return flags | flag, before, after


def _pack_each(properties: dict[str, Any]) -> tuple[int, bytes]:
    """Return the flags and packed values of any properties, in the order of the wire."""
    flags, values = 0, []
    for name, (flag, pack_value) in _PACKERS.items():
        if (value := properties.get(name)) is not None:
            flags |= flag
            values.append(pack_value(value))
    return flags, b"".join(values)


@lru_cache(maxsize=256)
def _parsers(flags: int) -> tuple[tuple[str, _Parse | None], ...]:
    """Return the name and the parser of each property in *flags*."""
    return tuple((name, parse) for name, flag, _, parse in _PROPERTIES if flags & flag)


def _parse_properties(packed: bytes, flags: int) -> dict[str, Any]:
    """Return the properties in *packed*; an empty dict if they can't be parsed.

    An error here would end the connection, so that one message in a queue could end every
    connection that consumes from it.  The code that needs the properties refuses the message.
    """
    try:
        if flags & _BEGINNING_MASK != _BEGINNING_FLAGS:
            return _parse_each({}, packed, 0, flags)
        # two texts, with their lengths, and an octet
        end = 1 + packed[0]
        end += 2 + packed[end]
        properties = _parse_beginning(packed[:end]).copy()
        left = flags ^ _BEGINNING_FLAGS
        if left not in (_OF_REPLY, _OF_REQUEST):
            return _parse_each(properties, packed, end, left)
        end, start = end + 1 + packed[end], end + 1
        properties["correlation_id"] = packed[start:end].decode("utf-8", "surrogatepass")
        if left == _OF_REQUEST:
            properties["reply_to"] = _parse_same_text(packed[end : end + 1 + packed[end]])
        return properties
    except Exception:
        return {}


@lru_cache(maxsize=256)
def _parse_beginning(packed: bytes) -> dict[str, Any]:
    return _parse_each({}, packed, 0, _BEGINNING_FLAGS)


# Reply routing keys are few; their requests share one text.
@lru_cache(maxsize=1024)
def _parse_same_text(packed: bytes) -> str:
    return packed[1:].decode("utf-8", "surrogatepass")


def _parse_each(properties: dict[str, Any], packed: bytes, at: int, flags: int) -> dict[str, Any]:
    """Add to *properties* those in *flags*, whose values begin at position *at*."""
    for name, parse in _parsers(flags):
        if parse is None:
            start = at + 1
            at = start + packed[at]
            properties[name] = packed[start:at].decode("utf-8", "surrogatepass")
        else:
            properties[name], at = parse(packed, at)
    return properties


# --- packing ------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _publish_frame(channel: int, route: Route, mandatory: bool) -> bytes:
    payload = b"".join(
        (
            _PUBLISH + b"\0\0",
            _pack_text(route.exchange),
            _pack_text(route.routing_key),
            _pack_octet(mandatory),
        )
    )
    return _frame(_METHOD, channel, payload)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"".join((_FRAME_START.pack(kind, channel, len(payload)), payload, _END))


def pack_publish(message: Publish, channel: int, frame_max: int) -> list[bytes | memoryview]:
    """Return the frames that publish *message*, as a list of pieces to join.

    :param frame_max: bytes of the largest frame that the broker accepts.
    :raises ValueError: a text is too long for AMQP.
    """
    flags, packed = _pack_properties(message.properties)
    body = message.body
    size = len(body)
    method = _publish_frame(channel, message.route, message.mandatory)
    length = _CONTENT_HEADER.size + len(packed)
    header = _HEADER_FRAME_START.pack(_HEADER, channel, length, _BASIC, 0, size, flags)
    if 0 < size <= frame_max - FRAME_OVERHEAD:
        start = _BODY_AFTER_HEADER.pack(_END, _BODY, channel, size)
        return [method, header, packed, start, body, _END]
    return [
        *(method, header, packed, _END),
        *_body_frames(body, channel, frame_max - FRAME_OVERHEAD),
    ]


def _body_frames(body: bytes, channel: int, chunk: int) -> Iterator[bytes | memoryview]:
    view = memoryview(body)
    for start in range(0, len(body), chunk):
        piece = view[start : start + chunk]
        yield _FRAME_START.pack(_BODY, channel, len(piece))
        yield piece
        yield _END


def pack_ack(tag: int, multiple: bool, channel: int) -> bytes:
    """Return the frame that acknowledges a delivery, or with *multiple* all up to it."""
    return _ACK_FRAME.pack(_METHOD, channel, 13, _ACK, tag, multiple, _END)


# --- parsing ------------------------------------------------------------------------


# The first bytes of the alert by which a TLS server answers plain text.
_TLS_ALERT = b"\x15\x03"


def _why_no_amqp(data: bytes) -> str:
    if data.startswith(_TLS_ALERT):
        return "that port speaks TLS; pass ssl=True, or a URL with amqps://"
    return "the peer does not speak AMQP 0-9-1"


class FrameParser:
    """Parses deliveries, confirms and other frames from the pieces that come from the network."""

    def __init__(self) -> None:
        #: Bytes of the largest payload; a larger size shows that the peer speaks no AMQP.
        self.frame_max = 131072  # until broker and client have agreed on another size
        #: Bytes still missing from the body of the incomplete message.
        self.missing = 0
        self._data, self._at = b"", 0
        # The pieces that came after _data; joined with it when a frame is complete.
        self._pieces: list[bytes] = []
        self._unread = 0
        # The incomplete message: its channel, the payload of basic.deliver, its content header
        # and the parts of its body.
        self._channel: int | None = None
        self._arguments = b""
        self._header: bytes | None = None
        self._chunks: list[bytes] = []
        # Set if the body is larger than its consumer takes, and is dropped.
        self._too_large: TooLarge | None = None
        # By consumer tag, the size of the largest body that the consumer takes.
        self._limits: dict[bytes, int] = {}

    def set_limit(self, consumer_tag: str, max_bytes: int | None) -> None:
        """Drop bodies larger than *max_bytes* for a consumer; None for no limit, and at its end."""
        tag = consumer_tag.encode("utf-8", "surrogatepass")
        if max_bytes is None:
            self._limits.pop(tag, None)
        else:
            self._limits[tag] = max_bytes

    def feed(self, data: bytes) -> None:
        """Add the next piece from the network."""
        if self._unread:
            self._pieces.append(data)
        else:
            self._data, self._at = data, 0
        self._unread += len(data)

    def parse(self) -> Delivery | Confirm | Frame | None:
        """Return the next delivery, confirm or other frame; None if it is not complete yet.

        :raises UnexpectedFrame: the data are no AMQP.
        """
        if self._channel is None and (delivery := self._whole_message()) is not None:
            return delivery
        while (frame := self._next_frame()) is not None:
            kind, channel, payload = frame
            if channel == self._channel and kind != HEARTBEAT:
                self._continue(kind, payload)
                if self._channel is None:
                    return self._delivery()
                continue
            method = payload[:_METHOD_SIZE] if kind == _METHOD else None
            if method == _DELIVER and self._channel is None:
                self._channel, self._arguments, self._header = channel, payload, None
            elif method in (_ACK, _NACK):
                tag, bits = _TAG_AND_BIT.unpack_from(payload, _METHOD_SIZE)
                return Confirm(tag, bool(bits & 1), method == _ACK)
            else:
                return frame
        return None

    def _whole_message(self) -> Delivery | None:
        """Return the next delivery if it is complete, in one piece and in three frames.

        Nearly all are.  Returns None for anything else, also for broken frames: the caller then
        parses frame by frame.
        """
        data, at = self._data, self._at
        if len(data) - at < _DELIVER_FRAME_START.size:
            return None
        kind, channel, size, method, tag_size = _DELIVER_FRAME_START.unpack_from(data, at)
        if method != _DELIVER or kind != _METHOD or size < tag_size + _SIZE_BESIDE_CONSUMER_TAG:
            return None
        header = at + size + FRAME_OVERHEAD
        if len(data) < header + _HEADER_FRAME_START.size:
            return None
        kind, same, length, _, _, body_size, flags = _HEADER_FRAME_START.unpack_from(data, header)
        body = header + length + FRAME_OVERHEAD
        end = body + body_size + FRAME_OVERHEAD if body_size else body
        if len(data) < end or kind != _HEADER or same != channel or length < _CONTENT_HEADER.size:
            return None
        most = self.frame_max
        if size > most or length > most or body_size > most:
            return None
        if body_size and _FRAME_START.unpack_from(data, body) != (_BODY, channel, body_size):
            return None
        if not data[header - 1] == data[body - 1] == data[end - 1] == _END[0]:
            return None
        start = at + _DELIVER_FRAME_START.size
        tag = data[start : start + tag_size]
        if body_size > self._limits.get(tag, inf):
            return None
        self._at = end
        self._unread -= end - at
        packed = data[header + _HEADER_FRAME_START.size : body - 1]
        return _delivery(
            tag, data, start + tag_size, packed, flags, data[body + _START_SIZE : end - 1]
        )

    def _next_frame(self) -> Frame | None:
        if not self._has(_START_SIZE):
            return None
        kind, channel, size = _FRAME_START.unpack_from(self._data, self._at)
        if size > self.frame_max or kind not in _KINDS:
            raise UnexpectedFrame(_why_no_amqp(self._data[self._at :]))
        if not self._has(size + FRAME_OVERHEAD):
            return None
        data, start = self._data, self._at + _START_SIZE
        end = start + size
        if data[end] != _END[0]:
            raise UnexpectedFrame("a frame from the broker does not end where it should")
        self._at = end + 1
        self._unread -= size + FRAME_OVERHEAD
        return kind, channel, data[start:end]

    def _has(self, size: int) -> bool:
        """Return True if *size* bytes have come; they are then in one piece."""
        if len(self._data) - self._at >= size:
            return True
        if self._unread < size:
            return False
        self._data = b"".join((self._data[self._at :], *self._pieces))
        self._at = 0
        self._pieces.clear()
        return True

    def _continue(self, kind: int, payload: bytes) -> None:
        """Add the next frame of the incomplete message."""
        if kind != (_HEADER if self._header is None else _BODY):
            raise UnexpectedFrame("the parts of a message from the broker are out of order")
        if self._header is None:
            self._header = payload
            self.missing = _CONTENT_HEADER.unpack_from(payload)[2]
            self._too_large = self._is_too_large(self.missing)
        else:
            if self._too_large is None:
                self._chunks.append(payload)
            self.missing = max(0, self.missing - len(payload))
        if not self.missing:
            self._channel = None

    def _is_too_large(self, size: int) -> TooLarge | None:
        limit = self._limits.get(_consumer_tag(self._arguments))
        return TooLarge(size, limit) if limit is not None and size > limit else None

    def _delivery(self) -> Delivery:
        """Return the delivery that is complete now."""
        chunks, self._chunks = self._chunks, []
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        arguments, header = self._arguments, self._header or b""
        flags = _CONTENT_HEADER.unpack_from(header)[3]
        tag = _consumer_tag(arguments)
        end = _METHOD_SIZE + 1 + len(tag)
        made = _delivery(tag, arguments, end, header[_CONTENT_HEADER.size :], flags, body)
        made.too_large, self._too_large = self._too_large, None
        return made


def _consumer_tag(arguments: bytes) -> bytes:
    """Return the consumer tag in the payload of a basic.deliver; shorter if that is broken."""
    start = _METHOD_SIZE + 1
    return arguments[start : start + arguments[_METHOD_SIZE]]


def _delivery(
    consumer_tag: bytes, data: bytes, at: int, properties: bytes, flags: int, body: bytes
) -> Delivery:
    """Return the delivery made of these parts.

    :param data: contains the delivery tag, at the position *at*.
    :param properties: the packed values of the properties in *flags*.
    """
    tag, bits = _TAG_AND_BIT.unpack_from(data, at)
    consumer = consumer_tag.decode("utf-8", "surrogatepass")
    return Delivery(body, tag, bits & 1 == 1, _parse_properties(properties, flags), consumer)
