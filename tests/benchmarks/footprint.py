"""What a contestant takes that does not call: time of the CPU when idle, memory of what waits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks.contestants import Contestant
from tests.benchmarks.contract import NotOffered
from tests.benchmarks.place import Place
from tests.benchmarks.processes import Failed, Side
from tests.benchmarks.results import Failure, Results
from tests.benchmarks.task import Say, Stage

_IDLE_SECONDS = 10.0
_SETTLE_SECONDS = 1.0
_CALLS = 100_000
_BEGUN_WITHIN = 300.0  # seconds


@dataclass(frozen=True)
class Idle:
    """The CPU that client and server use while there is nothing to do, in % of a core."""

    contestant: Contestant

    @property
    def title(self) -> str:
        """Shown while it runs."""
        return f"idle, {self.contestant.name}"

    def run(self, stage: Stage, results: Results, say: Say) -> None:
        """Makes some calls, and then none."""
        try:
            with stage.pair(self.contestant) as pair:
                pair.client.do("sync", calls=100)
                time.sleep(_SETTLE_SECONDS)
                sides = {"client": pair.client, "server": pair.server}
                before = {role: side.cpu_seconds() for role, side in sides.items()}
                time.sleep(_IDLE_SECONDS)
                for role, side in sides.items():
                    used = (side.cpu_seconds() - before[role]) / _IDLE_SECONDS * 100
                    results.figures[f"idle {role}, % of a core"][self.contestant.name] = used
        except Failed as error:
            results.failures.append(Failure(self.contestant.name, self.title, str(error)))


@dataclass(frozen=True)
class Memory:
    """The memory of the client per call that waits for a server that is known but not running.

    The resident memory of the process, and in another process what Python has allocated: counting
    that takes memory as well.
    """

    contestant: Contestant

    @property
    def title(self) -> str:
        """Shown while it runs."""
        return f"memory, {self.contestant.name}"

    def run(self, stage: Stage, results: Results, say: Say) -> None:
        """Measures one after the other."""
        try:
            resident = self._resident(stage, say)
            traced = self._traced(stage, say)
        except NotOffered:
            return
        except Failed as error:
            results.failures.append(Failure(self.contestant.name, self.title, str(error)))
            return
        name = self.contestant.name
        results.figures["resident bytes per waiting call"][name] = resident / _CALLS
        results.figures["allocated bytes per waiting call"][name] = traced / _CALLS

    def _resident(self, stage: Stage, say: Say) -> float:
        say("resident")
        with _client_without_server(stage, self.contestant) as (client, place):
            before = client.resident_bytes()
            _begin_calls(stage, client, place)
            return client.resident_bytes() - before

    def _traced(self, stage: Stage, say: Say) -> float:
        say("allocated")
        with _client_without_server(stage, self.contestant) as (client, place):
            client.do("trace_memory")
            _begin_calls(stage, client, place)
            return client.do("traced_bytes")


@contextmanager
def _client_without_server(stage: Stage, contestant: Contestant) -> Iterator[tuple[Side, Place]]:
    """A client whose server was there, so that its queue is; what is in it goes at the end."""
    place = stage.place()
    with stage.side("server", contestant, place):
        pass
    with stage.side("client", contestant, place) as client:
        yield client, place
    for queue in _queues(stage, place):
        stage.node.delete_queue(queue)


def _queues(stage: Stage, place: Place) -> dict[str, int]:
    """The queues of the server, and how many messages are in each."""
    return {name: count for name, count in stage.node.queues().items() if place.name in name}


def _begin_calls(stage: Stage, client: Side, place: Place) -> None:
    """Returns when all requests are in the queue, and the client has nothing more to do."""
    client.do("begin", calls=_CALLS, within=_BEGUN_WITHIN)
    deadline = time.monotonic() + _BEGUN_WITHIN
    while sum(_queues(stage, place).values()) < _CALLS:
        if not _queues(stage, place) or time.monotonic() > deadline:
            raise Failed(f"{_queues(stage, place)}: the requests are not there")
        time.sleep(_SETTLE_SECONDS)
    time.sleep(_SETTLE_SECONDS)
