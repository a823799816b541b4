"""A call of a proxy, from its request to its outcome."""

from dataclasses import dataclass, field

from qam._common.deadline import NO_END, Deadline


@dataclass(slots=True, eq=False)
class PendingCall:
    """A call whose request is encoded and whose outcome is not there yet.

    It stands in the method queue and in its slot of the result list, and comes back with
    what the broker says of its request.  Many may wait: it keeps the encoded request, and
    not the arguments beside it.
    """

    #: The slot that its outcome goes into.
    slot_id: int
    #: Its id on the wire: unique, where a slot is used again.
    call_id: int
    #: What was called; the name that travels may be another.
    method_name: str = ""
    #: Its request.
    body: bytes = field(default=b"", repr=False)
    deadline: Deadline = NO_END
    #: How often its request was written, and when first (on the monotonic clock).
    times_written: int = 0
    written_at: float = 0.0
    #: The broker has the request as it was written last.
    confirmed: bool = False
    #: How often the broker has refused it.
    times_refused: int = 0
    #: It is not to be written any more.
    withdrawn: bool = False
