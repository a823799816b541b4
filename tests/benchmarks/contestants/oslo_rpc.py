"""oslo.messaging's RPC client and server over RabbitMQ, with their defaults.

The server's executor is "threading", of 64 threads. Messages are JSON, which carries no bytes: the
payload goes as base64, as a user would have to send it.
"""

import base64
from collections.abc import Callable
from typing import Any, NoReturn

import oslo_messaging
from oslo_config import cfg

from tests.benchmarks.contract import GIVES_UP_AFTER, NotOffered
from tests.benchmarks.place import Place


def _transport(place: Place) -> Any:
    cfg.CONF([])  # the global one, which its tracing asks, whatever it is given
    return oslo_messaging.get_rpc_transport(cfg.CONF, place.url.replace("amqp", "rabbit", 1))


class Client:
    """A transport with an RPC client."""

    shared_by_threads = True

    def __init__(self, place: Place, variant: str) -> None:
        self._transport = _transport(place)
        target = oslo_messaging.Target(topic=place.name)
        client = oslo_messaging.get_rpc_client(self._transport, target, timeout=GIVES_UP_AFTER)
        self._call = client.prepare().call
        self.close = self._transport.cleanup

    def add(self, a: int, b: int) -> int:
        return self._call({}, "add", a=a, b=b)

    def echo(self, payload: bytes) -> bytes:
        text = base64.b64encode(payload).decode()
        return base64.b64decode(self._call({}, "echo", text=text))

    def pipeline(self, calls: int, outstanding: int) -> NoReturn:
        raise NotOffered("a call waits for its result")


class _Endpoint:
    def add(self, context: Any, a: int, b: int) -> int:
        return a + b

    def echo(self, context: Any, text: str) -> str:
        return text


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    target = oslo_messaging.Target(topic=place.name, server=place.name)
    server = oslo_messaging.get_rpc_server(
        _transport(place), target, [_Endpoint()], executor="threading"
    )
    server.start()
    ready()
    server.wait()
