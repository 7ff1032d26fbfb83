"""Distributions as tables of quantiles, in whole numbers.

Computed with `decimal`, whose exp, ln and sqrt are correctly rounded, so that every machine gets the same table; the
mathematics library of the system, which does not promise that, is not used.
"""

from __future__ import annotations

import functools
from array import array
from decimal import Decimal, localcontext

KNOTS = 4096  # intervals; as in draws.pxd
LAST = Decimal(1) - Decimal(1) / 65536  # where the upper end is cut off, and 1 - LAST the lower


def _places() -> list[Decimal]:
    inner = [Decimal(i) / KNOTS for i in range(1, KNOTS)]
    return [1 - LAST, *inner, LAST]


def _normal_upper(p: Decimal) -> Decimal:
    """z with P(Z <= z) = p, for p >= 1/2: Newton's method on the power series of the distribution function."""
    root_two_pi = Decimal("2.50662827463100050241576528481104525")
    z = Decimal(0)
    for _ in range(60):
        square = z * z
        term, total, n = z, z, 1
        while abs(term) > Decimal("1e-22"):
            term = term * square / (2 * n + 1)
            total += term
            n += 1
        density = (-square / 2).exp() / root_two_pi
        step = (p - Decimal("0.5") - density * total) / density
        step = min(step, Decimal(1))
        z += step
        if abs(step) < Decimal("1e-14"):
            break
    return z


@functools.cache
def _normal() -> tuple[Decimal, ...]:
    with localcontext() as context:
        context.prec = 28
        places = _places()
        upper = [_normal_upper(p) for p in places[KNOTS // 2 :]]
        return tuple([-z for z in reversed(upper[1:])] + upper)


def log_normal(median_us: int, p99_us: int) -> array[int]:
    """Quantiles in microseconds of the log-normal distribution with that median and 99th percentile."""
    with localcontext() as context:
        context.prec = 28
        z99 = _normal_upper(Decimal("0.99"))
        sigma = (Decimal(p99_us) / Decimal(median_us)).ln() / z99
        return array("q", [int(Decimal(median_us) * (sigma * z).exp()) for z in _normal()])


def exponential(mean_us: int) -> array[int]:
    """Quantiles in microseconds of the exponential distribution with that mean."""
    with localcontext() as context:
        context.prec = 28
        return array("q", [int(-Decimal(mean_us) * (1 - p).ln()) for p in _places()])


def uniform(mean_us: int) -> array[int]:
    """Quantiles of the uniform distribution from 0 to twice the mean."""
    return array("q", [2 * mean_us * i // KNOTS for i in range(KNOTS + 1)])


def fixed(value_us: int) -> array[int]:
    """The same value always."""
    return array("q", [value_us] * (KNOTS + 1))
