"""Makes and checks the bodies of requests.  No I/O here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qam._common.checks import is_short_text
from qam.exceptions import QAMSerializationException

#: The instance name of methods that a 0.2.x server must refuse.
SYSTEM = "system"
_OF_SYSTEM = f"{SYSTEM}."
#: ``system.apply(method_name, params, kwargs)``: a call with keyword arguments.
APPLY = "system.apply"
#: ``system.multicall(method_names, arguments)``: several calls, each with its params and kwargs.
MULTICALL = "system.multicall"
#: ``system.ping()``: whether a server answers.
PING = "system.ping"

# The reply repeats the id, so it has to be small and encodable.
_MOST_BITS_OF_ID = 64


def _is_id(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= _MOST_BITS_OF_ID
    return value is None or (isinstance(value, str) and is_short_text(value))


@dataclass(slots=True)
class Request:
    """The checked fields of a request, on the server."""

    id: Any
    method_name: str
    routing_key: str
    params: Sequence[Any]

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> "Request":
        """Return the request in *body*, after a check of its fields.

        :raises QAMSerializationException: a field is missing or of the wrong type.
        """
        id, params = body.get("id"), body.get("params")
        method_name, routing_key = body.get("method_name"), body.get("routing_key")
        if (
            _is_id(id)
            and isinstance(method_name, str)
            and isinstance(routing_key, str)
            and is_short_text(routing_key)
            and isinstance(params, (list, tuple))
        ):
            return cls(id, method_name, routing_key, params)
        raise QAMSerializationException(
            "a request must have a method_name (text), a routing_key (text of at most 255 bytes), "
            "params (a list) and an id (a number of at most 64 bits, a short text or None)"
        )

    @classmethod
    def from_envelope(cls, body: dict[str, Any]) -> "Request":
        """Return the request in *body* without its params, after a check of its other fields.

        The params of ``system.apply`` and ``system.multicall`` keep their first item, which names
        the methods to call.

        :raises QAMSerializationException: a field is missing or of the wrong type.
        """
        params: Any = body.get("params")
        has_names = body.get("method_name") in (APPLY, MULTICALL)
        keeps_first = has_names and isinstance(params, (list, tuple))
        return cls.from_body({**body, "params": params[:1] if keeps_first else ()})

    @property
    def called_name(self) -> str:
        """The name of the method as its caller knows it."""
        if self.method_name == APPLY and self.params and isinstance(self.params[0], str):
            return self.params[0]
        return self.method_name

    @property
    def is_for_system(self) -> bool:
        """True if it calls a method of the server itself, and none that was registered."""
        return self.called_name.startswith(_OF_SYSTEM)


def apply_message(
    method_name: str, params: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[str, Sequence[Any]]:
    """Return the method name and params to send for a call; *kwargs* need ``system.apply``."""
    return (APPLY, (method_name, tuple(params), kwargs)) if kwargs else (method_name, params)
