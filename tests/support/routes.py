"""Leads single connections of proxies and servers over a way of their own."""

from collections.abc import Iterable
from typing import Any

import pytest

from qam._broker import connect, connection_thread
from qam._broker.connection import Connection
from qam._broker.connection_thread import ConnectionThread
from qam._broker.reconnection import Reconnection
from qam._client.consumer_thread import ConsumerThread
from qam._client.publisher_thread import PublisherThread
from qam._server.publisher_thread import ReplyPublisherThread
from qam._server.request_consumer_thread import RequestConsumerThread
from qam.amqp_credentials import AMQPCredentials

#: The four connections, by what they do.
CONNECTIONS: dict[str, type[ConnectionThread]] = {
    "client's publisher": PublisherThread,
    "client's consumer": ConsumerThread,
    "server's consumer": RequestConsumerThread,
    "server's publisher": ReplyPublisherThread,
}


class Routes:
    """Which connections go elsewhere than their proxy or server was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ways: dict[type[ConnectionThread], AMQPCredentials] = {}
        self._connect = connect.connect_first
        monkeypatch.setattr(connection_thread.ConnectionThread, "_open", self._open_elsewhere())

    def lead(self, connection: str, host: str, port: int, **more: Any) -> None:
        """Have a connection go to another place, from its next opening on."""
        self._ways[CONNECTIONS[connection]] = AMQPCredentials(host, port, **more)

    def _open_elsewhere(self) -> Any:
        ways, original = self._ways, connection_thread.ConnectionThread._open

        def open_elsewhere(thread: ConnectionThread) -> Connection:
            way = ways.get(type(thread))
            if way is not None:
                thread._reconnection = Reconnection(way.endpoints())
            return original(thread)

        return open_elsewhere


def recovered(threads: Iterable[ConnectionThread]) -> bool:
    """Whether each of them has a connection."""
    return all(thread._connection is not None for thread in threads)
