"""Pyro5: a client connects to the server itself, without a broker between; with its defaults.

The server has a thread for each connection. Messages are in the format of serpent, in which bytes
are base64: a receiver that needs bytes converts them.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import Pyro5.api
import serpent

from tests.benchmarks.contract import NotOffered, add, echo
from tests.benchmarks.place import Place


class Client:
    """A connection to the server."""

    shared_by_threads = False

    def __init__(self, place: Place, variant: str) -> None:
        uri = f"PYRO:{place.name}@{place.host}:{place.free_port}"
        self._proxy = Pyro5.api.Proxy(uri)

    def add(self, a: int, b: int) -> int:
        self._proxy._pyroClaimOwnership()  # another thread has made it
        result: int = self._proxy.add(a, b)
        return result

    def echo(self, payload: bytes) -> bytes:
        return bytes(serpent.tobytes(self._proxy.echo(payload)))

    def close(self) -> None:
        self._proxy._pyroClaimOwnership()
        self._proxy._pyroRelease()

    def pipeline(self, calls: int, outstanding: int) -> NoReturn:
        raise NotOffered("a call waits for its result")


@Pyro5.api.expose
class Service:
    """What is called; private names are not served."""

    def add(self, a: int, b: int) -> int:
        return add(a, b)

    def echo(self, payload: Any) -> Any:
        return echo(payload)


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    daemon = Pyro5.api.Daemon(place.host, place.free_port)
    daemon.register(Service(), place.name)
    ready()
    daemon.requestLoop()
