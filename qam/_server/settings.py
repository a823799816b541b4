"""The settings that the threads of one server share."""

from dataclasses import dataclass, field
from typing import Any

from qam._broker.connect import CONNECT_TIMEOUT
from qam._broker.messages import MAX_MESSAGE_BYTES
from qam._common.logs import get_logger
from qam._common.stations import Stations
from qam._serialization.serializers import Serializer
from qam._server.middleware import Middleware

#: How many workers stay, if there may be any number, when they have nothing to do.
MAX_IDLE_WORKERS = 32


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The arguments of one server that its threads use, and the stations of its calls."""

    #: The id by which proxies find it.
    server_id: str
    #: How requests and replies are encoded.
    serializer: Serializer
    #: The arguments of the request queue.
    queue_arguments: dict[str, Any] = field(default_factory=dict)
    #: How many methods run at once, at most.
    max_workers: int = 1
    #: How many workers stay when they have nothing to do; None for all.
    max_idle_workers: int | None = None
    #: How many more run while as many wait in calls of their own, at most.
    max_nested: int = 0
    #: The size of the largest request that is received, and of the largest reply that is sent.
    max_message_bytes: int = MAX_MESSAGE_BYTES
    #: Whether callers get the traceback when a method raises.
    send_tracebacks: bool = True
    #: The exceptions of methods that are logged at DEBUG; others are errors.
    expected_exceptions: tuple[type[BaseException], ...] = ()
    #: Whether the exceptions of methods are logged at all.
    log_exceptions: bool = True
    #: As whom it is connected to the broker; None if that depends on the host.
    user: str | None = None
    #: What surrounds the methods, outermost first.
    middleware: tuple[Middleware, ...] = ()
    #: Seconds that one attempt to connect may take.
    connect_timeout: float = CONNECT_TIMEOUT
    #: The stations of its calls, which are logged at the level DEBUG.
    stations: Stations = field(default_factory=lambda: Stations(get_logger("qam.qam_server")))
