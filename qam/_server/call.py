"""A request that a server has received, and its answer."""

from dataclasses import dataclass
from typing import Any

from qam._broker.messages import Delivery
from qam._common.checks import is_count
from qam._common.deadline import Deadline
from qam._common.served_call import InheritedDeadline
from qam._protocol.correlation import CallKey, key_of_body
from qam._protocol.properties import GIVEN_BACK, ONE_WAY, RESENT, RUNS
from qam._protocol.replies import SERVER_LOST

# Far more runs than any server begins.  A larger number in a header is not believed.
_MOST_RUNS = 1_000_000
# The properties that tell for how long its caller waits.
_LIMIT_ITS_TIME = frozenset(("expiration", "headers"))


@dataclass(slots=True)
class Answer:
    """A reply: its routing key and its body."""

    routing_key: str
    body: bytes


def is_resent(delivery: Delivery) -> bool:
    """Return True if the sender of *delivery* says that there may be an earlier copy."""
    return RESENT in delivery.headers


def runs_of(delivery: Delivery) -> int:
    """Return how often its method has begun, this time included; 1 unless a server says more."""
    runs = delivery.headers.get(RUNS)
    return runs if is_count(runs) and 0 < runs <= _MOST_RUNS else 1


def is_given_back(delivery: Delivery) -> bool:
    """Return True if another server had the request, and gave it back without starting it."""
    return GIVEN_BACK in delivery.headers


class Call:
    """A request that was delivered to this server.

    :param delivery: the message.
    :param connection_number: the connection that delivered it, on which alone its delivery
        tag is valid.
    :param arrived: when it arrived, on the clock of the server.
    """

    # Nearly all requests have these values, so they are class attributes.  An instance gets
    # its own where its value differs.

    #: True if it arrived with no other message.
    alone = False
    #: Seconds for which its caller still waited when it arrived, at most; None for no limit.
    time_to_live: float | None = None
    #: Its message can't be used, and is to be rejected.
    rejected = False
    #: Its method may run again if the server that ran it died.
    idempotent = False
    #: The broker has refused its reply.
    refused = False
    #: Another server may have run its method, and can no longer answer.
    lost = False
    #: Another server may have a copy of it.
    is_elsewhere = False
    #: It has run for so long that the broker has taken back its delivery.
    outlives_its_delivery = False
    #: Copies of the same request that arrived while this one runs.
    duplicates: "list[Call] | None" = None
    #: How often its method will have begun, this time included.
    runs = 1
    #: Another server had it, and gave it back without starting it.
    given_back = False
    #: The user of the server that answers it; None if that is not certain.
    server_user: str | None = None
    #: Nobody waits for its reply.
    one_way = False
    #: The server closes, and waits no longer for its method.
    given_up = False
    #: Its method was ended by that, and is not answered: its caller was told, or it runs elsewhere.
    cut_off = False

    def __init__(self, delivery: Delivery, connection_number: int, arrived: float = 0.0) -> None:
        self.delivery = delivery
        self.connection_number = connection_number
        self.arrived = arrived
        #: It may have been received before.
        self.marked = delivery.redelivered
        #: The id of the call, the same in all its copies; None from a 0.2.x client.
        self.correlation_id = delivery.correlation_id
        if "headers" in delivery.properties:
            self._read_headers()
        if not _LIMIT_ITS_TIME.isdisjoint(delivery.properties):
            self.time_to_live = delivery.time_to_live
        #: Its key, by which a copy is recognized.
        self.key = self._make_key()
        # What nearly every request gets later.  An attribute that most instances have, but not
        # from the beginning, costs each of them a dict of its own.

        #: The id and the method name in its body, once that is decoded.
        self.request_id: Any = None
        self.method_name = ""
        #: The answer to its caller; None if there is none.
        self.answer: Answer | None = None
        #: Seconds that its method ran; None if no method ran.
        self.seconds: float | None = None

    def _read_headers(self) -> None:
        self.marked = self.marked or is_resent(self.delivery)
        self.given_back = is_given_back(self.delivery)
        self.runs = runs_of(self.delivery)
        self.one_way = ONE_WAY in self.delivery.headers

    def _make_key(self) -> CallKey:
        if self.correlation_id is None:
            return key_of_body(self.delivery.body, self.runs)
        return CallKey(self.delivery.reply_to or "", self.correlation_id, self.runs)

    def become_run(self, key: CallKey) -> None:
        """Stand for *key*, a later run of the same call."""
        self.key, self.runs = key, key.runs

    @property
    def is_resent(self) -> bool:
        """True if its client sent it again, and waits for an answer."""
        return is_resent(self.delivery)

    @property
    def is_anonymous(self) -> bool:
        """True if it has no correlation id, as from a 0.2.x client; then its reply has none.

        Its client takes any reply for the one to the call that waits, so it must not receive a
        reply twice.
        """
        return self.correlation_id is None

    @property
    def repeatable_answer(self) -> Answer | None:
        """Its answer, if there is one that may be sent again."""
        return None if self.correlation_id is None else self.answer

    def time_left(self, now: float) -> float | None:
        """Return for how many seconds its caller still waits, at most; None for no limit.

        The broker drops a request whose time is up in its queue, and does not tell how long it
        was there.  This subtracts the time that it has spent here.  Clocks of two machines are
        not compared.

        :param now: the time on the clock of the server.
        """
        if self.time_to_live is None:
            return None
        return self.time_to_live - (now - self.arrived)

    def is_expired(self, now: float) -> bool:
        """Return True if its caller waits no more; *now* is the time on the clock of the server."""
        time_left = self.time_left(now)
        return time_left is not None and time_left <= 0

    def is_cancelled(self, now: float) -> bool:
        """Return True if nobody waits for its method any more.

        :param now: the time on the clock of the server.
        """
        return self.given_up or self.is_expired(now)

    def limit(self, own: Deadline) -> Deadline:
        """Return the deadline of a call that its method makes, and that has one of its *own*."""
        time_to_live = self.time_to_live
        if time_to_live is None or own.at <= self.arrived + time_to_live:
            return own
        return InheritedDeadline(self.arrived + time_to_live, self.method_name)


def code_if_not_run(call: Call, code: int) -> int:
    """Return *code*, which says that no method ran; SERVER_LOST if one may have run elsewhere."""
    may_have_run = call.lost or call.runs > 1
    return SERVER_LOST if may_have_run else code
