"""Opens a connection to the first broker that accepts one."""

from collections import deque
from collections.abc import Callable, Iterable

from qam._broker.connection import Connection
from qam._broker.endpoint import Endpoint
from qam._broker.memory import MemoryConnection
from qam._broker.rabbitmq import AMQPConnection
from qam._common.deadline import Deadline
from qam.exceptions import QAMConnectionException


def connect(endpoint: Endpoint, timeout: float) -> Connection:
    """Open a connection to the broker at *endpoint* within *timeout* seconds.

    :raises QAMConnectionException: the broker can't be reached, or refuses the connection; the
        text says where and why.
    """
    if endpoint.is_memory:
        return MemoryConnection(endpoint.host)
    return AMQPConnection(endpoint, timeout)


#: Opens a connection to an endpoint within so many seconds, as :func:`connect` does.
Connect = Callable[[Endpoint, float], Connection]

#: Seconds that an attempt to open a connection may take.
CONNECT_TIMEOUT = 10.0


def connect_first(
    endpoints: Iterable[Endpoint], timeout: float, connect: Connect = connect
) -> Connection:
    """Open a connection to the first of *endpoints* that accepts one, within *timeout* seconds.

    :param connect: opens a connection to one endpoint.
    :raises QAMConnectionException: none does; the text says where and why the last one failed.
    """
    deadline, left = Deadline(timeout), deque(endpoints)
    while True:
        # The remaining endpoints share the remaining time.
        share = timeout / len(left)
        try:
            return connect(left.popleft(), share)
        except QAMConnectionException:
            if not left:
                raise
            timeout = deadline.remaining() or 0.0
