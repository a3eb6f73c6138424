"""Whether a number that is measured again and again grows: a straight line and its uncertainty."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SURE = 3.0  # standard errors


@dataclass(frozen=True)
class Trend:
    """What a series of samples says."""

    first: float  # median of the first quarter
    last: float  # median of the last quarter
    per_hour: float  # slope of the least-squares line
    error_per_hour: float  # its standard error

    def grows(self, *, allowed: float) -> bool:
        """Tell whether it rose by more than is allowed, and the line leaves no doubt of it."""
        rises = self.per_hour > SURE * self.error_per_hour
        return self.last - self.first > allowed and rises


def trend_of(seconds: Sequence[float], values: Sequence[float]) -> Trend:
    """Return the trend of values over time. Raises ValueError for fewer than eight.

    Neighbours in time resemble each other, so there is less in the samples than their number
    says: the standard error is widened by the residuals' correlation from one to the next.
    """
    if len(values) < 8:
        raise ValueError(f"{len(values)} samples are too few to tell a trend")
    quarter = len(values) // 4
    slope, intercept = statistics.linear_regression(seconds, values)
    residuals = [v - slope * t - intercept for t, v in zip(seconds, values, strict=True)]
    spread = sum((t - statistics.fmean(seconds)) ** 2 for t in seconds)
    squares = sum(r * r for r in residuals)
    error = math.sqrt(squares / (len(values) - 2) / spread)
    alike = _correlation(residuals, squares)
    error *= math.sqrt((1 + alike) / (1 - alike))
    return Trend(
        first=statistics.median(values[:quarter]),
        last=statistics.median(values[-quarter:]),
        per_hour=3600 * slope,
        error_per_hour=3600 * error,
    )


def _correlation(residuals: Sequence[float], squares: float) -> float:
    """Return the residuals' correlation with their successors, where it widens the error."""
    if squares == 0:
        return 0.0
    products = sum(a * b for a, b in itertools.pairwise(residuals))
    return min(max(products / squares, 0.0), 0.95)
