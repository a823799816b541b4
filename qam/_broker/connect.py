"""Opens a connection to the first broker that takes one."""

from collections import deque
from collections.abc import Callable, Iterable

from qam._broker.connection import Connection
from qam._broker.endpoint import Endpoint
from qam._broker.memory import MemoryConnection
from qam._broker.rabbitmq import AMQPConnection
from qam._common.deadline import Deadline
from qam.exceptions import QAMConnectionException


def connect(endpoint: Endpoint, timeout: float) -> Connection:
    """Open a connection to the broker within *timeout* seconds.

    :raises QAMConnectionException: it can't be reached or refuses us; says where and why.
    """
    if endpoint.is_memory:
        return MemoryConnection(endpoint.host)
    return AMQPConnection(endpoint, timeout)


#: Opens a connection to an endpoint within so many seconds, as :func:`connect` does.
Connect = Callable[[Endpoint, float], Connection]

#: Seconds that a connection may take to open.
CONNECT_TIMEOUT = 5.0


def connect_first(
    endpoints: Iterable[Endpoint], timeout: float, connect: Connect = connect
) -> Connection:
    """Open a connection to the first of *endpoints* that takes one, within *timeout* seconds.

    :param connect: opens each.
    :raises QAMConnectionException: none does; says where and why it failed last.
    """
    deadline, left = Deadline(timeout), deque(endpoints)
    while True:
        # What time is left is shared by the endpoints that are left.
        share = timeout / len(left)
        try:
            return connect(left.popleft(), share)
        except QAMConnectionException:
            if not left:
                raise
            timeout = deadline.remaining() or 0.0
