"""The call that a method answers, as the method sees it."""

import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from types import MappingProxyType

from qam._common.served_call import served_call
from qam._protocol.correlation import label_of
from qam._protocol.metadata import metadata_of
from qam._protocol.users import user_of
from qam._server.call import Call


@dataclass(frozen=True, slots=True)
class CurrentCall:
    """What a method can know of the call that it answers; :func:`qam.current_call` returns it.

    Only *user* is verified, by the broker.  All else is what the client says.
    """

    #: The name by which the method was called.
    method: str
    #: The id of the call, as in the log of its client; None for a client of 0.2.x.
    id: str | None
    #: The label of the client, its ``client_id``; None for a client of 0.2.x.
    client_id: str | None
    #: The user as whom the client is connected to the broker; None if the client does not say.
    user: str | None
    #: The texts that the client has sent with the call, by name; read-only.
    metadata: Mapping[str, str]
    _call: Call = field(repr=False)

    def remaining(self) -> float | None:
        """Return for how many seconds the caller still waits, at least 0.0; None for no end."""
        time_left = self._call.time_left(time.monotonic())
        return None if time_left is None else max(0.0, time_left)

    @property
    def cancelled(self) -> bool:
        """True if nobody waits any more: the caller's time is up, or that of ``close()``."""
        return self._call.is_cancelled(time.monotonic())

    def raise_if_cancelled(self) -> None:
        """End a method for which nobody waits.

        :raises concurrent.futures.CancelledError: :attr:`cancelled` is True.
        """
        if self.cancelled:
            raise CancelledError(f"nobody waits for {self.method}() any more")


def current_call() -> CurrentCall | None:
    """Return the call that the running method answers; does not wait.

    Returns None outside of methods, also in callbacks and in threads that a method starts.
    Coroutines of an ``async def`` method have its call, and so has ``asyncio.to_thread``.
    """
    call = served_call.get()
    return view_of(call) if isinstance(call, Call) else None


def view_of(call: Call) -> CurrentCall:
    """Return *call* as its method sees it.  It is made only for those that look."""
    delivery = call.delivery
    return CurrentCall(
        method=call.method_name,
        id=call.correlation_id,
        client_id=label_of(call.correlation_id),
        user=user_of(delivery, call.server_user),
        metadata=MappingProxyType(metadata_of(delivery.headers)),
        _call=call,
    )
