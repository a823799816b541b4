"""A call of a proxy, from its request to its outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from qam._common.deadline import NO_END, Deadline


@dataclass(slots=True, eq=False)
class PendingCall:
    """A call whose request is encoded and which has no outcome yet.

    The method queue and the call's slot in the result list refer to it; so does the message
    that carries its request, until the fate of that is known.  It keeps the encoded request
    and not the arguments, since many calls may wait.
    """

    #: The slot for its outcome; -1 before it has one.
    slot_id: int
    #: Its id on the wire; unlike a slot, which is used again, it is unique.
    call_id: int
    #: The method, as its caller names it; the name on the wire may be another.
    method_name: str = ""
    #: The encoded request.
    body: bytes = field(default=b"", repr=False)
    deadline: Deadline = NO_END
    #: Texts by name that travel with the request.
    metadata: Mapping[str, str] | None = None
    #: Until when a server that is not there is waited for, on the monotonic clock.
    awaits_server_until: float = 0.0
    #: Nobody waits for its reply: its outcome is that the broker has the request.
    one_way: bool = False
    #: How often its request was written, and when first, on the monotonic clock.
    times_written: int = 0
    written_at: float = 0.0
    #: The broker has confirmed the copy of the request that was written last.
    confirmed: bool = False
    #: How often the broker has refused its request.
    times_refused: int = 0
    #: It has keyword arguments.
    has_keywords: bool = False
    #: Its request must not be written any more.
    withdrawn: bool = False
    #: The uid of its callback; "" if a caller waits for it.
    uid: str = ""
