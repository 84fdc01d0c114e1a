"""Which series of a reference go by the hour of the day or of the week, and what each hour has.

Asked of the means over hours of the values' scores, and of their squares for the spread (`kernels.season`): the hours' means
must differ by a tenth of a standard deviation or more, what a default monitor does not tolerate, and not by chance. The hour of
the week is asked of what the hour of the day leaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from driftline.detectors.baseline import ColumnReference
from driftline.detectors.coding import scores
from driftline.detectors.kernels.jit import kernel
from driftline.detectors.kernels.season import add_hours, hour_effect, new_hours
from driftline.detectors.season import DAY, HOUR_VALUES_LEAST, WAYS, WEEK, Season, hours_of, places_of
from driftline.detectors.spec import N_CODES, Float64, Grouping, Int32, Int64, UInt8, ordered_codes

VARIANCE_LEAST: Final = 0.01
"""Of the hours' means, the values' being 1."""
CERTAIN_FROM: Final = 3.1
"""z of one series in 1,000 whose hours are alike, beside that they must differ by so much."""
COVERED_LEAST: Final = 0.9
"""Of the values, in hours that have enough of them."""
_HOURS_MOST: Final = 20_000
"""Of a reference, the newest: more than two years."""

Coded = tuple[UInt8, Int32, Int64]
"""Codes (n, C), scopes (n, S) and event times (n,) of a piece of the reference."""
Seasons = dict[tuple[int, int], Season]


def find(pieces: Sequence[Coded], score: Float64, references: Sequence[ColumnReference], grouping: Grouping) -> Seasons:
    """The seasons of a reference by (scope, column).

    Parameters
    ----------
    score : (S, C, codes), of a value with each code among all; NaN = no value.
    """
    hours = [hours_of(time_ms) for _, _, time_ms in pieces]
    last = max(int(own.max()) for own in hours)
    first = max(min(int(own.min()) for own in hours), last - _HOURS_MOST + 1)
    # Where a day is not seen three times nothing shows that an hour is like that hour of another day.
    if grouping == "none" or (grouping == "auto" and last - first < 3 * DAY):
        return {}
    found: Seasons = {}
    places = [places_of(own) for own in hours]
    for c in np.flatnonzero((score == score).any(axis=(0, 2))).tolist():
        own = np.ascontiguousarray(score[:, c])
        in_week: Int64 = np.zeros((len(own), WEEK), np.int64)
        for (codes, scopes, _), place in zip(pieces, places, strict=True):
            _count_values(codes, c, scopes, place[:, 2], own, in_week)
        fits = {s: fitting for s, each in enumerate(in_week) if (fitting := _fitting(each))}
        if not fits:
            continue
        # Of a thousand segments most are too small for hours of their own: the rest have a row each in what follows.
        rows: Int64 = np.full(len(own), -1, np.int64)
        rows[list(fits)] = np.arange(len(fits))
        sums, counts = np.zeros((len(fits), last - first + 1, 2)), np.zeros((len(fits), last - first + 1), np.int64)
        for (codes, scopes, _), at in zip(pieces, hours, strict=True):
            _add_values(codes, c, scopes, rows, at - first, own, sums, counts)
        periods = {s: _period(sums[rows[s]], counts[rows[s]], first, fitting, grouping) for s, fitting in fits.items()}
        by_hour: Int64 = np.zeros((len(fits), WEEK, N_CODES), np.int64)
        ways = np.array([WAYS.index(periods.get(s, 1)) for s in range(len(own))], np.int64)
        for (codes, scopes, _), place in zip(pieces, places, strict=True) if ways.any() else ():
            _count_hours(codes, c, scopes, rows, place, ways, by_hour)
        order = ordered_codes(references[c].kind, references[c].n_bins)
        for s in np.flatnonzero(ways).tolist():
            found[s, c] = _season(by_hour[rows[s], : periods[s], order].T, counts[rows[s]], first)
    return dict(sorted(found.items()))


def own_scores(
    seasons: Mapping[tuple[int, int], Season], references: Sequence[ColumnReference], pooled: Float64
) -> dict[tuple[int, int], Float64]:
    """Standardised scores of codes by hour, (period, N_CODES) each; an hour without a reference of its own has those among all."""
    out = {}
    for (s, c), season in seasons.items():
        reference = references[c]
        counts = season.by_code(reference.kind, reference.n_bins)
        own = [scores(counts[h], reference.n_bins, reference.kind) if season.counts[h] else pooled[s, c] for h in range(season.period)]
        out[s, c] = np.array(own)
    return out


def _enough(values: Int64) -> bool:
    """Whether nearly all values lie in hours that have enough."""
    return bool(values[values >= HOUR_VALUES_LEAST].sum() >= COVERED_LEAST * max(int(values.sum()), 1))


def _fitting(in_week: Int64) -> frozenset[int]:
    """The periods whose hours have enough values, of the values by hour of the week."""
    return frozenset(period for period in (DAY, WEEK) if _enough(in_week.reshape(-1, period).sum(axis=0)))


def _by_hour(counts: Int64, first: int, period: int) -> Int64:
    """Of consecutive hours, by the hour of the day or week."""
    place = places_of(np.arange(first, first + len(counts)))[:, WAYS.index(period)]
    return np.bincount(place, weights=counts, minlength=period).astype(np.int64)


def _period(sums: Float64, counts: Int64, first: int, fits: frozenset[int], grouping: Grouping) -> int:
    """Hours that are told apart; 1 = none are."""
    if grouping != "auto":
        wanted = DAY if grouping == "hour_of_day" else WEEK
        return wanted if wanted in fits else 1
    means = [np.where(counts > 0, sums[:, k] / np.maximum(counts, 1), np.nan) for k in range(2)]
    if WEEK in fits and any(differ(_without_days(own, first), WEEK) for own in means):
        return WEEK
    return DAY if DAY in fits and any(differ(own, DAY) for own in means) else 1


def differ(means: Float64, period: int) -> bool:
    """Whether hours do, beyond what is tolerated and beyond chance."""
    hours = new_hours(1, period)
    add_hours(means, 0, hours)
    variance, certain = hour_effect(0, hours)
    return variance > VARIANCE_LEAST and certain > CERTAIN_FROM


def _without_days(means: Float64, first: int) -> Float64:
    """Less the mean of each hour of the day."""
    out = means.copy()
    for hour in range(DAY):
        own = means[(hour - first) % DAY :: DAY]
        known = own[~np.isnan(own)].tolist()
        out[(hour - first) % DAY :: DAY] -= math.fsum(known) / max(len(known), 1)
    return out


def _season(by_hour: Int64, counts: Int64, first: int) -> Season:
    period = len(by_hour)
    full = by_hour.sum(axis=1) >= HOUR_VALUES_LEAST
    seen = _by_hour((counts > 0).astype(np.int64), first, period)
    cycles = max(int(seen[full].sum()) // int(full.sum()), 1)
    return Season(period, cycles, tuple(tuple(own) if ok else None for own, ok in zip(by_hour.tolist(), full.tolist(), strict=True)))


@kernel
def _count_values(codes: UInt8, c: int, scopes: Int32, in_week: Int64, score: Float64, counts: Int64) -> None:
    """Add rows to each scope's number of values by hour of the week."""
    for i in range(codes.shape[0]):
        for j in range(scopes.shape[1]):
            s = scopes[i, j]
            x = score[s, codes[i, c]]
            if x == x:
                counts[s, in_week[i]] += 1


@kernel
def _add_values(codes: UInt8, c: int, scopes: Int32, rows: Int64, hours: Int64, score: Float64, sums: Float64, counts: Int64) -> None:
    """Add rows to the hours of scopes that have a row: scores and their squares, standardised, and how many.

    Hours below 0 are too long ago.
    """
    for i in range(codes.shape[0]):
        for j in range(scopes.shape[1]):
            s = scopes[i, j]
            x, row = score[s, codes[i, c]], rows[s]
            if x == x and row >= 0 and hours[i] >= 0:
                sums[row, hours[i], 0] += x
                sums[row, hours[i], 1] += (x * x - 1.0) / math.sqrt(2.0)
                counts[row, hours[i]] += 1


@kernel
def _count_hours(codes: UInt8, c: int, scopes: Int32, rows: Int64, places: Int64, ways: Int64, counts: Int64) -> None:
    """Add rows to the counts of each scope by hour and code."""
    for i in range(codes.shape[0]):
        for j in range(scopes.shape[1]):
            s = scopes[i, j]
            if ways[s] > 0:
                counts[rows[s], places[i, ways[s]], codes[i, c]] += 1
