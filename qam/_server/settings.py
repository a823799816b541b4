"""What the threads of one server have in common."""

from dataclasses import dataclass, field
from typing import Any

from qam._broker.connect import CONNECT_TIMEOUT
from qam._broker.messages import MAX_MESSAGE_BYTES
from qam._common.logs import get_logger
from qam._common.stations import Stations
from qam._serialization.serializers import Serializer


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How one server was made, and where its threads note what is logged of its calls."""

    #: The id by which proxies find it.
    server_id: str
    #: How requests and replies are encoded.
    serializer: Serializer
    #: What the request queue is declared with.
    queue_arguments: dict[str, Any] = field(default_factory=dict)
    #: How many methods run at once, at most.
    max_workers: int = 1
    #: The size of the largest request that is taken in, and of the largest reply that is sent.
    max_message_bytes: int = MAX_MESSAGE_BYTES
    #: Whether callers get the traceback of what a method raised.
    send_tracebacks: bool = True
    #: Seconds that one attempt to connect may take.
    connect_timeout: float = CONNECT_TIMEOUT
    #: What is logged of its calls, at the level DEBUG.
    stations: Stations = field(default_factory=lambda: Stations(get_logger("qam.qam_server")))
