"""nameko with its defaults: eventlet, 10 workers, a prefetch of 10, persistent messages.

But pickle, because JSON carries no bytes. The client is the standalone proxy, which belongs to one
thread.
"""

from collections.abc import Callable
from typing import Any

from tests.benchmarks import by_handles
from tests.benchmarks.contract import GIVES_UP_AFTER
from tests.benchmarks.place import Place


def _config(place: Place) -> dict[str, Any]:
    return {"AMQP_URI": place.url_of_pika, "serializer": "pickle", "ACCEPT": ["pickle"]}


class Client:
    """A standalone proxy."""

    shared_by_threads = False

    def __init__(self, place: Place, variant: str) -> None:
        from nameko.standalone.rpc import ServiceRpcProxy

        self._context = ServiceRpcProxy(place.name, _config(place), timeout=GIVES_UP_AFTER)
        self._proxy = self._context.start()
        self.add = self._proxy.add
        self.echo = self._proxy.echo
        self.close = self._context.stop

    def pipeline(self, calls: int, outstanding: int) -> None:
        add = self._proxy.add
        by_handles.pipeline(
            lambda: add.call_async(2, 3), lambda reply: reply.result(), calls, outstanding
        )


def serve(place: Place, variant: str, ready: Callable[[], object]) -> None:
    import eventlet

    eventlet.monkey_patch()  # before anything of nameko is there, and only in the server
    from nameko.rpc import rpc
    from nameko.runners import ServiceRunner

    class Service:
        name = place.name

        @rpc
        def add(self, a: int, b: int) -> int:
            return a + b

        @rpc
        def echo(self, payload: bytes) -> bytes:
            return payload

    runner = ServiceRunner(_config(place))
    runner.add_service(Service)
    runner.start()
    ready()
    runner.wait()
