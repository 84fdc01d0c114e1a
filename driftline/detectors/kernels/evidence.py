"""The sums behind the statistics of a window against a baseline; scalar loops, so that their bits are the same everywhere."""

from __future__ import annotations

import math
from typing import Final

from driftline.detectors.kernels.bank import Float64Array
from driftline.detectors.kernels.jit import inlined, kernel, portable_log

PSI, CHI, KL, JENSEN_SHANNON, HELLINGER = range(5)

CELLS_USED, CELLS_DENSE, SPARSE_WINDOW, SPARSE_ALL = range(4)
CELL_FIELDS: Final = 4
ORDER_FIELDS: Final = 5

EXPECTED_LEAST: Final = 5.0
"""Values that a cell must expect, in window and baseline, for the chi-squared law to hold of it (Cochran 1954)."""


@inlined
def _add_cell(p: float, q: float, times: float, out: Float64Array) -> None:
    """Add a cell's terms of two shares, both positive."""
    log_p, log_q, log_middle = portable_log(p), portable_log(q), portable_log(0.5 * (p + q))
    gap = log_p - log_q
    root = math.sqrt(p) - math.sqrt(q)
    out[PSI] += times * (p - q) * gap
    out[KL] += times * p * gap
    out[JENSEN_SHANNON] += times * 0.5 * (p * (log_p - log_middle) + q * (log_q - log_middle))
    out[HELLINGER] += times * 0.5 * root * root


@kernel
def fill_cells(
    window: Float64Array, reference: Float64Array, values: Float64Array, empty: Float64Array, dense: Float64Array, found: Float64Array
) -> None:
    """Compare the values of each cell.

    Shares have half a count added to every cell, as the panel's PSI has; chi-squared is that of the table of both samples,
    which needs none.

    Parameters
    ----------
    window, reference : values in each cell, shape (B,).
    values : shape (5,), filled by place; Hellinger's squared.
    empty : what cells that are empty in both add to `values` by their half counts alone.
    dense : as `values`, each times n m / (n + m), over the cells in which both samples expect `EXPECTED_LEAST` values, as if
        there were no others.
    found : shape (CELL_FIELDS,): cells that are not empty, dense ones, values of the window in the others, and of both samples.
    """
    b = window.shape[0]
    n = 0.0
    m = 0.0
    for g in range(b):
        n += window[g]
        m += reference[g]
    least = EXPECTED_LEAST * (n + m) / min(n, m)
    dense_n = 0.0
    dense_m = 0.0
    for g in range(b):
        both = window[g] + reference[g]
        p, q = (window[g] + 0.5) / (n + 0.5 * b), (reference[g] + 0.5) / (m + 0.5 * b)
        _add_cell(p, q, 1.0, values)
        if both <= 0.0:
            _add_cell(p, q, 1.0, empty)
            continue
        found[CELLS_USED] += 1.0
        gap = window[g] / n - reference[g] / m
        values[CHI] += n * m * gap * gap / both
        if both < least:
            found[SPARSE_WINDOW] += window[g]
            found[SPARSE_ALL] += both
        else:
            found[CELLS_DENSE] += 1.0
            dense_n += window[g]
            dense_m += reference[g]
    if dense_n <= 0.0 or dense_m <= 0.0:
        return
    half = 0.5 * found[CELLS_DENSE]
    times = dense_n * dense_m / (dense_n + dense_m)
    for g in range(b):
        both = window[g] + reference[g]
        if both >= least:
            _add_cell((window[g] + 0.5) / (dense_n + half), (reference[g] + 0.5) / (dense_m + half), times, dense)
            gap = window[g] / dense_n - reference[g] / dense_m
            dense[CHI] += dense_n * dense_m * gap * gap / both


@kernel
def fill_order(window: Float64Array, reference: Float64Array, widths: Float64Array, found: Float64Array) -> None:
    """Compare two distribution functions that are known at the ends of bins and straight between them.

    Parameters
    ----------
    window, reference : values in each bin, from the lowest, shape (B,).
    widths : of the bins, in the values' unit.
    found : shape (ORDER_FIELDS,), filled with the largest gap; the area between them; mean and mean square of that area times
        the root of n_eff, under no drift; the square of the gap integrated over both samples.

    References
    ----------
    Area under no drift: that of |B(F(x))|, B a Brownian bridge: mean sqrt(2 / pi) int s, s^2 = F (1 - F); mean square
    2 / pi int int s(x) s(y) (r asin r + sqrt(1 - r^2)), r the correlation (the absolute moments of two normal variables).
    """
    b = window.shape[0]
    n = 0.0
    m = 0.0
    for g in range(b):
        n += window[g]
        m += reference[g]
    above_n = 0.0
    above_m = 0.0
    gap = 0.0
    for g in range(b):
        above_n += window[g]
        above_m += reference[g]
        after = above_n / n - above_m / m
        found[0] = max(found[0], abs(after))
        found[1] += widths[g] * _mean_height(gap, after)
        found[4] += (window[g] + reference[g]) / (n + m) * (gap * gap + gap * after + after * after) / 3.0
        gap = after
    _fill_area_law(window, reference, widths, n + m, found)


@inlined
def _mean_height(a: float, b: float) -> float:
    """Mean of |f| along a straight line from a to b."""
    if a * b >= 0.0:
        return 0.5 * (abs(a) + abs(b))
    return 0.5 * (a * a + b * b) / (abs(a) + abs(b))


@kernel
def _fill_area_law(window: Float64Array, reference: Float64Array, widths: Float64Array, both: float, found: Float64Array) -> None:
    b = window.shape[0]
    two_over_pi = 2.0 / math.pi
    left = 0.0
    for i in range(b):
        inside = window[i] + reference[i]
        low = (left + 0.5 * inside) / both
        left += inside
        if widths[i] <= 0.0 or low <= 0.0 or low >= 1.0:
            continue
        spread = widths[i] * math.sqrt(low * (1.0 - low))
        found[2] += math.sqrt(two_over_pi) * spread
        found[3] += spread * spread
        upto = left
        for j in range(i + 1, b):
            further = window[j] + reference[j]
            high = (upto + 0.5 * further) / both
            upto += further
            if widths[j] <= 0.0 or high >= 1.0:
                continue
            r = min(math.sqrt(low * (1.0 - high) / (high * (1.0 - low))), 1.0)
            other = widths[j] * math.sqrt(high * (1.0 - high))
            found[3] += 2.0 * two_over_pi * spread * other * (r * math.asin(r) + math.sqrt(1.0 - r * r))
