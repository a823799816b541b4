"""What a run consists of: one task after the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from tests.benchmarks.contestants import Contestant
from tests.benchmarks.measures import Pair
from tests.benchmarks.place import Place
from tests.benchmarks.processes import Failed, Side
from tests.benchmarks.results import Results
from tests.support.rabbitmq import RabbitMQNode, free_ports

#: Tells who waits what is being done.
Say = Callable[[str], object]


class Stage:
    """Where contestants are measured: a broker, and for each the Python that has its library."""

    def __init__(self, node: RabbitMQNode, pythons: dict[str, Path]) -> None:
        self.node = node
        self._pythons = pythons

    def place(self) -> Place:
        """A new place for a server, so that nothing is there of one before."""
        (free_port,) = free_ports(1)
        name = f"benchmark-{uuid4().hex[:12]}"
        return Place(self.node.host, self.node.port, name, free_port=free_port)

    def side(self, role: str, contestant: Contestant, place: Place) -> Side:
        """A process, to be started."""
        return Side(role, self._pythons[contestant.name], contestant, place)

    @contextmanager
    def pair(self, contestant: Contestant) -> Iterator[Pair]:
        """A server and a client, new ones.

        Raises Failed if either has ended before the block; that explains all that failed in it.
        """
        place = self.place()
        with (
            self.side("server", contestant, place) as server,
            self.side("client", contestant, place) as client,
        ):
            try:
                yield Pair(server, client)
            except Failed:
                server.check_alive()
                raise


class Task(Protocol):
    """A part of a run; what it finds, also if it fails, is in the results."""

    @property
    def title(self) -> str:
        """What it is about, for who waits."""

    def run(self, stage: Stage, results: Results, say: Say) -> None:
        """Does it."""
