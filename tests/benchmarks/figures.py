"""From samples to figures."""

import math
import statistics
from collections.abc import Sequence

#: A figure that there is not, in a round that failed.
Sample = float | None


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of the values that is not exceeded by so many percent of them."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def median(samples: Sequence[Sample]) -> Sample:
    """The median over the rounds, of those that there are."""
    there = [sample for sample in samples if sample is not None]
    return statistics.median(there) if there else None


def cost_ratio(
    samples: Sequence[Sample], reference: Sequence[Sample], more_is_better: bool
) -> Sample:
    """How many times as dear it is as the reference: 2 is twice as slow, of whatever unit.

    It is the median of the ratios of each round, in which both ran close to each other. What a
    noisy machine does to a whole round is in both, and does not matter then.
    """
    pairs = [(b, a) if more_is_better else (a, b) for a, b in zip(samples, reference, strict=False)]
    return median([a / b if a is not None and b else None for a, b in pairs])


def enough_calls(seconds_each: float, seconds: float, least: int, most: int) -> int:
    """How many calls last about so many seconds."""
    return max(min(least, most), min(most, round(seconds / max(seconds_each, 1e-9))))
