"""Chances under no drift: the tails of the laws that window statistics follow.

Not SciPy's: importing it takes a second at each start, and last bits change with its version. These agree with it to ten
digits; who publishes them rounds, so that a C library that differs in the last bit gives the same event.
"""

from __future__ import annotations

import math
from typing import Final

from driftline.detectors.kernels.jit import kernel

KOLMOGOROV_MEAN: Final = math.sqrt(0.5 * math.pi) * math.log(2.0)
KOLMOGOROV_SQUARE: Final = math.pi**2 / 12.0
"""Mean, and mean square, of the largest gap of a Brownian bridge."""
CRAMER_MEAN: Final = 1.0 / 6.0
"""Mean of the integrated square of a Brownian bridge."""

_SMALL_GAP: Final = 1.0
"""Below it the series in exp(-1 / x^2) converges faster, above it that in exp(-x^2)."""
_NODES: Final = 64
_ARCHES: Final = 12
_CRAMER_LEAST: Final = 0.02
"""The law has less than .004 below this, and the integral would need more arches."""
_FRACTION_TERMS: Final = 500
_FRACTION_ERROR: Final = 1e-15
_FAR: Final = 1e-18
"""Shares of a sum that no longer show."""


@kernel
def kolmogorov_tail(x: float) -> float:
    """P(the largest absolute value of a Brownian bridge > x) (Kolmogorov 1933; Feller 1948, eq. 1.4)."""
    if x <= 0.0:
        return 1.0
    if x < _SMALL_GAP:
        below = 0.0
        for k in range(1, 10, 2):
            below += math.exp(-k * k * math.pi * math.pi / (8.0 * x * x))
        return 1.0 - math.sqrt(2.0 * math.pi) / x * below
    above = 0.0
    for k in range(1, 8):
        term = math.exp(-2.0 * k * k * x * x)
        above += term if k % 2 else -term
    return 2.0 * above


@kernel
def ks_tail(gap: float, n_eff: float) -> float:
    """P(D > gap) for `n_eff` = n m / (n + m); with the correction of Stephens (1970, JRSS B 32) good from `n_eff` 4 on."""
    root = math.sqrt(n_eff)
    return kolmogorov_tail((root + 0.12 + 0.11 / root) * gap)


@kernel
def cramer_tail(x: float) -> float:
    """P(the integrated square of a Brownian bridge > x).

    Smirnov's formula (1936; Anderson and Darling 1952, Ann. Math. Statist. 23, eq. 4.35) with y = u^2:
    1/pi sum_k (-1)^(k+1) int_((2k-1) pi)^(2k pi) 2 sqrt(1 / (u |sin u|)) exp(-x u^2 / 2) du; each arch by the midpoint rule in
    the angle that takes the roots at its ends away.
    """
    if x < _CRAMER_LEAST:
        return 1.0
    total = 0.0
    first = 0.0
    for arch in range(1, _ARCHES + 1):
        start = (2 * arch - 1) * math.pi
        height = math.exp(-0.5 * x * start * start)
        first = max(first, height)
        if height < _FAR * first:
            break
        part = 0.0
        for node in range(_NODES):
            angle = math.pi * (node + 0.5) / _NODES
            inside = 0.5 * math.pi * (1.0 - math.cos(angle))
            u = start + inside
            part += math.sin(angle) / math.sqrt(u * math.sin(inside)) * math.exp(-0.5 * x * u * u)
        total += part if arch % 2 else -part
    return min(total * math.pi / _NODES, 1.0)


@kernel
def lognormal_tail(x: float, mean: float, square: float) -> float:
    """P(> x) of the lognormal law with a mean and a mean square."""
    if not (x > 0.0 and square > mean * mean > 0.0):
        return 1.0
    variance = math.log(square / (mean * mean))
    centre = math.log(mean) - 0.5 * variance
    return 0.5 * math.erfc((math.log(x) - centre) / math.sqrt(2.0 * variance))


@kernel
def binomial_two_sided(hits: float, trials: float, chance: float) -> float:
    """Twice the smaller tail of a binomial law at `hits`, at most 1; exact where both are whole numbers."""
    k, n = math.floor(hits + 0.5), math.floor(trials + 0.5)
    if n < 1 or not 0.0 < chance < 1.0:
        return 1.0
    return min(1.0, 2.0 * min(_binomial_upper(k, n, chance), _binomial_upper(n - k, n, 1.0 - chance)))


@kernel
def _binomial_upper(k: int, n: int, chance: float) -> float:
    """P(at least k of n), by the side on which the terms fall."""
    if k <= 0:
        return 1.0
    if k < n * chance:
        return 1.0 - _binomial_far(n - k + 1, n, 1.0 - chance)
    return _binomial_far(k, n, chance)


@kernel
def _binomial_far(k: int, n: int, chance: float) -> float:
    term = math.exp(
        math.lgamma(n + 1.0) - math.lgamma(k + 1.0) - math.lgamma(n - k + 1.0) + k * math.log(chance) + (n - k) * math.log1p(-chance)
    )
    total = 0.0
    odds = chance / (1.0 - chance)
    while k <= n and term > _FAR * total:
        total += term
        term *= odds * (n - k) / (k + 1.0)
        k += 1
    return total


@kernel
def chi_squared_tail(x: float, freedom: float) -> float:
    """P(chi-squared > x) for any degrees; 1 where nothing is free.

    Q(a, x) below the mean by its series, above it by its continued fraction (DLMF 8.11.4 and 8.9.2, modified Lentz).
    """
    if freedom <= 0.0 or not x > 0.0:
        return 1.0
    a = 0.5 * freedom
    x = 0.5 * x
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:
        term = 1.0 / a
        total = term
        k = a
        while term > _FAR * total:
            k += 1.0
            term *= x / k
            total += term
        return max(1.0 - front * total, 0.0)
    b = x + 1.0 - a
    c = math.inf
    d = 1.0 / b
    fraction = d
    for k in range(1, _FRACTION_TERMS):
        step = -k * (k - a)
        b += 2.0
        d = 1.0 / (step * d + b)
        c = b + step / c
        fraction *= c * d
        if abs(c * d - 1.0) < _FRACTION_ERROR:
            break
    return front * fraction


@kernel
def combined(first: float, second: float) -> float:
    """The chance of two independent ones together (Fisher 1925): -2 ln of their product is chi-squared with 4 degrees."""
    product = first * second
    return product * (1.0 - math.log(product)) if product > 0.0 else 0.0
