"""Stories that broke a promise when they were found, each as short as it could be made."""

from typing import Any

from tests.simulation.judge import HANGS, TWICE, WRONG
from tests.simulation.plan import Plan, Step

_WORLD = (Step(0.0, "start server", "a"), Step(0.0, "start client", "client"))


def _plan(seed: object, *steps: Step, **options: Any) -> Plan:
    in_time = sorted([*_WORLD, *steps], key=lambda step: step.at)
    return Plan(seed, tuple(in_time), **{"calm": True, **options})


def _call(at: float, token: str, runs: float, method: str = "work") -> Step:
    return Step(at, "call", token, {"of": "client", "method": method, "runs": runs})


def _calls(client: str, *calls: tuple[float, str, float]) -> list[Step]:
    options = {"of": client, "method": "work"}
    return [Step(at, "call", token, {**options, "runs": runs}) for at, token, runs in calls]


def _start(at: float, name: str) -> Step:
    return Step(at, "start server", name)


def _kill(at: float, name: str) -> Step:
    return Step(at, "kill server", name)


def _close(at: float, name: str, timeout: float) -> Step:
    return Step(at, "close server", name, {"timeout": timeout})


def _cut(at: float, name: str, which: str, seconds: float) -> Step:
    return Step(at, "cut", name, {"which": which, "seconds": seconds})


def _silence(at: float, name: str, which: str, seconds: float) -> Step:
    return Step(at, "silence", name, {"which": which, "seconds": seconds})


def _lose_replies(at: float) -> Step:
    return Step(at, "delete reply queue", "client")


def _foreign(at: float, token: str) -> Step:
    options = {"of": "foreigner", "method": "work", "runs": 0.1}
    return Step(at, "call of a foreign client", token, options)


#: Which promise each breaks, by what happens in it.
FOUND: dict[str, tuple[str, Plan]] = {
    "a has it and says so, b acknowledges the only copy, a is killed": (
        HANGS,
        _plan(
            3,
            _start(0.1, "b"),
            _call(3.0, "call", 10.0),
            _cut(4.0, "a", "receives", 0.02),
            _kill(5.0, "a"),
        ),
    ),
    "a has it and says so, b acknowledges the only copy, a closes before the method ends": (
        HANGS,
        _plan(
            3,
            _start(0.1, "b"),
            _call(3.0, "call", 10.0),
            _cut(4.0, "a", "receives", 0.02),
            _close(5.0, "a", 2.0),
        ),
    ),
    "b asks about it and loses its connection, c takes that question for a claim": (
        HANGS,
        _plan(
            3,
            _call(1.0, "call", 9.0),
            _start(2.0, "b"),
            _start(2.1, "c"),
            _silence(2.9, "b", "sends", 1.0),
            _kill(3.0, "a"),
            _cut(3.1, "b", "receives", 0.02),
        ),
    ),
    "a has answered it, loses its connection before the ack, closes, and says goodbye": (
        TWICE,
        _plan(
            3,
            _start(0.1, "b"),
            _call(3.0, "call", 0.3),
            _silence(3.05, "b", "sends", 1.0),
            _cut(3.1, "a", "receives", 0.02),
            _close(3.5, "a", 1.0),
        ),
    ),
    "a says goodbye, the broker is killed, and b hears that goodbye once more": (
        TWICE,
        _plan(
            3,
            _start(0.1, "b"),
            _call(3.0, "call", 0.01),
            _close(4.0, "a", 5.0),
            Step(5.0, "kill broker", "", {"seconds": 3.0}),
        ),
    ),
    "a says goodbye, b starts, and the broker is killed that has not kept the ack of a": (
        TWICE,
        _plan(
            3,
            _call(3.0, "call", 0.5),
            _close(3.1, "a", 1.0),
            _start(4.0, "b"),
            Step(5.5, "kill broker", "", {"seconds": 3.0}),
        ),
    ),
    "b judges what a killed server had, begins to vouch, and loses its connection": (
        TWICE,
        _plan(
            3,
            _call(2.0, "call", 10.0),
            _kill(3.0, "a"),
            _start(3.2, "b"),
            _cut(5.2, "b", "receives", 0.2),
        ),
    ),
    "a closes and can't say what it has, b starts, and vouches": (
        TWICE,
        _plan(
            3,
            _silence(1.0, "a", "sends", 19.0),
            _call(2.0, "call", 0.1),
            _close(3.0, "a", 2.0),
            _start(4.0, "b"),
        ),
    ),
    "a gives it back, the broker refuses that and has it all the same, b and c get one each": (
        TWICE,
        _plan(
            3,
            _call(2.0, "first", 9.0),
            _call(2.1, "second", 8.0),
            _start(3.0, "b"),
            _start(3.0, "c"),
            _close(5.0, "a", 0.3),
            Step(5.29, "refuse", "", {"seconds": 0.1}),
            workers=1,
            prefetch=8,
        ),
    ),
    "a and c leave with what they ran, b runs again what a had, and takes that for the first": (
        TWICE,
        _plan(
            3,
            _call(3.6, "before", 0.03),
            _start(3.9, "b"),
            _start(6.6, "c"),
            _call(7.49, "first", 2.0, "again"),
            _cut(7.5, "client", "receives", 3.0),
            _call(7.5, "second", 0.3),
            _lose_replies(8.2),
            _call(8.2, "third", 0.02),
            _close(9.4, "a", 5.0),
            _start(10.2, "d"),
            _close(10.2, "c", 1.0),
            _start(12.3, "e"),
            workers=1,
        ),
    ),
    "a passes it on, c runs it again, answers a queue that is gone, and leaves": (
        HANGS,
        _plan(
            3,
            _start(0.0, "b"),
            _call(0.6, "call", 4.0, "again"),
            _call(0.7, "short", 0.6),
            _call(0.7, "other", 2.0),
            _close(0.705, "b", 0.2),
            _start(0.8, "c"),
            _cut(9.1, "client", "receives", 5.0),
            _lose_replies(9.3),
            _close(11.6, "c", 1.0),
            workers=4,
        ),
    ),
    "b hears its own hello, a does not yet, and the broker is killed and loses that of a": (
        TWICE,
        _plan(
            1045,
            _call(2.0, "before", 0.01),
            _call(3.0, "long", 2.0),
            _start(3.0, "b"),
            _call(3.02, "call", 0.01),
            _call(3.025, "after", 0.01),
            Step(3.06, "kill broker", "", {"seconds": 3.0}),
            workers=1,
            prefetch=1,
            calm=False,
        ),
    ),
    "a loses its acks with its connection, says goodbye, and b gets it again after that": (
        TWICE,
        _plan(
            274,
            _start(0.1, "b"),
            _call(3.0, "call", 0.01),
            _call(3.0, "other", 0.01),
            Step(3.032, "cut all"),
            _close(3.2, "a", 1.0),
            workers=1,
            calm=False,
        ),
    ),
    "a and b die, and another one gets the last of their requests as it sees the queue empty": (
        TWICE,
        _plan(
            "killed servers/501219",
            _start(0.0, "b"),
            _call(1.8, "before", 0.008),
            _call(11.9, "first", 1.0),
            _call(11.9, "second", 0.6),
            Step(11.919, "kill client", "client"),
            _kill(11.92, "b"),
            _kill(12.3, "a"),
            workers=1,
        ),
    ),
    "b keeps a copy that was sent again, a answers it into a queue that is deleted, and ends": (
        HANGS,
        _plan(
            7,
            _call(2.0, "before", 0.01),
            _call(3.0, "call", 6.0),
            _start(3.5, "b"),
            _cut(4.0, "client", "receives", 0.5),
            _lose_replies(4.1),
            _close(4.3, "a", 1.0),
            _lose_replies(5.338),
            workers=1,
            calm=False,
        ),
    ),
    "a foreign client that numbers its requests from 1 is started again": (
        WRONG,
        _plan(
            3,
            Step(1.0, "start foreign client", "foreigner"),
            _foreign(2.0, "first"),
            Step(4.0, "start foreign client", "foreigner"),
            _foreign(5.0, "second"),
        ),
    ),
    "b gives back what its client sends again, and runs the copy; c begins with the other one": (
        TWICE,
        Plan(
            "lost replies and deploys/4313",
            (
                Step(0.0, "start server", "server-a"),
                Step(0.0, "start client", "client-1"),
                *_calls("client-1", (1.1, "call-7", 0.04)),
                Step(1.7, "start server", "server-b"),
                *_calls("client-1", (4.2, "call-9", 2.0)),
                _cut(5.1, "client-1", "receives", 0.1),
                Step(5.0918, "delete reply queue", "client-1"),
                *_calls("client-1", (7.9, "call-4", 0.2), (7.9, "call-6", 0.005)),
                *_calls("client-1", (10.8, "call-2", 0.006), (10.8, "call-5", 1.287)),
                *_calls("client-1", (10.806, "call-12", 4.0), (10.819, "call-11", 0.05)),
                *_calls("client-1", (11.821, "call-10", 3.0)),
                Step(12.0, "delete reply queue", "client-1"),
                Step(12.7, "start server", "server-c"),
            ),
            workers=1,
            calm=False,
        ),
    ),
}
