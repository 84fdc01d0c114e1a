"""Whether values go by the hour: means of hours a period apart are alike beyond what surrounds them.

Of the sequence of hours (a day has 24 of them, a week 168), m_i is the mean of the values of one, and

    d_i = m_i - the mean of m over one period around it,        v = mean of d_i d_{i-period}

The centred mean of a whole period, its two ends by half, takes off the level and a trend, as in the classical decomposition of
a time series; what is left is alike a period apart only where the hour matters, and v estimates the variance of the hours'
means without the noise in them. Whether that is chance is asked of the sums of days, which hold dependence within a day: with S_d
and N_d the sum and number of a day's products, Student's t of the ratio v = sum S / sum N, whose error is what is left of S_d
without v N_d (days that are cut short are no noise; Cochran 1977, Sampling Techniques, 6.4), as a standard normal number z
(Wallace 1959, Annals of Mathematical Statistics 30, eq. 1.3),

    t^2 = (sum S)^2 f / (days sum (S_d - v N_d)^2),    z = (8 f + 1) / (8 f + 3) sqrt(f ln(1 + t^2 / f)),    f = days - 1
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.kernels.bank import Float64Array, Int64Array, UInt8Array
from driftline.detectors.kernels.jit import inlined, kernel, part, portable_log
from driftline.detectors.kernels.portable import uniform

DAY: Final = 24
DAYS_REMEMBERED: Final = 14
"""Of a live series; then all is halved."""
REFUSED_FROM: Final = 4.75
"""z of one check in a million; a live series is looked at once a day."""
DAYS_LEAST: Final = 3.0
_KNOWN_LEAST: Final = 0.2
"""Of a period's hours, around one that is looked at: a mean of fewer moves with its own hours. Five hours a day, seven on five days."""
_EVER: Final = 2**40
_NO_HOUR: Final = -1
_SMALL: Final = 1e-300


class Hours(NamedTuple):
    """What values change; axes M monitors, P hours of the period."""

    hour: Int64Array  # (M,) that values are counted in, -1 = none yet
    cell: Float64Array  # (M, 2) their sum and number
    closed: Int64Array  # (M,) hours before it, empty ones too
    means: Float64Array  # (M, P + 1) of the last ones, NaN = empty
    around: Float64Array  # (M, P) d of the last ones
    sums: Float64Array  # (M, 8) S and N today; sums over days of S, S^2, N, S N, N^2 and 1
    values: Float64Array  # (M, 2) today and on the last day before that had any
    refused: UInt8Array  # (M,)
    found: Float64Array  # (M, 2) v and the values of a day when that was last refused
    due: Int64Array  # (M,) number of the value from which on one is judged while it is


def new_hours(n: int, period: int = DAY) -> Hours:
    """Of monitors without values."""
    return Hours(
        hour=np.full(n, _NO_HOUR, np.int64),
        cell=np.zeros((n, 2)),
        closed=np.zeros(n, np.int64),
        means=np.full((n, period + 1), np.nan),
        around=np.full((n, period), np.nan),
        sums=np.zeros((n, 8)),
        values=np.zeros((n, 2)),
        refused=np.zeros(n, np.uint8),
        found=np.zeros((n, 2)),
        due=np.zeros(n, np.int64),
    )


@inlined
def _variance(m: int, st: Hours) -> float:
    """v, of days that have ended."""
    variance: float = st.sums[m, 2] / max(st.sums[m, 4], 1.0)
    return variance


@inlined
def _certainty(m: int, st: Hours) -> float:
    """z; negative where hours a period apart differ more than their surroundings."""
    total, days, v = st.sums[m, 2], st.sums[m, 7], _variance(m, st)
    if days < DAYS_LEAST:
        return 0.0
    freedom = days - 1.0
    left = st.sums[m, 3] - v * (2.0 * st.sums[m, 5] - v * st.sums[m, 6])
    t2 = total * total / days / max(left / freedom, _SMALL)
    z: float = (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0) * math.sqrt(freedom * portable_log(1.0 + t2 / freedom))
    return z if total > 0.0 else -z


@inlined
def _end_day(m: int, most: float, st: Hours) -> None:
    s, n = st.sums[m, 0], st.sums[m, 1]
    if n > 0.0:
        st.sums[m, 2] += s
        st.sums[m, 3] += s * s
        st.sums[m, 4] += n
        st.sums[m, 5] += s * n
        st.sums[m, 6] += n * n
        st.sums[m, 7] += 1.0
        if st.sums[m, 7] > most:
            for k in range(2, 8):
                st.sums[m, k] *= 0.5
    st.sums[m, 0], st.sums[m, 1] = 0.0, 0.0
    # A weekend without values must not make a day look empty.
    if st.values[m, 0] > 0.0:
        st.values[m, 1], st.values[m, 0] = st.values[m, 0], 0.0


@inlined
def _end_hour(m: int, mean: float, most: float, st: Hours) -> bool:
    """Put an hour behind the others; whether a day ended with it."""
    period = st.around.shape[1]
    i = st.closed[m]
    st.means[m, i % (period + 1)] = mean
    st.closed[m] = i + 1
    if i < period:
        return False
    total, weight = 0.0, 0.0
    for k in range(period + 1):
        x = st.means[m, k]
        if x == x:
            w = 0.5 if k == i % (period + 1) or k == (i + 1) % (period + 1) else 1.0
            total += w * x
            weight += w
    d = st.means[m, (i - period // 2) % (period + 1)] - total / weight if weight >= _KNOWN_LEAST * period else np.nan
    before = st.around[m, i % period]
    st.around[m, i % period] = d
    if d == d and before == before:
        st.sums[m, 0] += d * before
        st.sums[m, 1] += 1.0
    if (i - period) % DAY != DAY - 1:
        return False
    _end_day(m, most, st)
    return True


@inlined
def _decide(m: int, allowed: float, st: Hours) -> None:
    v = _variance(m, st)
    if not st.refused[m]:
        if v > allowed and _certainty(m, st) > REFUSED_FROM:
            st.refused[m], st.found[m, 0], st.found[m, 1] = 1, v, st.values[m, 1]
    elif st.sums[m, 7] >= 0.5 * DAYS_REMEMBERED and v < 0.5 * allowed:
        st.refused[m] = 0


@part
def begin_hour(m: int, hour: int, allowed: float, st: Hours) -> None:
    """Close the hour before and those without values since, for a value of a later hour than any other.

    Parameters
    ----------
    hour : counted from any beginning.
    allowed : variance of the hours' means that is no effect.
    """
    if st.hour[m] != _NO_HOUR:
        st.values[m, 0] += st.cell[m, 1]
        ended = _end_hour(m, st.cell[m, 0] / st.cell[m, 1], DAYS_REMEMBERED, st)
        # After two periods of empty hours nothing of what was is left.
        for _ in range(min(hour - st.hour[m] - 1, 2 * st.around.shape[1] + 2)):
            ended |= _end_hour(m, np.nan, DAYS_REMEMBERED, st)
        if ended:
            _decide(m, allowed, st)
    st.hour[m] = hour
    st.cell[m, 0], st.cell[m, 1] = 0.0, 0.0


@inlined
def count_value(m: int, x: float, hour: int, st: Hours) -> None:
    """One value of one monitor, whose hour has begun; one of an hour before, a late row's, is not looked at."""
    if hour == st.hour[m]:
        st.cell[m, 0] += x
        st.cell[m, 1] += 1.0


@part
def value_due(m: int, number: int, key: np.uint64, st: Hours) -> bool:
    """Whether a value is judged while the hour is refused: about one a day is, the next one drawn from its own key.

    Among values, not among hours: quiet hours would have more than their share of what is judged, and the first one after a
    closed night nearly all of it.
    """
    if number < st.due[m]:
        return False
    st.due[m] = number + max(int((0.5 + uniform(key)) * st.values[m, 1]), 1)
    return True


@kernel
def add_hours(values: Float64Array, m: int, st: Hours) -> None:
    """Means of hours one after another, NaN = empty; nothing is forgotten, and nothing decided."""
    for i in range(values.shape[0]):
        _end_hour(m, values[i], _EVER, st)


@kernel
def hour_effect(m: int, st: Hours) -> tuple[float, float]:
    """V and z of a monitor."""
    return _variance(m, st), _certainty(m, st)


def unsound_hours(st: Hours) -> bool:
    """Whether no values lead to this."""
    floats = all(bool(np.isfinite(array).all()) for array in (st.cell, st.sums, st.values, st.found))
    rings = not (np.isinf(st.means).any() or np.isinf(st.around).any())
    counted = bool(((st.hour >= 0) == (st.cell[:, 1] > 0)).all() and (st.sums[:, [1, 3, 4, 6, 7]] >= 0).all() and (st.values >= 0).all())
    return not (floats and rings and counted and bool((st.closed >= 0).all() and (st.refused <= 1).all() and (st.due >= 0).all()))
