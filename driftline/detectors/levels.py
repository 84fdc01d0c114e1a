"""The level of a series over a window against its baseline: mean, PSI or rate, how large, and whether in its band.

Sampling noise is taken off before an effect is judged: the square of an estimated mean is too large by its variance,
PSI by its null mean. So a short window does not make a small shift loud.
"""

from __future__ import annotations

import math
from typing import Final

from driftline.detectors.kernels.jit import part
from driftline.detectors.layout import SKIP
from driftline.detectors.spec import N_CODES, Float64, Int32, Int64
from driftline.detectors.tables import NO_GROUP, Tables

PSI_EFFECT: Final = 0
MEAN_EFFECT: Final = 1
RATE_EFFECT: Final = 2

EVENTS_LEAST: Final = 20
"""Hits (had or expected) that a rate's change needs to be more than info (SEMANTICS 6.1)."""

BAND_ERRORS: Final = 4.0
"""Half width of a band in standard errors: a level without change is inside 99.99 % of the time."""
BAND_SHARE: Final = 0.5
"""Hysteresis: a level is back when it is below half of what makes a warning."""
PSI_BAND: Final = 0.75
"""Hysteresis of PSI: below this share of its alarm threshold. Not half of `warning`: a PSI that stays between the two
would recover and alarm again every window."""
LEVEL_LEAST: Final = 30
"""Values without which a mean is no level."""


@part
def mean_level(counts: Int64, score: Float64) -> tuple[int, float]:
    """Values that have a score, and their mean."""
    n = 0
    total = 0.0
    for code in range(N_CODES):
        if counts[code] > 0 and not math.isnan(score[code]):
            n += counts[code]
            total += counts[code] * score[code]
    return n, (total / n if n > 0 else 0.0)


@part
def rate_level(t: Tables, q: int, counts: Int64, runs: int) -> tuple[int, int]:
    """Values and hits of a 0/1 series; `runs` = rows inside a run of equal values."""
    n = 0
    hits = 0
    for code in range(N_CODES):
        if t.flags[q, code] != SKIP:
            n += counts[code]
            if t.flags[q, code] == 1:
                hits += counts[code]
    return n, (min(runs, n) if t.is_run[q] else hits)


@part
def psi_level(t: Tables, s: int, c: int, counts: Int64, merged: Int64) -> tuple[int, float]:
    """Values in a group, and their PSI against the reference, with half a count added to every group of both.

    `merged` is scratch, (GROUPS_MAX,).
    """
    merged[:] = 0
    n = 0
    for code in range(N_CODES):
        group = t.group[s, c, code]
        if group != NO_GROUP:
            merged[group] += counts[code]
            n += counts[code]
    total = 0.0
    whole = n + 0.5 * t.groups[s, c]
    for g in range(t.groups[s, c]):
        gap = t.log_half[merged[g]] - t.log_half[n] - t.log_share[s, c, g]
        # ln of the true denominator differs from ln(n + 1/2) by one constant, which the shares' sums cancel.
        total += ((merged[g] + 0.5) / whole - t.share[s, c, g]) * gap
    return n, total


# Columns of a measured level; its rows are the kinds of effect.
M_N, M_VALUE, M_BASE, M_EFFECT, M_CERTAIN, M_BAND = range(6)
MEASURE_FIELDS: Final = 6


@part
def measure(t: Tables, s: int, q: int, counts: Int64, runs: int, m: Float64, merged: Int64) -> None:
    """Fill the levels that a series has: values, level, baseline's level, effect, effect less its noise, and band.

    Effects of means and rates keep their sign. One function for all kinds, called in few places: compiling a kernel
    costs by what is inlined into it.

    Parameters
    ----------
    runs : rows inside a run of equal values.
    m : shape (3, MEASURE_FIELDS); rows of other kinds are left alone.
    merged : scratch, (GROUPS_MAX,).
    """
    c = t.series_column[q]
    if not t.is_value[q]:
        n, hits = rate_level(t, q, counts, runs)
        base = t.rate[s, q]
        value = hits / n if n > 0 else base
        likely = min(max(base, 1.0 / t.size[s, q]), 1.0)
        noise = likely * (1.0 - likely) * (1.0 / max(n, 1) + 1.0 / t.size[s, q])
        floor = max(likely, t.rate_floor[q])
        effect = (value - base) / floor
        heard = max(float(hits), n * base) >= EVENTS_LEAST
        certain = _less_noise(effect, noise / (floor * floor)) if heard else 0.0
        band = max(BAND_SHARE * t.bounds[q, 0] * floor, BAND_ERRORS * math.sqrt(noise))
        _put(m[RATE_EFFECT], n, value, base, effect, certain, band)
        return
    if t.has_mean[q]:
        n, mean = mean_level(counts, t.score[s, c])
        noise = 1.0 / max(n, 1) + 1.0 / t.compared[s, q]
        band = max(BAND_SHARE * t.bounds[q, 0], BAND_ERRORS * math.sqrt(noise))
        _put(m[MEAN_EFFECT], n, mean, 0.0, mean, _less_noise(mean, noise), band)
    n, psi = psi_level(t, s, c, counts, merged)
    noise = 1.0 / max(n, 1) + 1.0 / t.psi_size[s, c]
    freedom = t.freedom[s, c]
    lane = t.series_lane[q]
    band = max(BAND_SHARE * t.bounds[q, 0], noise * (freedom + BAND_ERRORS * math.sqrt(2.0 * freedom)))
    if t.psi_detector[lane] >= 0:
        band = PSI_BAND * t.psi_limit[s, lane] * noise
    _put(m[PSI_EFFECT], n, psi, freedom * noise, psi, max(psi - freedom * noise, 0.0), band)


@part
def measure_window(t: Tables, s: int, q: int, held: Int32, runs: Int32, counts: Int64, m: Float64, merged: Int64) -> None:
    """`measure` the whole window of a series, and leave its values by code in `counts`.

    Parameters
    ----------
    held : values by code of each scope and lane, (S, L, N_CODES); `runs` = of them inside a run of equal values, (S, L).
    counts : (N_CODES,).
    """
    lane = t.series_lane[q]
    for code in range(N_CODES):
        counts[code] = held[s, lane, code]
    measure(t, s, q, counts, 0 + int(runs[s, lane]), m, merged)


@part
def _put(m: Float64, n: int, value: float, base: float, effect: float, certain: float, band: float) -> None:
    m[M_N] = n
    m[M_VALUE] = value
    m[M_BASE] = base
    m[M_EFFECT] = effect
    m[M_CERTAIN] = certain
    m[M_BAND] = band


@part
def _less_noise(effect: float, noise: float) -> float:
    certain = math.sqrt(max(effect * effect - noise, 0.0))
    return certain if effect >= 0.0 else -certain


@part
def severity_of(t: Tables, q: int, kind: int, certain: float) -> int:
    """0 info, 1 warning, 2 critical; a change to the side that is not watched is never more than info."""
    size = abs(certain)
    if size == 0.0 or (kind != PSI_EFFECT and t.direction[q] * certain < 0.0):
        return 0
    return int(size >= t.bounds[q, 0]) + int(size >= t.bounds[q, 1])


@part
def direction_of(t: Tables, q: int, m: Float64, kind: int) -> int:
    """Against the baseline, as the effect is: a detector that saw a step up within a level that is down says neither."""
    gap = m[kind, M_VALUE] - m[kind, M_BASE]
    if kind == PSI_EFFECT:
        gap = m[MEAN_EFFECT, M_VALUE] if t.has_mean[q] else 0.0
    return int(gap > 0.0) - int(gap < 0.0)


@part
def window_severity(t: Tables, q: int, m: Float64) -> tuple[int, int]:
    """The severity of a window's level, and the kind of effect it comes from."""
    if not t.is_value[q]:
        return severity_of(t, q, RATE_EFFECT, m[RATE_EFFECT, M_CERTAIN]), RATE_EFFECT
    by_psi = severity_of(t, q, PSI_EFFECT, m[PSI_EFFECT, M_CERTAIN])
    if not t.has_mean[q]:
        return by_psi, PSI_EFFECT
    by_mean = severity_of(t, q, MEAN_EFFECT, m[MEAN_EFFECT, M_CERTAIN])
    # PSI has no side; a series that is watched on one side is as loud as its mean.
    if t.direction[q] != 0 or by_mean >= by_psi:
        return by_mean, MEAN_EFFECT
    return by_psi, PSI_EFFECT


@part
def level_in_band(t: Tables, s: int, q: int, m: Float64) -> bool:
    """Whether every level of a series is back, on the side that is watched."""
    if not t.is_value[q]:
        return not _far(m[RATE_EFFECT], t.direction[q])
    lane = t.series_lane[q]
    if t.has_mean[q]:
        if m[MEAN_EFFECT, M_N] < LEVEL_LEAST or _far(m[MEAN_EFFECT], t.direction[q]):
            return False
        if t.psi_detector[lane] < 0 or t.direction[q] != 0:
            return True
    return bool(m[PSI_EFFECT, M_N] >= t.psi_least[s, lane] and m[PSI_EFFECT, M_VALUE] < m[PSI_EFFECT, M_BAND])


@part
def _far(level: Float64, direction: int) -> bool:
    gap = level[M_VALUE] - level[M_BASE]
    if direction != 0:
        return bool(gap * direction > level[M_BAND])
    return bool(abs(gap) > level[M_BAND])
