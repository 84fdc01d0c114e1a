"""How much less than independent values the values of a window are worth, found in the window itself.

Values that follow each other are alike in most streams: a user's clicks, the hour, a producer that sends in clusters. The
laws of PSI, chi-squared, Kolmogorov-Smirnov and their kin are for independent values; with dependent ones chance alone makes
them larger, by a factor 1 + 2 sum_k r(k), r(k) the dependence of values k apart, 0 on average for independent ones.

- *Cells* (groups of bins, categories, 0 and 1): chi-squared becomes a sum of d_i chi-squared_1, d_i the eigenvalues of
  D = I - q q' + sum_k (M_k + M_k'), M_k[g, h] = (pairs g, h of lag k) / ((n - k) q_g q_h) - q_g q_h, q_g^2 the share of g. Their
  mean and their mean square are tr D and tr D^2, without an eigenvalue computed: X^2 / d as chi-squared with fewer degrees,
  d = tr D / (B - 1), degrees (tr D)^2 / tr D^2 (Rao and Scott 1981, JASA 76; Satterthwaite 1946). r(k) is tr M_k / (B - 1).
- *Ranks*: r(k) is the autocorrelation of the values' ranks, that of the smoothest way in which two distributions differ. The
  rougher ways have less, so that a p made with it is rather too large.

Centred on the window's own shares and ranks, so that a drift is not taken for dependence. The sum goes on while r(k) is above
a standard error of independent values. Less than 30 values show nothing.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from driftline.detectors.kernels.jit import inlined, kernel, part
from driftline.detectors.ring import RUN_BIT, Windows
from driftline.detectors.spec import ABOVE, BELOW, MAX_BINS, MISSING, N_CODES, Float64, Int64, UInt8
from driftline.detectors.tables import GROUPS_MAX, NO_GROUP, Tables

CELLS: Final = 0
FREEDOM: Final = 1
RANKS: Final = 2
KINDS: Final = 3
"""What is found: values worth one, of cells; the share of the degrees of freedom that is left; values worth one, of ranks."""

VALUES_LEAST: Final = 30
EVERY_LAG: Final = 16
"""Lags beyond this are taken in steps of an eighth: 50 passes over a window of 5,000 at most, 2 where nothing depends."""
LAG_SHARE: Final = 4
"""The longest lag is this part of the values: beyond it too few pairs are left."""

_PLACES: Final = np.array([BELOW, *range(MAX_BINS), ABOVE])


def dependence_of(t: Tables, windows: Windows, s: int, q: int, counts: Int64) -> Float64:
    """What the newest rows of a scope show of a series, shape (KINDS,); ones = independent.

    Parameters
    ----------
    counts : those rows by code, shape (N_CODES,).
    """
    out = np.ones(KINDS)
    if t.is_run[q]:
        return out
    head, rows, c = int(windows.heads[s]), int(counts.sum()), int(t.series_column[q])
    codes = windows.ring[s, np.arange(head - rows, head) % windows.ring.shape[1], c] & (RUN_BIT - 1)
    cells = (t.group[s, c] if t.is_value[q] else t.flags[q])[codes]
    cells = cells[cells != NO_GROUP]
    own = np.bincount(cells, minlength=GROUPS_MAX).astype(np.float64)
    used = int(np.count_nonzero(own))
    if len(cells) >= VALUES_LEAST and used > 1:
        pairs, sums = np.zeros((2, GROUPS_MAX, GROUPS_MAX))
        cell_dependence(cells, len(cells), own, used, pairs, sums, out)
    if t.is_value[q] and t.has_mean[q]:
        ranks = _centred_ranks(codes[codes < MISSING], counts)
        # Quarters of whole numbers: exact in any order.
        variance = float((ranks * ranks).sum()) / max(len(ranks), 1)
        if len(ranks) >= VALUES_LEAST and variance > 0.0:
            out[RANKS] = rank_dependence(ranks, len(ranks), variance)
    return out


def _centred_ranks(codes: UInt8, counts: Int64) -> Float64:
    """Mid-ranks among themselves, less their mean."""
    own = counts[_PLACES]
    rank = np.zeros(N_CODES)
    rank[_PLACES] = np.cumsum(own) - 0.5 * own
    centred: Float64 = rank[codes] - 0.5 * len(codes)
    return centred


@inlined
def next_step(lag: int) -> int:
    """How many lags this one stands for."""
    return max(1, lag // (EVERY_LAG // 2)) if lag >= EVERY_LAG else 1


@kernel
def cell_dependence(cells: UInt8, n: int, own: Float64, used: int, pairs: Float64, sums: Float64, out: Float64) -> None:
    """Write what the first `n` cells in order show to `out`: `CELLS` and `FREEDOM`.

    Parameters
    ----------
    own : values in each cell; `used` of them have any.
    pairs, sums : scratch, (GROUPS_MAX, GROUPS_MAX).
    """
    sums[:, :] = 0.0
    limit = 1.0 / math.sqrt(n * (used - 1.0))
    total = 0.0
    lag = 1
    while lag <= n // LAG_SHARE:
        pairs[:, :] = 0.0
        for i in range(n - lag):
            pairs[cells[i], cells[i + lag]] += 1.0
        alike = 0.0
        for g in range(GROUPS_MAX):
            if own[g] > 0.0:
                alike += pairs[g, g] / own[g]
        # Drawn without replacement, two values of a cell meet less often than its share says.
        found = (alike * n / (n - lag) - 1.0) / (used - 1.0) + 1.0 / (n - 1.0)
        if found < limit:
            break
        step = next_step(lag)
        total += step * found
        for g in range(GROUPS_MAX):
            for h in range(GROUPS_MAX):
                if own[g] > 0.0 and own[h] > 0.0:
                    root = math.sqrt(own[g] * own[h])
                    sums[g, h] += step * (pairs[g, h] * n / ((n - lag) * root) - root / n)
        lag += step
    out[CELLS] = min(1.0 + 2.0 * total, float(n))
    if total > 0.0:
        out[FREEDOM] = _freedom_left(own, n, used, sums)


@part
def _freedom_left(own: Float64, n: int, used: int, sums: Float64) -> float:
    """(tr D)^2 / ((B - 1) tr D^2)."""
    trace = 0.0
    squares = 0.0
    for g in range(GROUPS_MAX):
        for h in range(GROUPS_MAX):
            if own[g] > 0.0 and own[h] > 0.0:
                entry = sums[g, h] + sums[h, g] - math.sqrt(own[g] * own[h]) / n
                if g == h:
                    entry += 1.0
                    trace += entry
                squares += entry * entry
    if not (trace > 0.0 and squares > 0.0):
        return 1.0
    return min(trace * trace / ((used - 1.0) * squares), 1.0)


@kernel
def rank_dependence(ranks: Float64, n: int, variance: float) -> float:
    """Values that are worth one, of the first `n` centred ranks in order."""
    limit = 1.0 / math.sqrt(n)
    total = 0.0
    lag = 1
    while lag <= n // LAG_SHARE:
        products = 0.0
        for i in range(n - lag):
            products += ranks[i] * ranks[i + lag]
        found = products / ((n - lag) * variance) + 1.0 / (n - 1.0)
        if found < limit:
            break
        step = next_step(lag)
        total += step * found
        lag += step
    return min(1.0 + 2.0 * total, float(n))
