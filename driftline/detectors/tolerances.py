"""What a budget's series get: the part of the budget of each scope, and the changes that are none.

A distribution, a mean and a rate tolerate their warning level, and at least so many errors of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from driftline.detectors.kernels.rate import rate_bound
from driftline.detectors.spec import Series

WHOLE_SHARE: Final = 0.5
"""Of the budget, for the scope of all rows where there are segments."""


def scope_shares(segments: Mapping[str, Sequence[str]], *, whole: bool = True) -> list[float]:
    """The part of the budget of each scope, in the order of `scope_names`; they sum to 1.

    Parameters
    ----------
    whole : whether the scope of all rows is watched.
    """
    first = (WHOLE_SHARE if segments else 1.0) if whole else 0.0
    shares = [first]
    for values in segments.values():
        shares += [(1.0 - first) / len(segments) / (len(values) + 1)] * (len(values) + 1)
    return shares


def mean_tolerance(warning: float, size: float, *, has_mean: bool, errors: float, gain: float = 1.0) -> float:
    """Standard deviations that are no change: the warning level, and so many errors of a reference of `size` values.

    A distribution without a mean is judged by PSI, whose value for a shift of d standard deviations is d^2.

    Parameters
    ----------
    gain : how much a shift of the values by 1 is of what is judged (`Autoregression.gain`).
    """
    return max(gain * (warning if has_mean else math.sqrt(warning)), errors / math.sqrt(max(size, 1.0)))


def chi_squared_bound(freedom: float, errors: float) -> float:
    """What a chi-squared number exceeds as rarely as a normal one so many standard deviations (Wilson and Hilferty 1931, PNAS 17)."""
    part = 2.0 / (9.0 * freedom)
    return float(freedom * (1.0 - part + errors * math.sqrt(part)) ** 3)


def rate_tolerance(series: Series, rate: float, size: int, errors: float) -> tuple[float, float, float]:
    """The rate to bet against, away from 0 and 1, and the changes relative to it that are none, up and down.

    The warning level, relative to at least the series' `rate_floor`; and the bounds of what the reference allows. Each side has its own:
    a reference without ones says nothing of how small their rate may be, and much of how large.
    """
    base = min(max(rate, 0.5 / size), 1.0 - 0.5 / size)
    hits = math.ceil(rate * size - 1e-9)
    allowed = series.warning * max(1.0, series.rate_floor / base)
    high = rate_bound(hits, size, 1, errors)
    low = rate_bound(math.floor(rate * size + 1e-9), size, -1, errors)
    up = max(allowed, high / base - 1.0, (1.0 - base) / (1.0 - high) - 1.0)
    down = max(allowed, base / low - 1.0, (1.0 - low) / (1.0 - base) - 1.0)
    return base, up, down
