"""Stories of servers and clients under faults, drawn from seeds: what was promised is kept."""

import pytest

from tests.simulation.found import FOUND
from tests.simulation.judge import judge
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import MIXES, draw
from tests.simulation.shrink import broken_promises, shrink
from tests.simulation.story import play

#: How many stories of each mix are played here; `tox run -e sim` plays others, and more.
STORIES = 100


def seeds(mix: str) -> set[int]:
    """Those of some stories, and of the rare ones in which something is decided that matters."""
    return {*range(STORIES), *(each.seed for each in MUTANTS.values() if each.mix == mix)}


@pytest.mark.parametrize("mix", MIXES)
def test_what_was_promised_is_kept(mix: str) -> None:
    for seed in sorted(seeds(mix)):
        plan = draw(seed, mix)
        violations = judge(play(plan))
        if violations:
            shortest = shrink(plan, violations[0].what)
            told = "\n".join(map(str, (shortest, *judge(play(shortest)))))
            pytest.fail(f"{told}\n\nwhich is the shortest form of: {plan}", pytrace=False)


@pytest.mark.parametrize("story", FOUND)
def test_a_story_that_was_found_breaks_no_promise_any_more(story: str) -> None:
    _, plan = FOUND[story]
    assert not broken_promises(plan)


def test_a_story_goes_the_same_way_each_time() -> None:
    for seed in range(5):
        plan = draw(seed)
        assert plan == draw(seed)
        once, again = play(plan), play(plan)
        assert once.journal
        assert list(map(str, once.journal)) == list(map(str, again.journal))


def test_stories_differ() -> None:
    journals = {tuple(map(str, play(draw(seed)).journal)) for seed in range(10)}
    assert len(journals) == 10


def test_most_calls_get_their_results_and_every_method_can_fail() -> None:
    outcomes = [each for seed in range(100) for each in play(draw(seed)).outcomes]
    right = [each for each in outcomes if each.ended and each.error is None]
    assert len(right) > len(outcomes) / 2
    assert {type(each.error).__name__ for each in outcomes} >= {
        *("QAMServerLostException", "QAMTimeoutException", "QAMConnectionException"),
        "QAMClosedException",
    }
