"""The same window under eight statistics: how far it is from the baseline, how far chance alone would have it, and how likely.

Windows explain, they do not decide: the rows of an event are those since the change that a detector found, chosen because
they differ, so that no p of such an event is a false-alarm rate. It is one in a snapshot, whose window nobody chose.

Over *cells* (the groups of PSI; 0 and 1 of a flag): psi, chi_squared, kl, jensen_shannon, hellinger. Over the *order* of a
numeric column's values, by its bins: ks, wasserstein, cramer_von_mises. n values of the window against m of the baseline are
worth n_eff = n m / (n + m) / d independent ones, d from `dependence.py`, the baseline taken to be as dependent as the window.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from driftline.detectors import null_laws as laws
from driftline.detectors.baseline import ColumnReference
from driftline.detectors.dependence import CELLS, FREEDOM, RANKS, VALUES_LEAST
from driftline.detectors.explained import WindowStatistic
from driftline.detectors.groups import grouped
from driftline.detectors.kernels.evidence import (
    CELL_FIELDS,
    CHI,
    HELLINGER,
    JENSEN_SHANNON,
    KL,
    ORDER_FIELDS,
    PSI,
    fill_cells,
    fill_order,
)
from driftline.detectors.layout import Layout
from driftline.detectors.spec import ABOVE, BELOW, MAX_BINS, NOT_APPLICABLE, Float64
from driftline.detectors.tables import Tables

DIGITS: Final = 6
"""Significant digits that leave: the rest is the C library's, and nobody's reading."""

_PLACES: Final = np.array([BELOW, *range(MAX_BINS), ABOVE])
_CELLS: Final = (
    ("psi", PSI, 1.0),
    ("chi_squared", CHI, 1.0),
    ("kl", KL, 2.0),
    ("jensen_shannon", JENSEN_SHANNON, 8.0),
    ("hellinger", HELLINGER, 8.0),
)
"""Name, place, and what times n_eff makes it chi-squared; Hellinger's by its square."""


def statistics_of(counts: Any, dependence: Float64, layout: Layout, t: Tables, scope: int, q: int) -> tuple[WindowStatistic, ...]:
    """The statistics of a series over the rows in `counts`; empty where window or baseline has no value, and for runs.

    Parameters
    ----------
    counts : rows by code, shape (N_CODES,).
    dependence : shape (KINDS,), as `find_dependence` writes it.
    """
    if t.is_run[q]:
        return ()
    rows = np.asarray(counts, np.float64)
    window, reference = _cell_counts(rows, layout, t, scope, q)
    found = _cell_statistics(window, reference, float(dependence[CELLS]), float(dependence[FREEDOM]))
    column = layout.references[layout.column_of[q]]
    if t.is_value[q] and column.kind == "numeric" and column.low is not None:
        before = _reference_counts(layout, t, scope, layout.column_of[q])
        found += _order_statistics(rows[_PLACES], before[_PLACES], column, float(dependence[RANKS]))
    return tuple(found)


def _cell_counts(rows: Float64, layout: Layout, t: Tables, scope: int, q: int) -> tuple[Float64, Float64]:
    c = layout.column_of[q]
    if not t.is_value[q]:
        flags = t.flags[q]
        size, rate = float(t.size[scope, q]), float(t.rate[scope, q])
        # The rate, not the counts: what is out of range or unseen is so by the reference, which has none of it.
        return np.array([rows[flags == 0].sum(), rows[flags == 1].sum()]), np.array([size * (1.0 - rate), size * rate])
    group, used = t.group[scope, c], int(t.groups[scope, c])
    return grouped(rows, group, used), grouped(_reference_counts(layout, t, scope, c), group, used)


def _reference_counts(layout: Layout, t: Tables, scope: int, c: int) -> Float64:
    """Values by code; of the hours that a window holds, where values go by the hour, as many as those hours have (`matched.py`)."""
    counts: Float64 = layout.counts[scope, c].astype(np.float64)
    if layout.hours_matched(scope, c) is None:
        return counts
    counts *= float(t.psi_size[scope, c]) / max(float(counts[:NOT_APPLICABLE].sum()), 1.0)
    return counts


def _cell_statistics(window: Float64, reference: Float64, dependence: float, left: float) -> list[WindowStatistic]:
    n, m = float(window.sum()), float(reference.sum())
    if n <= 0.0 or m <= 0.0:
        return []
    found = np.zeros(CELL_FIELDS)
    values, empty, dense = np.zeros(5), np.zeros(5), np.zeros(5)
    fill_cells(window, reference, values, empty, dense, found)
    used, dense_cells, sparse_window, sparse_all = found.tolist()
    worth = n * m / (n + m) / dependence
    freedom = max(int(used) - 1, 0)
    rare = laws.binomial_two_sided(sparse_window / dependence, sparse_all / dependence, n / (n + m)) if sparse_all else None
    out = []
    for name, place, scale in _CELLS:
        value = float(values[place])
        chance = freedom * dependence if place == CHI else float(empty[place]) + freedom / (scale * worth)
        p = None
        # Where every cell is sparse they are one, and what is in it is all there is: that says nothing.
        if n >= VALUES_LEAST and dense_cells:
            p = _cell_p(left * scale * float(dense[place]) / dependence, left * max(dense_cells - 1.0, 0.0), rare)
        size = value - chance
        if place == CHI:
            size = math.sqrt(max(size, 0.0) / (worth * dependence))
        elif place == HELLINGER:
            value, chance, size = math.sqrt(max(value, 0.0)), math.sqrt(chance), math.sqrt(max(size, 0.0))
        out.append(_shown(name, value, max(size, 0.0), chance, worth, p))
    return out


def _cell_p(chi_squared: float, freedom: float, rare: float | None) -> float:
    """The chance of the cells that hold enough values, by their law, and of the others together, exactly."""
    common = laws.chi_squared_tail(chi_squared, freedom)
    if rare is None:
        return common
    return rare if freedom <= 0.0 else laws.combined(common, rare)


def _order_statistics(window: Float64, reference: Float64, column: ColumnReference, dependence: float) -> list[WindowStatistic]:
    n, m = float(window.sum()), float(reference.sum())
    if n <= 0.0 or m <= 0.0:
        return []
    found = np.zeros(ORDER_FIELDS)
    fill_order(window, reference, _widths(column), found)
    gap, moved, moved_mean, moved_square, squares = found.tolist()
    worth = n * m / (n + m) / dependence
    enough = n >= VALUES_LEAST
    expected = laws.KOLMOGOROV_MEAN / math.sqrt(worth)
    size = math.sqrt(max(gap * gap - laws.KOLMOGOROV_SQUARE / worth, 0.0))
    out = [_shown("ks", gap, size, expected, worth, laws.ks_tail(gap, worth) if enough else None)]
    if math.isfinite(moved) and math.isfinite(moved_square) and column.sd:
        mean, square = moved_mean / math.sqrt(worth), moved_square / worth
        size = math.sqrt(max(moved * moved - square, 0.0)) / column.sd
        out.append(_shown("wasserstein", moved, size, mean, worth, laws.lognormal_tail(moved, mean, square) if enough else None))
    integral = squares * worth * dependence
    expected = laws.CRAMER_MEAN * dependence
    size = math.sqrt(max(squares - laws.CRAMER_MEAN / worth, 0.0))
    out.append(_shown("cramer_von_mises", integral, size, expected, worth, laws.cramer_tail(integral / dependence) if enough else None))
    return out


def _widths(column: ColumnReference) -> Float64:
    """The length of each place on the line; what lies beyond the baseline's ends is taken to lie at them."""
    assert column.low is not None
    assert column.high is not None
    ends = np.array([column.low, *column.edges, column.high])
    out = np.zeros(len(_PLACES))
    out[1 : len(ends)] = np.diff(ends)
    return out


def _shown(name: str, value: float, size: float, chance: float, worth: float, p: float | None) -> WindowStatistic:
    return WindowStatistic(name, _rounded(value), _rounded(size), _rounded(chance), _rounded(worth), None if p is None else _rounded(p))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
