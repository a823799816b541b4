"""Identifies calls: a proxy by the correlation id, a server by the key of the request."""

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from qam._protocol.entities import reply_routing_key

# The numbers of calls are below 2**53, so they have no more digits.
_MAX_DIGITS = 16


def correlation_id_of(client_id: str, number: int) -> str:
    """Return the correlation id of the call *number* of *client_id*, and of its reply."""
    return f"{client_id}:{number}"


def number_of(correlation_id: str | None, client_id: str) -> int | None:
    """Return the number in *correlation_id*; None if it is no call of *client_id*."""
    own, _, number = (correlation_id or "").rpartition(":")
    return int(number) if own == client_id and _is_number(number) else None


def label_of(correlation_id: str | None) -> str | None:
    """Return the label of the client in *correlation_id*; None if no proxy has made that."""
    client_id, _, number = (correlation_id or "").rpartition(":")
    label = client_id.rpartition(".")[0]
    return label if label and _is_number(number) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS


# Clients are few, and have many calls.
_reply_to = lru_cache(maxsize=1024)(reply_routing_key)


class CallKey(NamedTuple):
    """The key by which a server recognizes a request that comes again.

    The correlation id alone is not unique: other AMQP libraries number their calls from 1.
    Each run of an idempotent method has a key of its own.
    """

    reply_to: str
    correlation_id: str
    runs: int = 1

    @property
    def next_run(self) -> "CallKey":
        """The key of the same request when its method begins once more."""
        return self._replace(runs=self.runs + 1)

    @property
    def is_unique(self) -> bool:
        """True if no other call has this key, as those of a proxy; other clients reuse theirs."""
        return self.number >= 0

    @property
    def number(self) -> int:
        """The number of the call, if its client numbers its calls as a proxy does; else -1.

        Only believed if the reply goes to the reply queue of the client in the correlation id.
        """
        client_id, _, number = self.correlation_id.rpartition(":")
        is_of_client = self.reply_to == _reply_to(client_id) and _is_number(number)
        return int(number) if is_of_client else -1


def key_of_body(body: bytes, runs: int = 1) -> CallKey:
    """Return the key of a request without a correlation id, which only its body identifies.

    Two calls of a 0.2.x client have the same body, and so the same key, if they have the same
    arguments, and the second one was made after the first had its result, or had timed out.
    """
    return CallKey("", f"body:{blake2b(body, digest_size=16).hexdigest()}", runs)
