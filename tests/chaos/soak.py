"""A soak from its start to the evidence that it leaves."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.children import Child
from tests.chaos.faults import draw_fault, draw_pause
from tests.chaos.journal import read_journal
from tests.chaos.outcomes import read_outcomes
from tests.chaos.report import Evidence
from tests.chaos.stage import Stage


@dataclass(frozen=True)
class Options:
    """How to soak: how long there are faults, from which seed they are drawn, and what they hit.

    `calm` is without faults: everything has to succeed then.
    """

    minutes: float
    seed: int
    servers: int = 3
    clients: int = 2
    calm: bool = False


def soak(options: Options, folder: Path) -> Evidence:
    """Has servers and clients work under faults; returns when everybody has ended.

    `folder` is where they write.
    """
    with Stage(folder, options.seed) as stage:
        _set_up(stage, options)
        until = time.monotonic() + 60 * options.minutes
        if options.calm:
            time.sleep(max(0.0, until - time.monotonic()))
            faults: Counter[str] = Counter()
        else:
            faults = Counter(_strike(stage, options.seed, until))
        stage.say("no more faults; the clients wait for their last answers")
        stage.end()
        reply_queues_left = stage.reply_queues()
        (folder / "broker.log").write_text(stage.node.log())
        return _gather(stage, faults, reply_queues_left, options)


def _set_up(stage: Stage, options: Options) -> None:
    # The servers first: clients would be told that nobody has ever declared their id.
    started = [stage.start_server() for _ in range(options.servers)]
    started += [stage.start_client() for _ in range(options.clients)]
    stage.say(f"all run: {', '.join(map(str, started))}")


def _strike(stage: Stage, seed: int, until: float) -> Iterator[str]:
    """Strikes with one fault after the other; gives their names."""
    draw = random.Random(seed)
    while time.monotonic() + (pause := draw_pause(draw)) < until:
        time.sleep(pause)
        if not stage.all_alive:
            stage.say("somebody has ended without being asked: that is enough")
            return
        fault, began = draw_fault(draw), time.monotonic()
        done = fault.strike(stage, draw)
        stage.say(f"{done} (in {time.monotonic() - began:.1f} s)")
        yield fault.name
    time.sleep(max(0.0, until - time.monotonic()))


def _gather(
    stage: Stage, faults: Counter[str], reply_queues_left: list[str], options: Options
) -> Evidence:
    clients = [child.part for child in stage.clients]
    return Evidence(
        outcomes=[outcome for each in clients for outcome in read_outcomes(each.outcomes)],
        journal=read_journal(stage.children[0].part.journal),
        faults=faults,
        calm=options.calm,
        bad_ends={str(each): each.bad_end for each in stage.children if each.bad_end},
        stderr={str(each): text for each in stage.children if (text := _stderr(each))},
        threads_left={each.name: _lines(each.threads_left) for each in clients},
        reply_queues_left=reply_queues_left,
    )


def _stderr(child: Child) -> str:
    return child.part.stderr.read_text(errors="replace")


def _lines(path: Path) -> list[str]:
    # A client that has not come to write it is one that ended badly, and reported as such.
    return path.read_text().splitlines() if path.exists() else []
