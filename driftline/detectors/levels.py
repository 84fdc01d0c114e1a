"""The level of a series over a window against its baseline: mean, PSI or rate, how large, and whether in its band.

Sampling noise is taken off before an effect is judged: the square of an estimated mean is too large by its variance,
PSI by its null mean. So a short window does not make a small shift loud.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from driftline.detectors.kernels.jit import compiled
from driftline.detectors.spec import N_CODES, Float64, Int64
from driftline.detectors.tables import GROUPS_MAX, NO_GROUP, SKIP, Tables

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


@compiled
def mean_level(counts: Int64, score: Float64) -> tuple[int, float]:
    """Values that have a score, and their mean."""
    n = 0
    total = 0.0
    for code in range(N_CODES):
        if counts[code] > 0 and not math.isnan(score[code]):
            n += counts[code]
            total += counts[code] * score[code]
    return n, (total / n if n > 0 else 0.0)


@compiled
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


@compiled
def psi_level(t: Tables, s: int, c: int, counts: Int64) -> tuple[int, float]:
    """Values in a group, and their PSI against the reference, with half a count added to every group of both."""
    merged = np.zeros(GROUPS_MAX, np.int64)
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


@compiled
def weigh(t: Tables, s: int, q: int, kind: int, counts: Int64, runs: int) -> tuple[int, float, float, float, float]:
    """Values, level, baseline's level, effect and effect less its noise; effects of means and rates keep their sign."""
    if kind == RATE_EFFECT:
        n, hits = rate_level(t, q, counts, runs)
        base = t.rate[s, q]
        value = hits / n if n > 0 else base
        floor = max(base, 1.0 / t.size[s, q])
        effect = (value - base) / floor
        noise = floor * (1.0 - min(floor, 1.0)) * (1.0 / max(n, 1) + 1.0 / t.size[s, q]) / (floor * floor)
        certain = _less_noise(effect, noise)
        if max(float(hits), n * base) < EVENTS_LEAST:
            certain = 0.0
        return n, value, base, effect, certain
    c = t.series_column[q]
    if kind == MEAN_EFFECT:
        n, mean = mean_level(counts, t.score[s, c])
        return n, mean, 0.0, mean, _less_noise(mean, 1.0 / max(n, 1) + 1.0 / t.size[s, q])
    n, psi = psi_level(t, s, c, counts)
    null = t.freedom[s, c] * (1.0 / max(n, 1) + 1.0 / t.psi_size[s, c])
    return n, psi, null, psi, max(psi - null, 0.0)


@compiled
def _less_noise(effect: float, noise: float) -> float:
    certain = math.sqrt(max(effect * effect - noise, 0.0))
    return certain if effect >= 0.0 else -certain


@compiled
def severity_of(t: Tables, q: int, kind: int, certain: float) -> int:
    """0 info, 1 warning, 2 critical; a change to the side that is not watched is never more than info."""
    if kind != PSI_EFFECT and t.direction[q] * certain < 0.0:
        return 0
    size = abs(certain)
    if size >= t.bounds[q, 1] and size > 0.0:
        return 2
    return 1 if size >= t.bounds[q, 0] and size > 0.0 else 0


@compiled
def window_severity(t: Tables, s: int, q: int, counts: Int64, runs: int) -> tuple[int, int]:
    """The severity of a window's level, and the kind of effect it comes from."""
    if not t.is_value[q]:
        return severity_of(t, q, RATE_EFFECT, weigh(t, s, q, RATE_EFFECT, counts, runs)[4]), RATE_EFFECT
    severity, kind = severity_of(t, q, PSI_EFFECT, weigh(t, s, q, PSI_EFFECT, counts, runs)[4]), PSI_EFFECT
    if t.has_mean[q]:
        by_mean = severity_of(t, q, MEAN_EFFECT, weigh(t, s, q, MEAN_EFFECT, counts, runs)[4])
        if t.direction[q] != 0 and by_mean < severity:
            # PSI has no side; a series that is watched on one side is as loud as its mean.
            severity = by_mean
        if by_mean >= severity:
            severity, kind = by_mean, MEAN_EFFECT
    return severity, kind


@compiled
def band(t: Tables, s: int, q: int, lane: int, kind: int, n: int) -> float:
    """The greatest distance from the baseline's level at which a series counts as back."""
    allowed = 0.0
    c = t.series_column[q]
    if n <= 0:
        return allowed
    if kind == PSI_EFFECT:
        noise = 1.0 / n + 1.0 / t.psi_size[s, c]
        freedom = t.freedom[s, c]
        allowed = max(BAND_SHARE * t.bounds[q, 0], noise * (freedom + BAND_ERRORS * math.sqrt(2.0 * freedom)))
        if t.psi_detector[lane] >= 0:
            allowed = PSI_BAND * t.psi_limit[s, lane] * noise
    elif kind == MEAN_EFFECT:
        allowed = max(BAND_SHARE * t.bounds[q, 0], BAND_ERRORS * math.sqrt(1.0 / n + 1.0 / t.size[s, q]))
    else:
        floor = min(max(t.rate[s, q], 1.0 / t.size[s, q]), 1.0)
        noise = floor * (1.0 - floor) * (1.0 / n + 1.0 / t.size[s, q])
        allowed = max(BAND_SHARE * t.bounds[q, 0] * floor, BAND_ERRORS * math.sqrt(noise))
    return allowed


@compiled
def outside(t: Tables, s: int, q: int, lane: int, kind: int, counts: Int64, runs: int) -> bool:
    """Whether one kind of level is out of its band, on a side that is watched."""
    n, value, base, _, _ = weigh(t, s, q, kind, counts, runs)
    limit = band(t, s, q, lane, kind, n)
    if kind == PSI_EFFECT:
        return bool(n < t.psi_least[s, lane]) or bool(value >= limit)
    if kind == MEAN_EFFECT and n < LEVEL_LEAST:
        return True
    gap = value - base
    if t.direction[q] != 0:
        gap *= t.direction[q]
        return bool(gap > limit)
    return abs(gap) > limit


@compiled
def level_in_band(t: Tables, s: int, q: int, counts: Int64, runs: int) -> bool:
    """Whether every level of a series is back."""
    lane = t.series_lane[q]
    if not t.is_value[q]:
        return not outside(t, s, q, lane, RATE_EFFECT, counts, runs)
    if t.has_mean[q] and outside(t, s, q, lane, MEAN_EFFECT, counts, runs):
        return False
    if t.has_mean[q] and (t.psi_detector[lane] < 0 or t.direction[q] != 0):
        return True
    return not outside(t, s, q, lane, PSI_EFFECT, counts, runs)
