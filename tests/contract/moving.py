"""An application that moves from 0.2.x: runs the code of that page at the tests' broker."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from qam import QAMProxy, QAMServer
from tests.support.peer_0_2 import Client02, Server02
from tests.support.rabbitmq import RabbitMQNode


class Point:
    """A class of the application, which both sides have."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Tools:
    """An instance that an application registers."""

    def add(self, a: int, b: int) -> int:
        return a + b


class Application:
    """Runs code of the page, for which the broker is the tests' node, and the id that of a test.

    What the code makes is closed at the end.
    """

    def __init__(self, node: RabbitMQNode, server_id: str) -> None:
        self._node, self.server_id = node, server_id
        self._made: list[Any] = []

    def run(self, code: str, **names: Any) -> SimpleNamespace:
        """Run *code* with *names*; return all names that there are then."""
        namespace = {"QAMServer": self.server, "QAMProxy": self.proxy, "Point": Point, **names}
        exec(compile(code, "<docs/moving.md>", "exec"), namespace)
        return SimpleNamespace(**namespace)

    def server(self, *, hostname: str, server_id: str, **options: Any) -> QAMServer:
        assert (hostname, server_id) == ("localhost", "qamserver")
        options.setdefault("log_exceptions", False)
        return self._keep(QAMServer(self._node.url, server_id=self.server_id, **options))

    def proxy(self, server_id: str, hostname: str, **options: Any) -> QAMProxy:
        assert (hostname, server_id) == ("localhost", "qamserver")
        options.setdefault("timeout", 60)
        options.setdefault("pickle_protocol", 2)  # as the page says of old servers
        return self._keep(QAMProxy(self.server_id, self._node.url, **options))

    def old_client(self, serializer: str = "pickle") -> Client02:
        return self._keep(
            Client02(self._node.url, self.server_id, f"old-{self.server_id}", serializer)
        )

    def old_server(self, serializer: str = "pickle", **methods: Callable[..., Any]) -> Server02:
        return self._keep(Server02(self._node.url, self.server_id, serializer, methods))

    def _keep(self, made: Any) -> Any:
        self._made.append(made)
        return made

    def close(self) -> None:
        for each in reversed(self._made):
            each.close()
        self._made.clear()
