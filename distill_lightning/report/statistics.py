"""Means and their spread. The result is nan if the numbers are too large to add or to square."""

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    try:
        return math.fsum(values) / len(values)
    except (OverflowError, ValueError):  # ValueError: infinities of both signs
        return math.nan


def std(values: Sequence[float]) -> float | None:
    """The sample standard deviation (n - 1); None for fewer than 2 values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    try:
        return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))
    except (OverflowError, ValueError):
        return math.nan


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's t-interval of the mean of independent values; None for fewer than 2 values."""
    spread = std(values)
    if spread is None:
        return None
    from scipy.special import stdtrit  # half of the start-up of `distill report`, which seldom needs it

    half = float(stdtrit(len(values) - 1, 0.5 + level / 2)) * spread / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half
