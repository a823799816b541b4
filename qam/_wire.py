"""What travels between a proxy and a server.  No I/O here.

Broker entities, all direct, durable, not exclusive, not auto-delete::

    request exchange  <server_id>_server_exchange
    request queue     <server_id>_server_queue    <server_id>_server_routing_key
    reply exchange    <server_id>_client_exchange
    reply queue       <client_id>_client_queue    <client_id>_client_routing_key
    siblings exchange <server_id>_server_siblings_exchange *
    siblings queue    <server_id>_server_siblings_queue.<instance>, one for each server *

Request body::

    field         type   set by   meaning
    id            int    proxy    unique per call, echoed in the reply
    method_name   str    proxy    "add", or "instance.method"
    routing_key   str    proxy    where the reply goes
    params        tuple  proxy    positional arguments

Reply body::

    id                  int    server  the request's
    result              any    server  the return value; the exception (pickle) or its
                                       args (JSON) if exception is true; a message if
                                       internal_exception > 0
    exception           bool   server  the call failed
    internal_exception  int    server  -1: not internal, else one of the codes below
    exception_type      str    server  module.QualifiedName of what the method raised *
    exception_text      str    server  its text *
    traceback           str    server  its traceback *

Properties: content_type, content_encoding, delivery_mode (2; or 1 for requests that
may be lost with the broker, and for their replies); on requests correlation_id
(unique per call), reply_to (the reply routing key) and expiration (milliseconds, if
the call has a timeout); replies echo correlation_id. *

Headers of requests: x-qam-resent (int), where this is not the first copy: the
milliseconds since the first one was sent; x-qam-runs (int), where the method is
idempotent and runs again: how often it has begun, this time included;
x-qam-given-back (bool), where a server that closed had no time to start it. *

Fields and properties with a * are unknown to 0.2.x peers, which ignore them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from qam._serialization import Serializer

TRANSIENT, PERSISTENT = 1, 2
RESENT, RUNS, GIVEN_BACK = "x-qam-resent", "x-qam-runs", "x-qam-given-back"

#: The largest body that is sent if nothing else is said: what RabbitMQ 4 takes.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# RabbitMQ closes the channel on an expiration of more than 32 bits of milliseconds.
_MAX_EXPIRATION = 2**32 - 1


# AMQP names have 255 bytes; ours add up to 60 to what the user chose.
_MAX_SHORT_TEXT, _MAX_NAME = 255, 190


def check_entity_name(value: object, name: str) -> None:
    """Raise TypeError or ValueError unless *value* can be part of a queue's name."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")
    if not is_short_text(value) or not 0 < len(value.encode("utf-8")) <= _MAX_NAME:
        raise ValueError(f"{name} must have 1 to {_MAX_NAME} bytes, not {value!r}")


def check_count(value: object, name: str, most: int | None = None) -> int:
    """Return *value*; raise TypeError or ValueError naming *name* unless it is 1 to *most*."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, not {value!r}")
    return value


def check_flag(value: object, name: str) -> bool:
    """Return *value*; raise TypeError naming *name* unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def check_queue_arguments(value: object) -> dict[str, Any]:
    """Return *value* as a dict, empty for None; raise TypeError unless its keys are texts."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"queue_arguments must be a dict with names as keys, not {value!r}")
    return dict(value)


def is_short_text(value: object) -> bool:
    """Return True if *value* fits where AMQP wants a short string, as in a routing key."""
    if not isinstance(value, str):
        return False
    if value.isascii():
        return len(value) <= _MAX_SHORT_TEXT
    try:
        return len(value.encode("utf-8")) <= _MAX_SHORT_TEXT
    except UnicodeEncodeError:  # lone surrogates
        return False


class Route(NamedTuple):
    """Where a message is published: an exchange, and the key it is routed by."""

    exchange: str
    routing_key: str


class QueueBinding(NamedTuple):
    """A queue, bound to an exchange with a routing key."""

    queue: str
    exchange: str
    routing_key: str

    @property
    def route(self) -> Route:
        """The way into this queue."""
        return Route(self.exchange, self.routing_key)


def request_binding(server_id: str) -> QueueBinding:
    """Return the request queue of *server_id* and its binding."""
    return QueueBinding(
        f"{server_id}_server_queue",
        f"{server_id}_server_exchange",
        f"{server_id}_server_routing_key",
    )


def reply_binding(server_id: str, client_id: str) -> QueueBinding:
    """Return the queue in which *client_id* receives the replies of *server_id*."""
    return QueueBinding(
        f"{client_id}_client_queue", reply_exchange(server_id), reply_routing_key(client_id)
    )


def siblings_binding(server_id: str, instance: str) -> QueueBinding:
    """Return the queue in which one server hears the others of its *server_id*.

    All such queues are bound with the same key: what one sends reaches every one.
    """
    return QueueBinding(
        f"{server_id}_server_siblings_queue.{instance}",
        f"{server_id}_server_siblings_exchange",
        f"{server_id}_server_siblings_routing_key",
    )


def reply_exchange(server_id: str) -> str:
    """Return the exchange to which *server_id* publishes its replies."""
    return f"{server_id}_client_exchange"


@lru_cache(maxsize=1024)  # one text for all calls of a client: many may wait
def reply_routing_key(client_id: str) -> str:
    """Return the routing key by which replies reach *client_id*."""
    return f"{client_id}_client_routing_key"


# What an owner writes before it looks at what came, and at the time.
_BATCH_MESSAGES, _BATCH_BYTES = 1000, 1024 * 1024


def batch_length(bodies: Iterable[bytes]) -> int:
    """Return how many of *bodies* make a batch: at least one, if there is one."""
    length = size = 0
    for body in islice(bodies, _BATCH_MESSAGES):
        length, size = length + 1, size + len(body)
        if size >= _BATCH_BYTES:
            break
    return length


@dataclass(slots=True, eq=False)
class Publish:
    """One message on its way to the broker.

    *context* belongs to whoever publishes: it comes back with the confirm.
    """

    route: Route
    body: bytes
    properties: dict[str, Any]
    mandatory: bool = True
    #: Whether the broker is to say that it has taken it.
    confirm: bool = True
    context: Any = None


@dataclass(slots=True, eq=False)
class Delivery:
    """One message that the broker handed to a consumer."""

    body: bytes
    delivery_tag: int
    redelivered: bool = False
    properties: dict[str, Any] = field(default_factory=dict)
    #: The consumer that it came to.
    consumer_tag: str = ""

    @property
    def correlation_id(self) -> str | None:
        """The call that this message belongs to, where its sender says so."""
        return self.properties.get("correlation_id")

    @property
    def persistent(self) -> bool:
        """False where its sender would rather lose it than wait for a disk."""
        return self.properties.get("delivery_mode") != TRANSIENT

    @property
    def time_to_live(self) -> float | None:
        """Seconds that its sender gave it; None for no end."""
        expiration = self.properties.get("expiration")
        try:
            return None if expiration is None else int(expiration) / 1000
        except (ValueError, OverflowError):
            return None

    @property
    def resent(self) -> bool:
        """True if its sender says that there may be an earlier copy of it."""
        return RESENT in self.headers

    @property
    def runs(self) -> int:
        """How often its method has begun, with this time; 1 unless a server says otherwise."""
        runs = self.headers.get(RUNS)
        return runs if isinstance(runs, int) and runs > 0 else 1

    @property
    def given_back(self) -> bool:
        """True if another server had it, and did not start it."""
        return GIVEN_BACK in self.headers

    @property
    def headers(self) -> dict[str, Any]:
        """What its sender put into its headers."""
        return self.properties.get("headers") or {}


class QueueState(NamedTuple):
    """What the broker says of a queue: messages that wait in it, and consumers."""

    messages: int
    consumers: int


def properties(serializer: Serializer, persistent: bool = True, **more: Any) -> dict[str, Any]:
    """Return the properties of a message, and *more* where it is not None."""
    basic = {
        "content_type": serializer.content_type,
        "content_encoding": serializer.content_encoding,
        "delivery_mode": PERSISTENT if persistent else TRANSIENT,
    }
    return basic | {name: value for name, value in more.items() if value is not None}


def expiration(seconds: float | None) -> str | None:
    """Return *seconds* as AMQP wants it: text, in whole milliseconds, at least 1."""
    if seconds is None:
        return None
    milliseconds = max(1, round(seconds * 1000))
    return str(milliseconds) if milliseconds <= _MAX_EXPIRATION else None
