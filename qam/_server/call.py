"""A request that a server has received, and what becomes of it."""

from dataclasses import dataclass
from typing import Any

from qam._broker.messages import Delivery
from qam._common.checks import is_count
from qam._protocol.correlation import CallKey, key_of_body
from qam._protocol.properties import GIVEN_BACK, RESENT, RUNS
from qam._protocol.replies import SERVER_LOST

# Bytes of a body that show how it is encoded; the rest may be large.
_HEAD = 16
# No server begins a method nearly as often; above it there are numbers that can be counted to.
_MOST_RUNS = 1_000_000


@dataclass(slots=True)
class Answer:
    """A reply: where to, and what."""

    routing_key: str
    body: bytes


def is_resent(delivery: Delivery) -> bool:
    """Return True if the sender of *delivery* says that there may be an earlier copy of it."""
    return RESENT in delivery.headers


def runs_of(delivery: Delivery) -> int:
    """Return how often its method has begun, with this time; 1 unless a server says otherwise."""
    runs = delivery.headers.get(RUNS)
    return runs if is_count(runs) and 0 < runs <= _MOST_RUNS else 1


def is_given_back(delivery: Delivery) -> bool:
    """Return True if another server had it, and did not start it."""
    return GIVEN_BACK in delivery.headers


class Call:
    """A request that was delivered to this server.

    :param delivery: how it came.
    :param connection_number: which connection delivered it: its delivery tag means nothing
        to others.
    :param arrived: when, on the clock of the server.
    """

    # What is the same for nearly all requests stands here once; an instance gets its own
    # where it differs.

    #: Nothing else came with it.
    alone = False
    #: Seconds that its method ran; None if none did.
    seconds: float | None = None
    #: Its message is of no use, and the broker is to drop it.
    rejected = False
    #: The id that its caller gave it, and its method, once it is read.
    request_id: Any = None
    method_name = ""
    #: Its method may run again if its server goes away.
    idempotent = False
    #: The broker has refused its reply.
    refused = False
    #: Another server may have run its method, and can't answer any more.
    lost = False
    #: It runs so long that the broker has taken its delivery away.
    outlives_its_delivery = False
    #: What its caller is answered; None if nothing is.
    answer: Answer | None = None
    #: The same request, where it came again while this one runs.
    duplicates: "list[Call] | None" = None
    #: How often its method will have begun with this time.
    runs = 1
    #: Another server had it, and did not start it.
    given_back = False

    def __init__(self, delivery: Delivery, connection_number: int, arrived: float = 0.0) -> None:
        self.delivery = delivery
        self.connection_number = connection_number
        self.arrived = arrived
        #: Somebody may have received it before.
        self.marked = delivery.redelivered
        if "headers" in delivery.properties:
            self._read_headers()
        #: By what it is recognized when it comes again.
        self.key = self._make_key()

    def _read_headers(self) -> None:
        self.marked = self.marked or is_resent(self.delivery)
        self.given_back = is_given_back(self.delivery)
        self.runs = runs_of(self.delivery)

    def _make_key(self) -> CallKey:
        correlation_id = self.delivery.correlation_id
        if correlation_id is None:
            return key_of_body(self.delivery.body, self.runs)
        return CallKey(self.delivery.reply_to or "", correlation_id, self.runs)

    @property
    def is_anonymous(self) -> bool:
        """True if it has no correlation id, as from a 0.2.x client, nor has its reply.

        Its client takes whatever comes for the reply to the call that waits; so it must get no
        reply twice.
        """
        return self.delivery.correlation_id is None

    @property
    def like(self) -> bytes:
        """How its body begins: what a serializer needs to answer in the same way."""
        return self.delivery.body[:_HEAD]

    def time_left(self, now: float) -> float | None:
        """Seconds that its caller still waits, at most; None for no end.

        :param now: the time on the clock of the server.

        The broker counts the time that a message lies with it; we add the time that
        it lay with us.  Nobody's clock is compared with another's.
        """
        time_to_live = self.delivery.time_to_live
        if time_to_live is None:
            return None
        return time_to_live - (now - self.arrived)


def not_run(call: Call, code: int) -> int:
    """Return *code*, which says that no method ran; unless an earlier server may have run it."""
    may_have_run = call.lost or call.runs > 1
    return SERVER_LOST if may_have_run else code
