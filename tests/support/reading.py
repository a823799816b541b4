"""Reading from a connection in the thread of a test."""

from qam._broker.connection import Connection
from qam._broker.events import Event
from qam._broker.waker import Waker


def read(connection: Connection, timeout: float | None, waker: Waker) -> list[Event]:
    """What came, after waiting for it up to *timeout* seconds or until woken."""
    if events := connection.read():
        return events
    connection.flush()
    connection.wait(timeout, waker)
    connection.flush()
    return connection.read()
