"""A slope that outliers do not move, and how sure it is.  Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

#: Of the interval, two-sided: 95 %.
Z = 1.96


@dataclass(frozen=True, slots=True)
class Slope:
    """y per x.  low, high: the ends of the 95 % confidence interval.  level: y of the line at x = 0."""

    value: float
    low: float
    high: float
    level: float

    def at(self, x: float) -> float:
        """The line at *x*."""
        return self.level + self.value * x


FLAT = Slope(0.0, 0.0, 0.0, 0.0)


def median(values: Sequence[float]) -> float:
    """The middle of *values*, of two the mean.  Raises IndexError for none."""
    return middle(sorted(values))


def middle(ordered: Sequence[float]) -> float:
    """The median of what is in order already.  Raises IndexError for none."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def theil_sen(xs: Sequence[float], ys: Sequence[float]) -> Slope:
    """The median slope of all pairs (Theil 1950), its interval by ranks (Sen 1968), widened by what neighbours share.

    Costs the square of the number of points: thin first.  No two points of different x: ``FLAT`` at their median.
    """
    points = list(zip(xs, ys, strict=True))
    slopes = [(d - b) / (c - a) for n, (a, b) in enumerate(points, 1) for c, d in points[n:] if c != a]
    slopes.sort()
    if not slopes:
        return Slope(0.0, 0.0, 0.0, median(ys) if ys else 0.0)
    value = middle(slopes)
    level = median([y - value * x for x, y in zip(xs, ys, strict=True)])
    n, count = len(xs), len(slopes)
    shared = _autocorrelation([y - level - value * x for x, y in zip(xs, ys, strict=True)])
    spread = Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18 * (1 + shared) / (1 - shared))
    low = max(0, math.floor((count - spread) / 2))
    high = min(count - 1, math.ceil((count + spread) / 2))
    return Slope(value, slopes[low], slopes[high], level)


def _autocorrelation(residuals: Sequence[float]) -> float:
    """Of neighbours, within [0, 0.9]: a staircase's steps make neighbours alike, so that they count for fewer."""
    power = sum(one * one for one in residuals)
    if power == 0 or len(residuals) < 3:
        return 0.0
    shared = sum(a * b for a, b in pairwise(residuals)) / power
    return min(0.9, max(0.0, shared))
