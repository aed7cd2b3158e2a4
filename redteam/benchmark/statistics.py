"""Medians with "never" in them, exact intervals and exact tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import beta, binom

__all__ = ["NEVER", "clopper_pearson", "exceeds", "quantile"]

NEVER = math.inf
"""How many queries an alert takes that does not come."""


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least a share of all values does not exceed; NaN of nothing.

    Unlike an interpolated quantile it is a value that occurred, and `NEVER` is as good a value as any.

    Examples:
        >>> quantile([5, 7, 4, NEVER], 0.5), quantile([5, 7, 4, NEVER], 0.95)
        (5, inf)
    """
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a binomial proportion.

    Examples:
        >>> low, high = clopper_pearson(0, 1000)
        >>> low, round(high, 5)
        (0.0, 0.00368)

    References:
        Clopper and Pearson (1934), The use of confidence or fiducial limits, Biometrika 26(4).
    """
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high


def exceeds(hits: int, trials: int, rate: float) -> float:
    """Probability of so many hits or more if each has at most the given rate: the exact one-sided test.

    Examples:
        >>> exceeds(0, 1000, 0.001), round(exceeds(5, 1000, 0.001), 4)
        (1.0, 0.0036)
    """
    return float(binom.sf(hits - 1, trials, rate))
