"""Thresholds from a run length: the mean number of events between false alarms that a user asks for.

All formulas are for independent values. Results are rounded to nine significant digits, so that a C library
that differs in the last bit does not give another threshold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

_SQRT_2PI = math.sqrt(2.0 * math.pi)

_OVERSHOOT = 1.166
"""Siegmund's correction for the jump over a boundary, 2 x .583 (Siegmund 1985, Sequential Analysis, X.2)."""


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


def _solve(rises: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a rising function reaches `target`; `high` is doubled until it does."""
    while rises(high) < target:
        high *= 2.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if rises(middle) < target:
            low = middle
        else:
            high = middle
    return high


def _checked(run_length: float) -> float:
    if not (math.isfinite(run_length) and run_length >= 10):
        raise ValueError(f"expected a run length of at least 10 events, got {run_length}")
    return float(run_length)


def page_hinkley_run_length(threshold: float, delta: float = 0.125, *, sides: int = 2) -> float:
    """Mean events to a false alarm of Page-Hinkley with alpha = 1 on standardised values.

    References
    ----------
    Siegmund (1985), Sequential Analysis, eq. 2.56 with the overshoot correction: one side of a CUSUM with drift
    -delta has run length (e^x - x - 1) / (2 delta^2), x = 2 delta (threshold + 1.166).
    """
    x = 2.0 * delta * (threshold + _OVERSHOOT)
    if x > 700.0:
        return math.inf
    return (math.expm1(x) - x) / (2.0 * delta * delta * sides)


def page_hinkley_threshold(run_length: float, delta: float = 0.125, *, sides: int = 2) -> float:
    """Threshold of Page-Hinkley (alpha = 1) whose run length on standardised values is `run_length`.

    Parameters
    ----------
    delta : drift allowed for, in standard deviations, > 0
    sides : 2 for mode "both", 1 for "up" or "down"
    """
    if not delta > 0:
        raise ValueError(f"expected delta > 0, got {delta}")
    wanted = _checked(run_length)
    return _rounded(_solve(lambda h: page_hinkley_run_length(h, delta, sides=sides), wanted, 0.0, 10.0))


MEAN_ERRORS = 2.0
"""Standard errors that a reference's mean may be off: a chart around it keeps its run length then."""


def cusum_threshold(run_length: float, allowance: float, *, sides: int = 2, reference_n: float = math.inf) -> float:
    """Threshold of a CUSUM on standardised values whose run length is `run_length`: Page-Hinkley's with a known mean.

    Parameters
    ----------
    reference_n : values that the mean was estimated from; it may be `MEAN_ERRORS` off, and takes that from the allowance.

    Raises
    ------
    ValueError : an allowance that the error of the mean uses up
    """
    left = allowance - MEAN_ERRORS / math.sqrt(reference_n)
    if not left > 0.0:
        least = (MEAN_ERRORS / allowance) ** 2
        raise ValueError(f"expected more than {least:.0f} reference values for an allowance of {allowance:g}, got {reference_n:g}")
    return page_hinkley_threshold(run_length, left, sides=sides)


def ewma_run_length(threshold: float, weight: float, *, sides: int = 2) -> float:
    """Mean values to a false alarm of an EWMA with a constant limit, in standard deviations of the weighted mean.

    It is an Ornstein-Uhlenbeck process of rate `weight` seen at whole times, whose level is crossed at the rate
    weight L phi(L) nu(L sqrt(2 weight)) a side (Siegmund and Yakir 2007). Beside the exact integral equation (Crowder 1987)
    8 % short to 4 % long, for weights of .005 to 1 and run lengths of at least 10 / weight.
    """
    density = math.exp(-0.5 * threshold * threshold) / _SQRT_2PI
    crossings = weight * threshold * density * overshoot_factor(threshold * math.sqrt(2.0 * weight)) * sides
    return 1.0 / crossings if crossings > 0.0 else math.inf


def ewma_threshold(run_length: float, weight: float, *, sides: int = 2, reference_n: float = math.inf) -> float:
    """Threshold of an EWMA on standardised values whose run length is `run_length`.

    Parameters
    ----------
    weight : of the newest value, above 0 and at most 1
    reference_n : values that the mean was estimated from; it may be `MEAN_ERRORS` off, which the limit is wider by.
    """
    if not 0.0 < weight <= 1.0:
        raise ValueError(f"expected a weight above 0 and at most 1, got {weight}")
    # Below 1 the crossing rate falls with the level, a run length no longer rises.
    limit = _solve(lambda h: ewma_run_length(h, weight, sides=sides), _checked(run_length), 1.0, 10.0)
    return _rounded(limit + MEAN_ERRORS / math.sqrt(reference_n) / math.sqrt(weight / (2.0 - weight)))


def chi2_density(x: float, freedom: int) -> float:
    """Density of the chi-squared law with `freedom` degrees."""
    half = 0.5 * freedom
    return math.exp((half - 1.0) * math.log(x) - 0.5 * x - half * math.log(2.0) - math.lgamma(half))


def chi2_tail(x: float, freedom: int) -> float:
    """P(chi-squared > x), by the finite series for whole degrees (Abramowitz and Stegun 26.4.4 and 26.4.5)."""
    half = 0.5 * x
    if freedom % 2:
        total = math.erfc(math.sqrt(half))
        powers = [k + 0.5 for k in range(freedom // 2)]
    else:
        total = 0.0
        powers = [float(k) for k in range(freedom // 2)]
    return total + sum(math.exp(p * math.log(half) - half - math.lgamma(p + 1.0)) for p in powers)


def overshoot_factor(x: float) -> float:
    """nu(x): how much less often a discrete path crosses a level than its continuous limit (Siegmund and Yakir 2007)."""
    if x < 1e-8:
        return 1.0
    density = math.exp(-0.125 * x * x) / _SQRT_2PI
    below = 0.5 * math.erfc(-0.5 * x / math.sqrt(2.0))
    return (2.0 / x) * (below - 0.5) / (0.5 * x * below + density)


def psi_run_length(level: float, window: int, bins: int, *, conservative: bool = False) -> float:
    """Mean events until the PSI of a sliding window passes a level, given on the chi-squared scale PSI / (1/w + 1/m).

    The root of the statistic is locally the radius of a (bins - 1)-dimensional Ornstein-Uhlenbeck process of rate
    1/window. `conservative` takes the tail probability for the density: a shorter run length for the same level.
    """
    freedom = bins - 1
    factor = overshoot_factor(math.sqrt(2.0 * level / window))
    if conservative:
        crossings = level * chi2_tail(level, freedom)
    else:
        crossings = 2.0 * chi2_density(level, freedom) * (level - freedom + 1.0)
    return window / (crossings * factor) if crossings * factor > 0.0 else math.inf


def psi_threshold(run_length: float, window: int, bins: int, reference_n: float = math.inf) -> float:
    """PSI at which a full sliding window alarms once in `run_length` events on average, without drift.

    Measured against simulation: run lengths within 25 % of what was asked for windows of at least 50 events a
    bin. Smaller windows take the conservative variant, 1.1 to 1.9 times longer. The reference's size enters as
    1/window + 1/reference_n; below 5 windows of reference, single references differ by a factor of 3.

    Parameters
    ----------
    window : events in the window
    bins : groups of the reference, >= 2
    reference_n : events behind the reference's shares; infinite = shares are known
    """
    wanted = _checked(run_length)
    if bins < 2 or window < 2 or not reference_n > 0:
        raise ValueError(f"expected bins >= 2, window >= 2 and reference_n > 0, got {bins}, {window} and {reference_n}")
    wanted = max(wanted, 5.0 * window)
    conservative = window < 50 * bins
    # from the larger of mode and mean upwards the run length only rises
    level = _solve(lambda u: psi_run_length(u, window, bins, conservative=conservative), wanted, float(bins), 4.0 * bins + 20.0)
    return _rounded(level * (1.0 / window + 1.0 / reference_n))


_FOCUS_CROSSINGS = 0.8366
"""The integral of x nu(x)^2 over x > 0 for two sides and unit variance, nu the overshoot factor (own quadrature)."""


def focus_run_length(threshold: float) -> float:
    """Mean values until the log likelihood ratio over all starts of a change of the mean passes a threshold.

    Siegmund and Venkatraman (1995), Annals of Statistics 23, theorem 1, for two sides and independent standard normal
    values; the mean before the change may be known or not. Simulated run lengths are 8 to 25 % longer.
    """
    root = math.sqrt(2.0 * threshold)
    return _SQRT_2PI * math.exp(threshold) / (root * _FOCUS_CROSSINGS)


def focus_threshold(run_length: float) -> float:
    """Threshold of `FOCuS` that standard normal values pass once in `run_length` on average."""
    return _rounded(_solve(focus_run_length, _checked(run_length), 0.5, 20.0))


_ADWIN_MEASURED: tuple[tuple[float, float], ...] = (
    (1.0, 1.005e3),
    (0.3, 5.36e3),
    (0.1, 2.164e4),
    (0.03, 9.479e4),
    (0.01, 3.799e5),
    (0.003, 1.5e6),
    (0.001, 5.839e6),
)
"""delta and mean values between alarms of `AdwinBank` (clock 32) on independent N(0, 1).

Own simulation, 20 series in batches of 20,000, generator `default_rng([1, 649])`, 1e7 to 8e8 values a line and 9953,
3731, 2773, 2110, 1053, 400 and 137 alarms; the standard error of a line is 1 in the root of its alarms.
"""

_ADWIN_SLOPE = 1.15
"""d ln(run length) / d ln(1 / delta) beyond the table; measured 1.14 to 1.26 between its last lines. The low end keeps
the promise where no simulation reaches."""


def adwin_delta(run_length: float) -> float:
    """The delta of ADWIN (clock 32) that alarms once in `run_length` values on average, on standardised near-normal values.

    delta is no rate, and the run length depends on the law. Measured at delta .1 and .01: normal 2.2e4 and 3.8e5,
    Bernoulli(.1) 1.3e4 and 1.4e5; at delta .001: normal 5.8e6, Student's t with 3 degrees 5.2e4, lognormal 4.0e4.
    So heavy-tailed values need ranks or clipped scores first.
    """
    wanted = _checked(run_length)
    points = [(math.log(length), math.log(delta)) for delta, length in _ADWIN_MEASURED]
    x = math.log(wanted)
    if x <= points[0][0]:
        return 1.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x1:
            return _rounded(math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0)))
    return _rounded(math.exp(points[-1][1] - (x - points[-1][0]) / _ADWIN_SLOPE))
