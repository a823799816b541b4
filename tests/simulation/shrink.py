"""Finds the shortest story that still breaks the same promise."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.simulation.judge import judge
from tests.simulation.plan import Plan, Step
from tests.simulation.story import play

#: How many stories are played to shrink one.
_MOST_STORIES = 1500


def broken_promises(plan: Plan) -> set[str]:
    """Return which promises a story breaks."""
    return {violation.what for violation in judge(play(plan))}


def shrink(plan: Plan, promise: str, judged: Callable[[Plan], set[str]] = broken_promises) -> Plan:
    """Return a plan with as few steps as can be that still breaks *promise*.

    It is one of which nothing more can be left out or made simpler by itself.
    """
    played = 0
    simpler = True
    while simpler:
        simpler = False
        for candidate in _simpler(plan):
            played += 1
            if played > _MOST_STORIES:
                return plan
            if promise in judged(candidate):
                plan, simpler = candidate, True
                break
    return plan


def _simpler(plan: Plan) -> Iterator[Plan]:
    """Yield what is a little simpler than *plan*, the simplest first."""
    if not plan.calm:
        yield replace(plan, calm=True)
    yield from _with_fewer_steps(plan)
    if plan.quorum:
        yield replace(plan, quorum=False)
    if plan.prefetch is not None:
        yield replace(plan, prefetch=None)
    yield from _with_simpler_steps(plan)


def _with_fewer_steps(plan: Plan) -> Iterator[Plan]:
    size = len(plan.steps) // 2
    while size:
        for start in range(0, len(plan.steps), size):
            yield replace(plan, steps=plan.steps[:start] + plan.steps[start + size :])
        size //= 2


def _with_simpler_steps(plan: Plan) -> Iterator[Plan]:
    for number, step in enumerate(plan.steps):
        for simpler in _simpler_options(step):
            steps = (*plan.steps[:number], simpler, *plan.steps[number + 1 :])
            yield replace(plan, steps=steps)


def _simpler_options(step: Step) -> Iterator[Step]:
    options: dict[str, Any] = step.options
    if "timeout" in options and step.what == "call":
        yield replace(step, options={k: v for k, v in options.items() if k != "timeout"})
    if options.get("method") == "again":
        yield replace(step, options={**options, "method": "work"})
    if options.get("which") == "both":
        yield from (replace(step, options={**options, "which": w}) for w in ("receives", "sends"))
    for key in ("seconds", "runs", "timeout"):
        if (value := options.get(key)) is not None and (rounder := _rounder(value)) != value:
            yield replace(step, options={**options, key: rounder})
    if (at := round(step.at, 1)) != step.at:
        yield replace(step, at=at)


def _rounder(value: float) -> float:
    """A number that reads more easily, about as large."""
    return float(f"{value:.1g}")
