"""How a call is recognized: by its correlation id, and on a server by its key."""

from hashlib import blake2b
from typing import NamedTuple

from qam._protocol.entities import reply_routing_key

# No number of ours has more digits: they are below 2**53.
_MAX_DIGITS = 16


def correlation_id_of(client_id: str, number: int) -> str:
    """Return what travels with the call *number* of *client_id*, and with its reply."""
    return f"{client_id}:{number}"


def number_of(correlation_id: str | None, client_id: str) -> int | None:
    """Return the number of a call of *client_id*; None if *correlation_id* is none of its."""
    own, _, number = (correlation_id or "").rpartition(":")
    if own == client_id and number.isascii() and number.isdecimal() and len(number) <= _MAX_DIGITS:
        return int(number)
    return None


class CallKey(NamedTuple):
    """By what a server recognizes a request that comes again.

    A correlation id alone is not enough: other AMQP libraries number their calls from 1.
    An idempotent method that runs again is another request in this respect.
    """

    reply_to: str
    correlation_id: str
    runs: int = 1

    @property
    def next_run(self) -> "CallKey":
        """The key of the same request when its method begins once more."""
        return self._replace(runs=self.runs + 1)

    @property
    def number(self) -> int:
        """The number of the call, where its client counts them as a proxy does; else -1.

        That is only believed of one who is to be answered where that proxy is.
        """
        client_id = self.correlation_id.rpartition(":")[0]
        if self.reply_to != reply_routing_key(client_id):
            return -1
        number = number_of(self.correlation_id, client_id)
        return -1 if number is None else number


def key_of_body(body: bytes, runs: int = 1) -> CallKey:
    """Return the key of a request without a correlation id: nothing else tells it from others.

    Two calls of a 0.2.x client have the same body, and so the same key, if they have the same
    arguments, and the second one came after the first had its result, or had timed out.
    """
    return CallKey("", f"body:{blake2b(body, digest_size=16).hexdigest()}", runs)
