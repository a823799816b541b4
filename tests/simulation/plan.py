"""What is going to happen in a story: steps, drawn from a seed, each of which can be left out."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.simulation.virtual import drawn

#: Seconds of a story in which something is made to happen.
_LONG = 12.0
_FOREIGNER = "foreigner"


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is made to happen.

    :param at: seconds since the story began.
    :param what: which, see `tests.simulation.story`.
    :param whom: the server, the client, or the call.
    """

    at: float
    what: str
    whom: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{key} {_short(value)}" for key, value in self.options.items())
        whom = f" {self.whom}" if self.whom else ""
        return f"at {self.at:.3f} s: {self.what}{whom}{f' ({options})' if options else ''}"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class Plan:
    """A story before it is played.

    :param seed: what the rest is drawn from: how long things take, what a crash leaves.
    :param workers: how many methods each server runs at once.
    :param prefetch: how many requests it holds; None to have that follow the work.
    :param calm: nothing takes longer than it must.
    """

    seed: object
    steps: tuple[Step, ...]
    workers: int = 2
    prefetch: int | None = None
    quorum: bool = False
    calm: bool = False

    def __str__(self) -> str:
        kind = "quorum" if self.quorum else "classic"
        head = f"seed {self.seed}: a {kind} queue, {self.workers} methods at once in each server"
        if self.prefetch is not None:
            head += f", which holds up to {self.prefetch} requests"
        if self.calm:
            head += ", nothing takes longer than it must"
        return "\n".join([head, *map(str, self.steps)])


@dataclass(frozen=True, slots=True)
class Mix:
    """What is drawn for a kind of stories.

    :param faults: how often each is drawn.
    :param servers: how many there are at first, at least and at most.
    :param long: the methods are long, so that requests wait in the servers.
    :param foreign: there is a client of another library, too.
    """

    faults: dict[str, int]
    servers: tuple[int, int] = (1, 3)
    long: bool = False
    foreign: bool = False


_OF_NETWORK = {"cut": 10, "silence": 2, "stop": 2, "cut all": 2}
_OF_QUEUES = {
    "refuse": 2,
    "delete siblings queue": 1,
    "delete reply queue": 1,
    "lose replies": 2,
}
_OF_CLIENTS = {"kill client": 1, "close client": 1}
_OF_BROKER = {"kill broker": 2, "restart broker": 1}
_OF_DEPLOYS = {"deploy": 4, "close server": 3, "start server": 3}

#: What can be drawn, by the name of the mix.
MIXES = {
    "everything": Mix(
        {
            **_OF_NETWORK,
            **_OF_QUEUES,
            **_OF_CLIENTS,
            **_OF_BROKER,
            **_OF_DEPLOYS,
            "kill server": 4,
        }
    ),
    "network": Mix({**_OF_NETWORK, **_OF_QUEUES, **_OF_CLIENTS}),
    "brokers": Mix({**_OF_BROKER, "kill client": 1, "start server": 1, "refuse": 1}),
    "killed servers": Mix({"kill server": 4, "start server": 2, "stop": 1, **_OF_CLIENTS}),
    "deploys": Mix({**_OF_DEPLOYS, "stop": 1, **_OF_CLIENTS}),
    "cuts and deploys": Mix({"cut": 8, **_OF_DEPLOYS}, servers=(2, 3), long=True),
    "giving back": Mix({"deploy": 4, "give back": 4, "start server": 1}, servers=(2, 4), long=True),
    "lost replies": Mix({"lose replies": 6, "start server": 1, "kill server": 1}),
    "lost replies and cuts": Mix(
        {"lose replies": 5, "cut all": 5, "cut": 1}, servers=(3, 4), long=True
    ),
    "lost replies and deploys": Mix({"lose replies": 6, "deploy": 3, "start server": 1}),
    "foreign clients": Mix({"start foreign client": 3, "start server": 1}, foreign=True),
    "peace": Mix({"start server": 1}),
}


class _Drawer:
    """Draws one plan."""

    def __init__(self, seed: object, mix: Mix) -> None:
        self._chance: Random = drawn(seed, "plan")
        self._mix = mix
        self._steps: list[Step] = []
        self._servers: list[str] = []
        self._clients: list[str] = []

    def draw(self, seed: object) -> Plan:
        chance = self._chance
        self._draw_servers(chance.randint(*self._mix.servers))
        self._clients = [f"client-{number}" for number in range(1, chance.randint(1, 2) + 1)]
        self._steps += [Step(0.0, "start client", name) for name in self._clients]
        self._draw_calls(chance.randint(1, 12))
        if self._mix.foreign:
            self._draw_foreign_calls(chance.randint(1, 6))
        for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4, 6))):
            self._draw_fault()
        steps = tuple(sorted(self._steps, key=lambda step: step.at))
        workers, quorum = chance.choice((1, 2, 4)), chance.random() < 0.2
        prefetch = 8 if self._mix.long or chance.random() < 0.3 else None
        return Plan(seed, steps, workers, prefetch, quorum, calm=chance.random() < 0.2)

    def _draw_servers(self, number: int) -> None:
        for _ in range(number):
            late = self._servers and self._chance.random() < 0.3
            self._start_server(self._time(4.0) if late else 0.0)

    def _start_server(self, at: float) -> None:
        name = f"server-{chr(ord('a') + len(self._servers))}"
        self._servers.append(name)
        self._steps.append(Step(at, "start server", name))

    def _time(self, most: float = _LONG) -> float:
        return round(self._chance.uniform(0.3, most), 3)

    # --- calls --------------------------------------------------------------------------

    def _draw_calls(self, number: int) -> None:
        bursts = [self._time() for _ in range(3)]
        for token in range(1, number + 1):
            near = self._chance.random() < 0.6
            at = self._chance.choice(bursts) + self._chance.uniform(0, 0.05)
            at = at if near else self._time()
            self._steps.append(Step(round(at, 3), "call", f"call-{token}", self._call()))

    def _draw_foreign_calls(self, number: int) -> None:
        self._steps.append(Step(0.0, "start foreign client", _FOREIGNER))
        for token in range(1, number + 1):
            runs = round(10 ** self._chance.uniform(-3, 0), 3)
            options = {"of": _FOREIGNER, "method": "work", "runs": runs}
            self._steps.append(
                Step(self._time(), "call of a foreign client", f"foreign-{token}", options)
            )

    def _call(self) -> dict[str, Any]:
        chance = self._chance
        shortest = -1 if self._mix.long else -3
        call = {
            "of": chance.choice(self._clients),
            "method": chance.choice(("work", "work", "again")),
            "runs": round(10 ** chance.uniform(shortest, 1), 3),
        }
        if chance.random() < 0.25:
            call["timeout"] = round(10 ** chance.uniform(-0.5, 1.5), 3)
        return call

    # --- faults -------------------------------------------------------------------------

    def _fault_time(self) -> float:
        """Mostly soon after something else has happened: there it hurts."""
        chance = self._chance
        if chance.random() < 0.7:
            near = chance.choice([step.at for step in self._steps if step.at > 0] or [1.0])
            return round(near + 10 ** chance.uniform(-3.5, 0.8), 4)
        return self._time()

    def _draw_fault(self) -> None:
        faults = self._mix.faults
        what = self._chance.choices(list(faults), list(faults.values()))[0]
        self._fault(what, self._fault_time())

    def _fault(self, what: str, at: float) -> None:
        chance = self._chance
        match what:
            case "deploy":
                self._start_server(round(max(0.0, at + chance.uniform(-1.0, 1.0)), 3))
                self._step(at, "close server", self._servers[:-1], timeout=self._seconds(-1, 1.3))
            case "give back":
                self._give_back(at)
            case "lose replies":
                self._lose_replies(at)
            case "start server":
                self._start_server(at)
            case "start foreign client":
                self._step(at, what, [_FOREIGNER])
            case "close server":
                self._step(at, what, self._servers, timeout=self._seconds(-1, 1.3))
            case "cut" | "silence":
                which = chance.choice(("receives", "sends", "both"))
                seconds = self._seconds(-2.5, 1.2 if what == "cut" else 1.6)
                self._step(at, what, self._processes, which=which, seconds=seconds)
            case "stop":
                self._step(at, what, self._processes, seconds=self._seconds(-1, 1))
            case "kill server" | "delete siblings queue":
                self._step(at, what, self._servers)
            case "kill client" | "close client" | "delete reply queue":
                self._step(at, what, self._clients)
            case "refuse":
                self._step(at, what, [""], seconds=self._seconds(-1.5, 0.5))
            case "kill broker" | "restart broker":
                self._step(at, what, [""], seconds=round(chance.uniform(1.0, 6.0), 3))
            case _:
                self._step(at, what, [""])

    def _give_back(self, at: float) -> None:
        """A server has to give requests back, and something happens at that moment."""
        chance, name, timeout = self._chance, self._chance.choice(self._servers), 0.3
        self._steps.append(Step(at, "close server", name, {"timeout": timeout}))
        soon = round(at + timeout + 10 ** chance.uniform(-3.5, -1.5), 4)
        if chance.random() < 0.5:
            self._step(at + timeout - 0.01, "refuse", [""], seconds=0.1)
        else:
            self._step(soon, "cut", [name], which="sends", seconds=0.01)

    def _lose_replies(self, at: float) -> None:
        """The reply queue of a client is deleted while the client can't empty it."""
        client, seconds = self._chance.choice(self._clients), self._seconds(-1.5, 0.7)
        self._step(at, "cut", [client], which="receives", seconds=seconds)
        self._step(at + seconds * self._chance.random(), "delete reply queue", [client])
        if "deploy" in self._mix.faults and self._chance.random() < 0.5:
            self._step(
                at + seconds * self._chance.random(), "close server", self._servers, timeout=1.0
            )

    @property
    def _processes(self) -> list[str]:
        return [*self._servers, *self._servers, *self._clients]

    def _seconds(self, least: float, most: float) -> float:
        return round(10 ** self._chance.uniform(least, most), 3)

    def _step(self, at: float, what: str, whom: list[str], **options: Any) -> None:
        self._steps.append(Step(round(at, 4), what, self._chance.choice(whom), options))


def draw(seed: object, mix: str = "everything") -> Plan:
    """Return the plan of the story that *seed* stands for.

    :param mix: of what it is drawn, see :data:`MIXES`.
    """
    return _Drawer(f"{mix}/{seed}", MIXES[mix]).draw(f"{mix}/{seed}")
