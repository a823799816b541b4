"""Opens a connection to the first broker that accepts one."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from qam._broker.connection import Connection
from qam._broker.endpoint import Endpoint
from qam._broker.memory import MemoryConnection
from qam._broker.rabbitmq import AMQPConnection
from qam._broker.reconnection import Reconnection
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


def connect_patiently(
    endpoints: Sequence[Endpoint], timeout: float, wait_for_broker: float
) -> Connection:
    """As :func:`connect_first`; but where nobody can be reached, try again for a while.

    :param timeout: seconds that one attempt may take.
    :param wait_for_broker: seconds until the last attempt begins.
    :raises QAMConnectionException: as :func:`connect_first`.
    """
    pacing, end = Reconnection(endpoints), Deadline(wait_for_broker)
    while True:
        try:
            return connect_first(endpoints, timeout)
        except QAMConnectionException as error:
            if error.refused or end.expired:
                raise
        time.sleep(min(pacing.pause_after_failure(), end.remaining() or 0.0))


def connect_first(
    endpoints: Iterable[Endpoint], timeout: float, connect: Connect = connect
) -> Connection:
    """Open a connection to the first of *endpoints* that accepts one, within *timeout* seconds.

    :param connect: opens a connection to one endpoint.
    :raises QAMConnectionException: none does; the text says where and why one refused it, or
        else why the last one failed.
    """
    deadline, left = Deadline(timeout), deque(endpoints)
    refusal: QAMConnectionException | None = None
    while True:
        # The remaining endpoints share the remaining time.
        share = timeout / len(left)
        try:
            return connect(left.popleft(), share)
        except QAMConnectionException as error:
            if error.refused:
                refusal = refusal or error
            if not left:
                raise refusal or error  # noqa: B904 - each has its own cause
            timeout = deadline.remaining() or 0.0
