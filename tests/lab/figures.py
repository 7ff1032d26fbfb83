"""Medians, spreads, and the interval of a share."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959964


@dataclass(frozen=True)
class Spread:
    """Median, tenth and ninetieth percentile, least and most of some values, in their unit."""

    count: int
    median: float
    p10: float
    p90: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of values, or None when there are none. Percentiles are nearest-rank."""
    if not values:
        return None
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Spread(len(ordered), statistics.median(ordered), rank(0.1), rank(0.9), ordered[0], ordered[-1])


def interval(successes: int, tries: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not tries:
        return (0.0, 1.0)
    share = successes / tries
    scale = 1 + Z_95**2 / tries
    centre = (share + Z_95**2 / (2 * tries)) / scale
    half = Z_95 * math.sqrt(share * (1 - share) / tries + Z_95**2 / (4 * tries**2)) / scale
    return (max(0.0, centre - half), min(1.0, centre + half))
