"""Plays a story: what is planned happens, then all faults stop, and time passes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from qam._protocol.entities import reply_binding, request_binding, siblings_binding
from tests.simulation.client import ModelClient, Outcome
from tests.simulation.foreign import ForeignClient
from tests.simulation.owner import Owner
from tests.simulation.plan import Plan, Step
from tests.simulation.server import ModelServer
from tests.simulation.virtual import BEGINNING, virtual
from tests.simulation.world import SERVER_ID, Entry, World

#: Seconds that a story has once nothing is made to happen any more.
_QUIET = 110.0
#: Seconds of silence after which a peer is missed, at least and at most.
_MISSED = (20.0, 27.0)
# Steps that are no faults.
_PEACEFUL = {
    *("start server", "start client", "call"),
    *("start foreign client", "call of a foreign client"),
}
# Steps that no server is lost by, unless they take long.
_SHORT = {"cut", "cut all"}


@dataclass
class Evidence:
    """All that is known when a story has ended."""

    plan: Plan
    journal: list[Entry]
    outcomes: list[Outcome] = field(default_factory=list)
    #: What is left that should not be, and with whom.
    left_behind: list[str] = field(default_factory=list)
    #: An error of the library.
    crash: BaseException | None = None

    @property
    def peaceful(self) -> bool:
        return all(step.what in _PEACEFUL for step in self.plan.steps)

    @property
    def nobody_is_missed(self) -> bool:
        """No server is away for so long that others may take it for dead."""
        return all(
            step.what in _PEACEFUL | _SHORT and step.options.get("seconds", 0.0) < 1.0
            for step in self.plan.steps
            if not step.whom.startswith("client")
        )

    def times(self, what: str, token: str) -> int:
        """How often something happened to a call."""
        return sum(entry.what == what and entry.token == token for entry in self.journal)


class Story:
    """A plan that is played."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._world = World(plan.seed, plan.calm)
        self._servers: dict[str, ModelServer] = {}
        self._clients: dict[str, ModelClient] = {}
        self._foreigners: dict[str, ForeignClient] = {}
        self._arguments = {"x-queue-type": "quorum"} if plan.quorum else {}

    def play(self) -> Evidence:
        """Play it to its end."""
        evidence = Evidence(self._plan, self._world.journal)
        schedule = self._world.schedule

        def connect(*_: object) -> Any:
            return self._world.connect()

        with virtual(schedule, self._plan.seed, connect):
            for step in self._plan.steps:
                schedule.at(BEGINNING + step.at, partial(self._do, step))
            last = max((step.at for step in self._plan.steps), default=0.0)
            schedule.at(BEGINNING + last + 1.0, self._see_that_somebody_serves)
            # A method that began last, and a connection that is away.
            longest = max((self._length(step) for step in self._plan.steps), default=0.0)
            try:
                schedule.run(BEGINNING + last + longest + _QUIET)
                evidence.left_behind = list(self._left_behind())
            except Exception as error:
                evidence.crash = error
        clients = (*self._clients.values(), *self._foreigners.values())
        evidence.outcomes = [outcome for client in clients for outcome in client.outcomes]
        return evidence

    @staticmethod
    def _length(step: Step) -> float:
        return float(step.options.get("seconds", 0.0)) + float(step.options.get("runs", 0.0))

    # --- steps ----------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        steps: dict[str, Callable[..., None]] = {
            "start server": self._start_server,
            "start client": self._start_client,
            "call": self._call,
            "start foreign client": self._start_foreign_client,
            "call of a foreign client": self._call_of_foreigner,
            "cut": self._cut,
            "silence": self._silence,
            "stop": self._stop,
            "kill server": self._kill_server,
            "close server": self._close_server,
            "kill broker": partial(self._end_broker, killed=True),
            "restart broker": partial(self._end_broker, killed=False),
            "cut all": self._cut_all,
            "refuse": self._refuse,
            "delete reply queue": self._delete_reply_queue,
            "delete siblings queue": self._delete_siblings_queue,
            "kill client": self._kill_client,
            "close client": self._close_client,
        }
        steps[step.what](step.whom, **step.options)

    def _start_server(self, name: str) -> None:
        if name not in self._servers:
            self._world.note("starts", name)
            self._servers[name] = ModelServer(
                self._world, name, self._plan.workers, self._plan.prefetch, self._arguments
            )

    def _see_that_somebody_serves(self) -> None:
        if not any(each.is_alive and not each.closes for each in self._servers.values()):
            self._start_server("server-z")

    def _start_client(self, name: str) -> None:
        self._clients[name] = ModelClient(self._world, name)

    def _call(
        self, token: str, of: str, method: str, runs: float, timeout: float | None = None
    ) -> None:
        client = self._clients.get(of)
        if client is not None and client.is_alive:
            client.call(token, method, runs, timeout)

    def _start_foreign_client(self, name: str) -> None:
        foreigner = self._foreigners.get(name)
        if foreigner is None:
            self._foreigners[name] = ForeignClient(self._world, name)
        elif not foreigner.waits:  # else its own late replies would deceive it
            foreigner.start()

    def _call_of_foreigner(self, token: str, of: str, method: str, runs: float) -> None:
        if of in self._foreigners:
            self._foreigners[of].call(token, method, runs)

    def _owners(self, name: str, which: str = "both") -> list[Owner]:
        process = self._servers.get(name) or self._clients.get(name)
        if process is None or not process.is_alive:
            return []
        return [each for key, each in process.owners.items() if which in (key, "both")]

    def _cut(self, name: str, which: str, seconds: float) -> None:
        for owner in self._owners(name, which):
            self._world.note(f"is cut for {seconds:g} s", owner.name)
            owner.be_unreachable(self._world.schedule.now + seconds)
            if owner.connection is not None:
                owner.connection.cut(notice=self._world.broker.latency())

    def _silence(self, name: str, which: str, seconds: float) -> None:
        now, chance = self._world.schedule.now, self._world.broker.chance
        for owner in self._owners(name, which):
            connection = owner.connection
            if connection is None:
                continue
            self._world.note(f"hears and says nothing for {seconds:g} s", owner.name)
            connection.be_silent(now + seconds)
            if seconds > _MISSED[0]:
                client, broker = (chance.uniform(*_MISSED) for _ in range(2))
                if client < seconds:
                    notice = max(0.0, min(broker, seconds) - client)
                    lose = partial(connection.cut, "no heartbeat came", notice)
                    self._world.schedule.at(now + client, lose)

    def _stop(self, name: str, seconds: float) -> None:
        process = self._servers.get(name) or self._clients.get(name)
        if process is not None and process.is_alive:
            self._world.note(f"stands still for {seconds:g} s", name)
            process.stand_still(self._world.schedule.now + seconds)

    def _kill_server(self, name: str) -> None:
        if name in self._servers:
            self._servers[name].kill()

    def _close_server(self, name: str, timeout: float) -> None:
        if name in self._servers:
            self._servers[name].close(timeout)

    def _kill_client(self, name: str) -> None:
        self._clients[name].kill()

    def _close_client(self, name: str) -> None:
        self._clients[name].close()

    def _end_broker(self, _: str, seconds: float, killed: bool) -> None:
        broker = self._world.broker
        if broker.is_up:
            self._world.note("is killed" if killed else "is restarted", "broker")
            broker.go_down(killed)
            self._world.schedule.after(seconds, broker.come_up)

    def _cut_all(self, _: str) -> None:
        self._world.note("closes all connections", "broker")
        for connection in list(self._world.broker.connections):
            connection.close_by_broker("closed by an operator", by_message=False)

    def _refuse(self, _: str, seconds: float) -> None:
        queue = self._world.broker.queues.get(request_binding(SERVER_ID).queue)
        if queue is not None:
            self._world.note(f"refuses requests for {seconds:g} s", "broker")
            queue.refuses_until = self._world.schedule.now + seconds

    def _delete_reply_queue(self, name: str) -> None:
        client = self._clients.get(name)
        if client is not None:
            queue = reply_binding(SERVER_ID, client.consumer.client_id).queue
            if self._world.broker.delete_queue(queue):
                self._world.note("loses its reply queue", name)

    def _delete_siblings_queue(self, name: str) -> None:
        server = self._servers.get(name)
        if server is not None:
            queue = siblings_binding(SERVER_ID, server.consumer._intake.siblings._instance).queue
            if self._world.broker.delete_queue(queue):
                self._world.note("loses its siblings queue", name)

    # --- the end ----------------------------------------------------------------------------

    def _left_behind(self) -> Any:
        for process in (*self._servers.values(), *self._clients.values()):
            if process.is_alive:
                for what in process.left_behind():
                    yield f"{process.name} has {what}"
        for queue in self._world.broker.queues.values():
            kept_for_a_client = any(
                queue.name == reply_binding(SERVER_ID, client.consumer.client_id).queue
                for client in self._clients.values()
                if not client.is_alive
            )
            if kept_for_a_client or (queue.expires is not None and not queue.consumers):
                continue
            for what, number in (("ready", len(queue.ready)), ("unacknowledged", len(queue.held))):
                if number:
                    yield f"{queue.name} has {number} messages that are {what}"


def play(plan: Plan) -> Evidence:
    """Play the story of *plan*; the same one each time."""
    return Story(plan).play()
