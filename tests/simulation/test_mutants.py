"""The simulation notices when a decision is taken out of the library."""

import pytest

from tests.simulation.mutants import MUTANTS, mutated
from tests.simulation.plan import Plan, draw
from tests.simulation.shrink import broken_promises, shrink

#: Within so many stories each is missed, if it is not in the one that missed it before.
STORIES = 400


@pytest.mark.parametrize("name", MUTANTS)
def test_a_decision_that_is_taken_out_is_missed(name: str) -> None:
    mutant = MUTANTS[name]
    plans = (draw(seed, mutant.mix) for seed in (mutant.seed, *range(STORIES)))
    assert any(breaks_only_without(name, plan) for plan in plans)


def breaks_only_without(name: str, plan: Plan) -> bool:
    """Whether a story breaks a promise that it does not break with the decision."""
    with mutated(name):
        broken = broken_promises(plan)
    return bool(broken) and not broken_promises(plan)


def test_what_is_found_is_made_short() -> None:
    # given a story that breaks a promise
    with mutated("the record knows nothing"):
        plan = next(
            plan for seed in range(STORIES) if broken_promises(plan := draw(seed, "network"))
        )
        [promise, *_] = sorted(broken_promises(plan))
        # when it is made short
        shortest = shrink(plan, promise)
        # then it breaks the same one, with nothing in it that could be left out
        assert promise in broken_promises(shortest)
        assert len(shortest.steps) < len(plan.steps)
        for number in range(len(shortest.steps)):
            steps = shortest.steps[:number] + shortest.steps[number + 1 :]
            fewer = type(shortest)(**{**_fields(shortest), "steps": steps})
            assert promise not in broken_promises(fewer)
    # and tells what has to happen
    assert "start server" in str(shortest)


def _fields(plan: object) -> dict[str, object]:
    return {name: getattr(plan, name) for name in type(plan).__slots__}
