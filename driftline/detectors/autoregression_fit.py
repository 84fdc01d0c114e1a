"""The fit of a memory: autocovariances, order and residuals of every scope and column of a reference, in stream order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

from driftline.detectors.autoregression import ORDER_MOST, Autoregression, Dependence
from driftline.detectors.kernels.autoregression import add_products, collect_residuals, fit_order
from driftline.detectors.kernels.dependence import check_sequence, new_checks
from driftline.detectors.season import HourScores
from driftline.detectors.spec import Float64, Int32, Int64, UInt8

VALUES_MIN: Final = 200
"""Of a series, for a fit; what a scope must have to be watched in any panel of usual size."""
RESIDUAL_BINS: Final = 60
_VARIANCE_LEAST: Final = 1e-6
"""Of the values'; a series that its past foretells better than this is a formula, and its residuals are rounding."""

Coded = tuple[UInt8, Int32, Int64]
"""Codes (n, C), scopes (n, S) and places of the hours (n, ways) of a piece of the reference."""


Memories = dict[tuple[int, int], Autoregression]
Dependences = dict[tuple[int, int], Dependence]


def fit(pieces: Sequence[Coded], score: HourScores) -> tuple[Memories, Dependences]:
    """The memories of a reference by (scope, column), of those that have one; and what dependence is left, where there is any.

    Parameters
    ----------
    pieces : in stream order, none left out.
    score : of a value with each code; NaN = no value.
    """
    n_scopes, n_columns = score.first.shape
    past, seen = np.zeros((n_scopes, n_columns, ORDER_MOST)), np.zeros((n_scopes, n_columns), np.int64)
    products = np.zeros((n_scopes, n_columns, ORDER_MOST + 1))
    for codes, scopes, places in pieces:
        add_products(codes, scopes, places, *score, past, seen, products)
    memories: Memories = {}
    left: Dependences = {}
    for c in np.flatnonzero((seen >= VALUES_MIN).any(axis=0)).tolist():
        _fit_column(pieces, score, c, products[:, c], seen[:, c], memories, left)
    return dict(sorted(memories.items())), dict(sorted(left.items()))


def _fit_column(
    pieces: Sequence[Coded], score: HourScores, c: int, products: Float64, seen: Int64, memories: Memories, left: Dependences
) -> None:
    n_scopes = len(seen)
    order, coefficients, trial = np.full(n_scopes, -1, np.int64), np.zeros((n_scopes, ORDER_MOST)), np.zeros(ORDER_MOST)
    asked = np.flatnonzero(seen >= VALUES_MIN).tolist()
    for s in asked:
        order[s] = fit_order(products[s], int(seen[s]), _VARIANCE_LEAST * float(products[s, 0]), coefficients[s], trial)
    kept = np.where(order >= 0, seen - order, 0)
    ends = np.cumsum(kept)
    out = np.empty(int(ends[-1]))
    past, taken = np.zeros((n_scopes, ORDER_MOST)), np.zeros(n_scopes, np.int64)
    for codes, scopes, places in pieces:
        collect_residuals(codes, c, scopes, places, *score, order, coefficients, past, taken, ends - kept, out)
    checks = new_checks(n_scopes)
    for s in asked:
        values = out[ends[s] - kept[s] : ends[s]]
        if order[s]:
            memories[s, c] = _described(coefficients[s, : order[s]].tolist(), np.sort(values))
            values = _scores(values, memories[s, c])
        check_sequence(values, s, checks)
        if checks.level[s]:
            left[s, c] = Dependence(int(checks.level[s]), float(checks.found[s]))


def _scores(residuals: Float64, memory: Autoregression) -> Float64:
    """Normal scores of residuals by the middle of their bins."""
    counts, n = np.array(memory.counts), len(residuals)
    before = np.cumsum(counts) - counts
    normal = NormalDist()
    table = np.array([normal.inv_cdf((b + 0.5 * own + 0.5) / (n + 1)) for b, own in zip(before.tolist(), memory.counts, strict=True)])
    found: Float64 = table[np.searchsorted(memory.edges, residuals, side="left")]
    return found


def _described(coefficients: list[float], ordered: Float64) -> Autoregression:
    n = len(ordered)
    sd = math.sqrt(math.fsum((ordered * ordered).tolist()) / n)
    ranks = [-(-n * j // RESIDUAL_BINS) for j in range(1, RESIDUAL_BINS)]
    low, high = float(ordered[0]), float(ordered[-1])
    inner = sorted({float(ordered[rank - 1]) for rank in ranks} - {high})
    edges = (math.nextafter(low, -math.inf), *inner, high)
    counts = np.bincount(np.searchsorted(edges, ordered, side="left"), minlength=len(edges) + 1)
    return Autoregression(tuple(coefficients), sd, edges, tuple(counts.tolist()))
