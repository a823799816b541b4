"""What the faults hit: a broker, the servers and the clients."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.calls import HUNG_AFTER
from tests.chaos.children import Child
from tests.chaos.part import Part
from tests.support.forwarder import Forwarder
from tests.support.rabbitmq import RabbitMQNode

# Named, and not imported: they are programs of their own.
_SERVER, _CLIENT = "tests.chaos.server", "tests.chaos.client"

REPLY_QUEUE_SUFFIX = "_client_queue"
_SERVER_ENDS_WITHIN = 60.0  # seconds
# Beside the calls that it waits for: closing, and a look at its threads.
_CLIENT_ENDS_WITHIN = HUNG_AFTER + 30.0  # seconds


class Stage:
    """A private broker with servers, all under one id, and clients; nothing outlives it.

    As a context manager it is set up, and taken down by force if nobody has ended it before.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._started = time.time()
        #: The servers that run, and are not about to be ended.
        self.servers: list[Child] = []
        self.clients: list[Child] = []
        #: All processes that there ever were.
        self.children: list[Child] = []
        self.node = RabbitMQNode()
        #: The way from the clients to the broker, while there is a stage.
        self.link: Forwarder
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self.node)
            self.link = undo.enter_context(Forwarder(self.node.host, self.node.port))
            undo.callback(self._destroy_children)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _destroy_children(self) -> None:
        for child in self.children:
            child.destroy()

    def say(self, text: str) -> None:
        """A line for who waits, and for who reads the folder afterwards."""
        line = f"{time.time() - self._started:9.3f} s  {text}\n"
        sys.stderr.write(line)
        with (self._folder / "faults").open("a") as file:
            file.write(line)

    def start_server(self) -> Child:
        """Starts one server more, and returns when it serves."""
        child = self._start(_SERVER, "server", self.node.port)
        self.servers.append(child)
        return child

    def start_client(self) -> Child:
        """Starts one client more, and returns when it makes calls."""
        child = self._start(_CLIENT, "client", self.link.port)
        self.clients.append(child)
        return child

    def _start(self, module: str, role: str, port: int) -> Child:
        number = 1 + sum(child.part.name.startswith(role) for child in self.children)
        name = f"{role}-{number}"
        part = Part(name, port, str(self._folder), self._started, self._seed)
        child = Child(part, ["-m", module, part.as_argument()])
        self.children.append(child)
        child.wait_until_ready()
        return child

    @property
    def all_alive(self) -> bool:
        """Whether nobody has ended who should be there."""
        return all(child.alive for child in (*self.servers, *self.clients))

    def reply_queues(self) -> list[str]:
        """The reply queues in the broker, those of the same client always at the same place."""
        return sorted(name for name in self.node.queues() if name.endswith(REPLY_QUEUE_SUFFIX))

    def end(self) -> None:
        """Ends everybody gracefully: the clients first, which wait for their answers."""
        self._end(self.clients, _CLIENT_ENDS_WITHIN)
        self._end(self.servers, _SERVER_ENDS_WITHIN)

    def _end(self, children: list[Child], within: float) -> None:
        for child in children:
            child.ask_to_end()
        deadline = time.monotonic() + within
        for child in children:
            child.wait_for_end(deadline)

    def end_server(self, old: Child) -> None:
        """Ends a server gracefully."""
        self.servers.remove(old)
        self._end([old], _SERVER_ENDS_WITHIN)
